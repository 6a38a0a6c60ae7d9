"""The table of metrics. Adding one = a function of (``ImageSets``, seed) -> ``Measured`` and one row in ``METRICS``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from unpaired.metrics.content import (
    IDENTITY_LEVELS,
    diversity,
    mean_change_levels,
    mean_colour_shift,
    structure_distance,
)
from unpaired.metrics.frechet import frechet_distance
from unpaired.metrics.kernel_distance import kernel_distance, kid_over_subsets
from unpaired.metrics.paired import paired_l1, paired_psnr, paired_ssim
from unpaired.metrics.resampling import bootstrap_mean
from unpaired.metrics.segmentation import segmentation_scores
from unpaired.metrics.sets import ImageSets, Measured, Metric, Which
from unpaired.metrics.swd import swd_progan_interval
from unpaired.metrics.unchanged_rows import unchanged_rows

_PER_IMAGE = "mean over images, interval by bootstrap over images"
_OWN_KID = (
    "kernel distance (Binkowski et al. 2018), kernel (x . y / D + 1)^3, unbiased, over all images, x 1000; spread: 100 "
    "subsets of half of the smaller set; interval: bootstrap over images"
)
_LITE0 = "EfficientNet-Lite0 (ImageNet), 1280 pooled features, images at 224 x 224; not the KID or FID of the field"
_INCEPTION = "Inception of the original FID (2015-12-05), 2048 pooled features, 8-bit images resized as in TensorFlow 1"


def _mean(values: list[float], sets: ImageSets, seed: int) -> Measured:
    interval = bootstrap_mean(values, seed=seed) if sets.intervals and len(values) > 1 else None
    return Measured(sum(values) / len(values), interval=interval, per_image=values)


def _paired(function: Callable[[Tensor, Tensor], list[float]], against: Which) -> Callable[[ImageSets, int], Measured]:
    def row(sets: ImageSets, seed: int) -> Measured:
        return _mean([value for pair in sets.pairs("fake", against) for value in function(*pair)], sets, seed)

    return row


def _swd(sets: ImageSets, seed: int) -> Measured:
    resamples = 100 if sets.intervals else 0
    levels, interval = swd_progan_interval(sets.batches("fake"), sets.batches("real"), seed, resamples=resamples)
    return Measured(levels.pop("mean"), interval=interval, per_level=levels)


def _kernel_distance(network: str, sets: ImageSets, seed: int) -> Measured:
    fake, real = sets.features(network, "fake"), sets.features(network, "real")
    found = kernel_distance(fake, real, resamples=1000 if sets.intervals else 0, seed=seed)
    interval = None if found.interval is None else (1e3 * found.interval[0], 1e3 * found.interval[1])
    return Measured(1e3 * found.value, 1e3 * found.spread, interval)


def _kid_of_the_field(sets: ImageSets, seed: int) -> Measured:
    fake, real = sets.features("inception", "fake"), sets.features("inception", "real")
    smaller = min(len(fake), len(real))
    mean, spread = kid_over_subsets(fake, real, subset_size=1000 if smaller > 1000 else smaller // 2, seed=seed)
    return Measured(1e3 * mean, 1e3 * spread)


def _frechet_distance(network: str, sets: ImageSets, seed: int) -> Measured:
    return Measured(frechet_distance(sets.features(network, "fake"), sets.features(network, "real")).value)


def _st_lpips(sets: ImageSets, seed: int) -> Measured:
    return _paired(lambda fake, truth: sets.networks["st_lpips"](fake, truth).double().tolist(), "truth")(sets, seed)


def _structure(sets: ImageSets, seed: int) -> Measured:
    if sets.fake is sets.source:  # the untranslated input
        return _mean([0.0] * len(sets.fake), sets, seed)
    maps = sets.networks["lite0.maps"]
    return _paired(lambda fake, source: structure_distance(maps(source), maps(fake)), "source")(sets, seed)


def _identity_rate(sets: ImageSets, seed: int) -> Measured:
    changes = [value for fake, source in sets.pairs("fake", "source") for value in mean_change_levels(source, fake)]
    return _mean([100.0 * (change < IDENTITY_LEVELS) for change in changes], sets, seed)


def _diversity(sets: ImageSets, seed: int) -> Measured:
    return Measured(diversity(sets.features("lite0", "fake"), sets.features("lite0", "real")))


def _colour_shift(sets: ImageSets, seed: int) -> Measured:
    return Measured(mean_colour_shift(sets.batches("fake"), sets.batches("real")))


def _segmentation(part: str, segmenter: str, sets: ImageSets, seed: int) -> Measured:
    found = segmentation_scores(sets.confusion(segmenter), resamples=1000 if sets.intervals else 0, seed=seed)
    interval = found.intervals.get(part)
    return Measured(
        100.0 * getattr(found, part),
        interval=None if interval is None else (100.0 * interval[0], 100.0 * interval[1]),
        per_level={name: 100.0 * value for name, value in found.per_class.items()} if part == "mean_iou" else {},
    )


def _segmentation_rows(segmenter: str, title: str, words: str) -> dict[str, Metric]:
    rows = {}
    for part, name, label, means in (
        ("mean_iou", "miou", "mean IoU", "mean over classes of intersection over union (the paper's mAP)"),
        ("pixel_accuracy", "pixel_accuracy", "pixel accuracy", "share of pixels with the right class"),
        ("class_accuracy", "class_accuracy", "class accuracy", "mean over classes of the share found"),
    ):
        rows[f"{name}_{segmenter}_percent"] = Metric(
            partial(_segmentation, part, segmenter), f"{label} ({title})", "%", "higher",
            f"{means}, 19 Cityscapes classes, of what {words} sees in the made photos, against the label maps "
            "that they were made from, each pixel snapped to the nearest official colour, void left out",
            against="source", networks=(segmenter,), label_maps=True,
        )  # fmt: skip
    return rows


METRICS: dict[str, Metric] = {
    "kid_lite0_x1e3": Metric(
        partial(_kernel_distance, "lite0"), "KID (Lite0)", "x 1e-3", "lower", f"{_OWN_KID}; features: {_LITE0}",
        against="real", networks=("lite0",), minimum=10,
    ),
    "fd_lite0": Metric(
        partial(_frechet_distance, "lite0"), "FD (Lite0)", "", "lower",
        f"Frechet distance of Gaussians; biased upward with few images, so only for equal counts; features: {_LITE0}",
        against="real", networks=("lite0",), minimum=10,
    ),
    "kid_torchfidelity_x1e3": Metric(
        _kid_of_the_field, "KID", "x 1e-3", "lower",
        "KID as torch-fidelity computes it: 100 subsets of 1000 images (of half of the smaller set where it has no "
        f"more than 1000), mean and standard deviation, x 1000; features: {_INCEPTION}",
        against="real", networks=("inception",), minimum=10,
    ),
    "fid_torchfidelity": Metric(
        partial(_frechet_distance, "inception"), "FID", "", "lower",
        f"FID as torch-fidelity computes it; features: {_INCEPTION}",
        against="real", networks=("inception",), minimum=10,
    ),
    "kid_mobilenet_x1e3": Metric(
        partial(_kernel_distance, "mobilenet"), "KID (MobileNet)", "x 1e-3", "lower",
        f"{_OWN_KID}; features: MobileNet-v1 (ImageNet), 1024 pooled features, images at 224 x 224",
        against="real", networks=("mobilenet",), minimum=10,
    ),
    "swd_progan_x1e3": Metric(
        _swd, "SWD", "x 1e-3", "lower",
        "sliced Wasserstein distance (Karras et al. 2018): Laplacian pyramid down to 16 px, 128 patches of 7 x 7 "
        "per image and level, each set normalised per channel, 4 x 128 random directions, x 1000, mean over levels",
        against="real",
    ),
    **_segmentation_rows("espnet", "ESPNet", "ESPNet (p=2, q=8)"),
    **_segmentation_rows("drn_d_22", "DRN-D-22", "DRN-D-22, the paper's scorer,"),
    "paired_l1_pm1": Metric(
        _paired(paired_l1, "truth"), "L1 to truth", "", "lower",
        f"mean absolute error to the paired truth on the [-1, 1] scale (0 to 2), {_PER_IMAGE}",
        against="truth",
    ),
    "paired_psnr_db": Metric(
        _paired(paired_psnr, "truth"), "PSNR to truth", "dB", "higher",
        f"peak signal-to-noise ratio to the paired truth, data range 2 ([-1, 1]), {_PER_IMAGE}",
        against="truth",
    ),
    "paired_ssim_gauss11": Metric(
        _paired(paired_ssim, "truth"), "SSIM to truth", "", "higher",
        "structural similarity to the paired truth (Wang et al. 2004): Gaussian 11 x 11 window, sigma 1.5, inside "
        f"the image only, intensities mapped to [0, 1], data range 1, per channel, {_PER_IMAGE}",
        against="truth",
    ),
    "paired_st_lpips_alex": Metric(
        _st_lpips, "ST-LPIPS to truth", "", "lower",
        f"shift-tolerant LPIPS (Ghildyal and Liu 2022, AlexNet, weights vST0.0) to the paired truth, {_PER_IMAGE}",
        against="truth", networks=("st_lpips",),
    ),
    "structure_lite0": Metric(
        _structure, "structure lost", "", "lower",
        "mean absolute difference between the cosine self-similarities of input and translation on features of "
        f"EfficientNet-Lite0 at a sixteenth of 224 x 224, {_PER_IMAGE}",
        against="source", networks=("lite0.maps",),
    ),
    **unchanged_rows(),
    "identity_percent": Metric(
        _identity_rate, "input returned", "%", "lower",
        f"share of images that differ from their input by less than {IDENTITY_LEVELS:g} of 255 levels on average",
        against="source",
    ),
    "diversity_lite0": Metric(
        _diversity, "diversity", "", "higher",
        f"mean distance between made images over that between real ones (1: as diverse, 0: one picture); {_LITE0}",
        against="real", networks=("lite0",), minimum=3,
    ),
    "colour_shift_lab": Metric(
        _colour_shift, "colour shift", "dE", "lower",
        "distance in CIELAB (D65, CIE 1976) between the mean colours of made and real images",
        against="real", of_colours=True,
    ),
}  # fmt: skip
"""Name -> row, in the order of printed tables."""
