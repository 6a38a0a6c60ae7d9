"""Distances between two sets of features: the kernel distance (KID) and the Frechet distance (FID).

Kernel distance: unbiased squared maximum mean discrepancy with the kernel k(x, y) = (x . y / D + 1)^3 (Binkowski,
Sutherland, Arbel, Gretton, "Demystifying MMD GANs", ICLR 2018). Unbiased means that two sets of one distribution score
0 on average, whatever their sizes; single values may then be negative.

Frechet distance of Gaussians fitted to the features (Heusel et al., NeurIPS 2017): |mean_f - mean_r|^2 + tr(S_f) +
tr(S_r) - 2 tr((S_f^1/2 S_r S_f^1/2)^1/2), S the covariances with N - 1. It is biased upward, by an amount that falls
with the counts and depends on the model: with fewer images than features most of it is bias, and rankings can turn
round. At 100 images a heavier JPEG compression scored better than a lighter one. Compare values of equal counts only
and look at the kernel distance first, which has no such bias.

They are a KID and a FID in the narrow sense only on the features of the Inception network: name a number after the
network that made it. torchmetrics agrees (tests), but resamples no images for KID, and its FID takes the eigenvalues of
a D x D product: slow, and good to half of the digits where there are fewer images than features.

Shapes: N made images, M real images, D features, R rows of weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from unpaired.errors import ConfigError, DataError
from unpaired.evaluation.intervals import FEWEST_IMAGES, drawn_counts, percentile_interval
from unpaired.evaluation.registry import ImageSets, Score, metric

LARGEST_SUBSET = 1000
LITE0 = "EfficientNet-Lite0 (ImageNet), 1280 pooled features, images at 224 x 224; not the KID or FID of the field"
_INCEPTION = "Inception of the original FID (2015-12-05), 2048 pooled features, 8-bit images resized as in TensorFlow 1"
_KERNEL = (
    "kernel distance (Binkowski et al. 2018), kernel (x . y / D + 1)^3, unbiased, over all images, x 1000; spread: 100 "
    "subsets of half of the smaller set; interval: bootstrap over images"
)
_BLOCK_ROWS = 2048  # a block of the kernel matrix is 32 MiB
_SUBSETS, _RESAMPLES = range(2)  # independent random streams of one seed


def check_features(measure: str, fake_ND: Tensor, real_MD: Tensor, fewest: int, why: str = "") -> None:
    """Refuse two sets of features that cannot be compared. Raises ``DataError``."""
    for what, features in (("fake", fake_ND), ("real", real_MD)):
        if features.ndim != 2 or not features.is_floating_point():
            raise DataError(
                f"{measure}: {what} features must be floats of shape (images, features), "
                f"not {features.dtype} of shape {tuple(features.shape)}"
            )
        if len(features) < fewest:
            raise DataError(
                f"{measure} needs at least {fewest} images in each set{why}, "
                f"and there {'is' if len(features) == 1 else 'are'} {len(features)} {what}"
            )
        finite = torch.isfinite(features).all(1)
        if not bool(finite.all()):
            raise DataError(f"{what} image {int((~finite).nonzero()[0])} has features that are not finite")
    if fake_ND.shape[1] != real_MD.shape[1]:
        raise DataError(
            f"{measure}: {fake_ND.shape[1]} features of a fake image, {real_MD.shape[1]} of a real one; "
            f"take both from the same network"
        )


def kernel_distance(
    fake_ND: Tensor,
    real_MD: Tensor,
    *,
    subsets: int = 100,
    subset_size: int | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[Score, float]:
    """Measure the kernel distance over all images, its spread over subsets and its interval over resamples.

    The interval: every resample draws both sets anew with replacement. A pair of an image with itself never counts,
    also where the image was drawn twice, so that repetition adds no bias; the replicates are moved to the value,
    because a resample leaves images out, which makes the sets differ more than they do. In simulations its width is
    right where the sets differ clearly (1.0 times the spread over new sets) and too wide where they hardly do, up to
    1.75 times for two sets of one distribution. Subsets and resamples are weights on one kernel matrix, visited in
    blocks: 1,000 of them cost as much as 1,000 more features.

    Args:
        fake_ND: Features of the made images, any float type; computed in float64 on their own device.
        real_MD: Features of the real images; their number may differ.
        subsets: Random subsets for ``spread``.
        subset_size: Images per subset and set; ``None`` takes half of the smaller set, at most 1,000. The whole set
            would make all subsets equal and the spread nothing.
        resamples: Of the interval; 0 leaves it out.
        seed: Chooses subsets and resamples; ``value`` depends on no seed.

    Returns:
        The score (not scaled; tables usually show 1000 times these numbers), and the mean over the subsets. This mean
        and ``spread``, the standard deviation over the subsets, are what torch-fidelity and torchmetrics report.

    Raises:
        DataError: A set has fewer than 4 images, the widths differ, or a feature is not finite.
        ConfigError: ``subset_size`` is under 2 or over the smaller set, or ``subsets`` is under 1.
    """
    check_features("kernel distance", fake_ND, real_MD, FEWEST_IMAGES)
    smaller = min(len(fake_ND), len(real_MD))
    size = min(LARGEST_SUBSET, smaller // 2) if subset_size is None else subset_size
    if not (2 <= size <= smaller and subsets >= 1):
        raise ConfigError(
            f"kernel distance: {subsets} subsets of {size} images; give at least 1 subset of 2 to {smaller} images"
        )
    rows = [[np.ones((1, len(x)), np.uint16), np.zeros((subsets, len(x)), np.uint16)] for x in (fake_ND, real_MD)]
    choose = np.random.default_rng([seed, _SUBSETS])
    for index in range(subsets):
        for whole, chosen in rows:
            chosen[index, choose.choice(whole.shape[1], size, replace=False)] = 1
    draw = np.random.default_rng([seed, _RESAMPLES])
    fake_RN, real_RM = (np.concatenate([*some, drawn_counts(some[0].shape[1], resamples, draw)]) for some in rows)
    found = _squared_mmd(fake_ND, real_MD, fake_RN, real_RM).numpy()
    value, of_subsets, replicates = float(found[0]), found[1 : subsets + 1], found[subsets + 1 :]
    interval = None
    if resamples:
        low, high = percentile_interval(replicates - np.mean(replicates))
        interval = value + low, value + high
    return Score(value, float(np.std(of_subsets)), interval), float(np.mean(of_subsets))


def _squared_mmd(fake_ND: Tensor, real_MD: Tensor, fake_RN: np.ndarray, real_RM: np.ndarray) -> Tensor:
    """Unbiased squared MMD for every row of weights: (R,), float64 on the CPU."""
    within = _mean_within(fake_ND, fake_RN) + _mean_within(real_MD, real_RM)
    across = torch.zeros(len(fake_RN), dtype=torch.float64)
    for _, a, weights_a in _blocks(fake_ND, fake_RN):
        for _, b, weights_b in _blocks(real_MD, real_RM):
            across += ((weights_a @ _cubic_kernel(a, b)) * weights_b).sum(1).cpu()
    return within - 2.0 * across / torch.from_numpy(fake_RN.sum(1, dtype=np.float64) * real_RM.sum(1, dtype=np.float64))


def _mean_within(features_ND: Tensor, weights_RN: np.ndarray) -> Tensor:
    """Weighted mean of the kernel over all pairs of two different images of one set: (R,)."""
    total = torch.zeros(len(weights_RN), dtype=torch.float64)
    for start, a, weights_a in _blocks(features_ND, weights_RN):
        for other, b, weights_b in _blocks(features_ND, weights_RN):
            if other < start:
                continue  # the kernel is symmetric: the block (start, other) counts twice
            kernel = _cubic_kernel(a, b)
            if other == start:
                kernel.fill_diagonal_(0.0)
            total += (1.0 if other == start else 2.0) * ((weights_a @ kernel) * weights_b).sum(1).cpu()
    weights = weights_RN.astype(np.float64)
    return total / torch.from_numpy(weights.sum(1) ** 2 - (weights**2).sum(1))


def _blocks(features_ND: Tensor, weights_RN: np.ndarray) -> Iterator[tuple[int, Tensor, Tensor]]:
    """First image, features and weights of each block of images, in float64."""
    device = "cpu" if features_ND.device.type == "mps" else features_ND.device  # mps has no float64
    for start in range(0, len(features_ND), _BLOCK_ROWS):
        part = slice(start, start + _BLOCK_ROWS)
        weights = torch.from_numpy(weights_RN[:, part].astype(np.float64)).to(device)
        yield start, features_ND[part].detach().to(device).double(), weights


def _cubic_kernel(a_ND: Tensor, b_MD: Tensor) -> Tensor:
    inner = (a_ND @ b_MD.T).div_(a_ND.shape[1]).add_(1.0)
    return inner.square().mul_(inner)


def frechet_distance(fake_ND: Tensor, real_MD: Tensor) -> float:
    """Measure the Frechet distance, in float64, also for fewer images than features.

    It needs no matrix square root: with S_f = A^T A and S_r = B^T B the last trace is the sum of the singular values of
    A B^T. Memory: a factor of at most min(N, D) x D numbers per set, whatever N is.

    Raises:
        DataError: A set has fewer than 2 images, the widths differ, or a feature is not finite.
    """
    width = fake_ND.shape[-1] if fake_ND.ndim else 0
    check_features(
        "Frechet distance", fake_ND, real_MD, 2, f" (and means little with fewer than {width}, the number of features)"
    )
    mean_f, factor_f = _mean_and_factor(fake_ND)
    mean_r, factor_r = _mean_and_factor(real_MD)
    overlap = torch.linalg.svdvals(factor_f @ factor_r.T).sum()
    covariances = float(factor_f.square().sum() + factor_r.square().sum() - 2.0 * overlap)
    return float((mean_f - mean_r).square().sum()) + max(0.0, covariances)  # -1e-13 is 0


def _mean_and_factor(features_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,) and a factor A, (at most min(N, D), D), of the covariance A^T A: a QR decomposition, block by block."""
    device = "cpu" if features_ND.device.type == "mps" else features_ND.device  # mps has no float64
    blocks = [block.detach() for block in features_ND.split(_BLOCK_ROWS)]
    mean = torch.stack([block.to(device).double().sum(0) for block in blocks]).sum(0) / len(features_ND)
    factor = features_ND.new_zeros((0, features_ND.shape[1]), dtype=torch.float64, device=device)
    for block in blocks:
        factor = torch.cat([factor, block.to(device).double() - mean])
        if len(factor) > factor.shape[1]:
            factor = torch.linalg.qr(factor, mode="r").R
    return mean, factor / (len(features_ND) - 1) ** 0.5


def _kid(network: str, sets: ImageSets, seed: int) -> Score:
    fake, real = sets.features(network, "fake"), sets.features(network, "real")
    return kernel_distance(fake, real, resamples=1000 if sets.intervals else 0, seed=seed)[0].scaled(1e3)


def register_kid(network: str, title: str, features: str) -> None:
    """Add ``kid_<network>_x1e3`` to ``METRICS``: the kernel distance on the features of any network.

    Args:
        network: Its name among the scoring networks.
        title: For the table's column.
        features: In words, what its features are; part of the protocol.
    """
    metric(
        f"kid_{network}_x1e3", f"KID ({title})", "x 1e-3", "lower", f"{_KERNEL}; features: {features}",
        against="real", networks=(network,), minimum=10,
    )(partial(_kid, network))  # fmt: skip


def _fd(network: str, sets: ImageSets, seed: int) -> Score:
    return Score(frechet_distance(sets.features(network, "fake"), sets.features(network, "real")))


register_kid("lite0", "Lite0", LITE0)
metric(
    "fd_lite0", "FD (Lite0)", "", "lower",
    f"Frechet distance of Gaussians; biased upward with few images, so only for equal counts; features: {LITE0}",
    against="real", networks=("lite0",), minimum=10,
)(partial(_fd, "lite0"))  # fmt: skip


@metric(
    "kid_torchfidelity_x1e3", "KID", "x 1e-3", "lower",
    "KID as torch-fidelity computes it: 100 subsets of 1000 images (of half of the smaller set where it has no "
    f"more than 1000), mean and standard deviation, x 1000; features: {_INCEPTION}",
    against="real", networks=("inception",), minimum=10,
)  # fmt: skip
def _kid_of_the_field(sets: ImageSets, seed: int) -> Score:
    fake, real = sets.features("inception", "fake"), sets.features("inception", "real")
    smaller = min(len(fake), len(real))
    size = LARGEST_SUBSET if smaller > LARGEST_SUBSET else smaller // 2
    score, mean = kernel_distance(fake, real, subset_size=size, resamples=0, seed=seed)
    return Score(mean, score.spread).scaled(1e3)


metric(
    "fid_torchfidelity", "FID", "", "lower", f"FID as torch-fidelity computes it; features: {_INCEPTION}",
    against="real", networks=("inception",), minimum=10,
)(partial(_fd, "inception"))  # fmt: skip
