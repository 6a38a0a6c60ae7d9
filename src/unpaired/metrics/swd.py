"""Sliced Wasserstein distance (SWD) of the progressive-GAN paper, with the constants of its published tool.

Karras, Aila, Laine, Lehtinen, "Progressive Growing of GANs", ICLR 2018, section 5. For every level of a Laplacian
pyramid, 128 patches of 7 x 7 pixels per image are normalised per channel, projected on 4 x 128 random directions,
sorted, and compared; reported x 1000, per level and as the mean over levels. Unlike scores made from the features of
a classifier it reacts to checkerboards, blur and noise; it does not know what an object is.

What to know before reading a value:
- Each SET is normalised by its own mean and standard deviation per channel, as in the published tool. One gain and
  offset per channel common to a whole set (8 bits against [-1, 1], a global tint) therefore leaves the value as it is,
  and a few images of another contrast rescale all others: on the embedded drawings the mean rises with every quarter
  of wrong-domain images, but a single level dips on the way, and on a coarse synthetic mix the mean did too. Compare
  means; read levels as a hint at the scale of a fault.
- Patch positions of the two sets are independent, so a set against itself gives the noise floor, not zero. The floor
  falls with the number of images: compare values of equal counts only, and print real-against-real beside them.
- The published tool needs equal counts and square power-of-two images. Unequal counts: the 1-D Wasserstein distance
  between two empirical distributions is exact for any two sizes (the area between their quantile functions), uses
  every descriptor, draws nothing more at random, and for equal sizes IS "sort and subtract"; hence no subsampling.
  Other shapes: a level of odd side n goes to (n + 1) / 2, and the way up is cropped back to n.

Shapes: B batch, C channels, H height, W width, N descriptors of C * 7 * 7 numbers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unpaired.errors import DataError
from unpaired.metrics.descriptors import DescriptorStore
from unpaired.metrics.resampling import (
    FEWEST_IMAGES,
    ResampledSet,
    centred_interval,
    drawn_counts,
    resampled_wasserstein,
)

PATCH_SIZE = 7
PATCHES_PER_IMAGE = 128
DIRECTION_REPEATS = 4
DIRECTIONS_PER_REPEAT = 128
SMALLEST_LEVEL = 16
INTERVAL_DIRECTIONS = 64
"""Of the 512 directions per level, those whose projections are resampled."""
_TAPS = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
_BLOCK_BYTES = 1 << 27  # of sorted projections held at a time, per set

_FAKE_POSITIONS, _REAL_POSITIONS, _DIRECTIONS, _RESAMPLES = range(4)  # independent random streams of one seed


def _binomial_filter(image_BCHW: Tensor, gain: float, step: int = 1) -> Tensor:
    """Filter with the 5 x 5 binomial kernel (1 4 6 4 1)/16 (x) itself, mirrored without repeating the border pixel.

    Keeps every ``step``-th row and column. Five shifted copies added up are ten times as fast as ``conv2d``, which has
    no float64 path of its own on a CPU.
    """
    height, width = image_BCHW.shape[-2:]
    padded = F.pad(image_BCHW, (2, 2, 2, 2), mode="reflect")
    rows = _weighted_sum([padded[:, :, k : k + height : step] for k in range(5)], gain)
    return _weighted_sum([rows[:, :, :, k : k + width : step] for k in range(5)], 1.0)


def _weighted_sum(shifted: list[Tensor], gain: float) -> Tensor:
    total = shifted[0] * (gain * _TAPS[0])
    for part, tap in zip(shifted[1:], _TAPS[1:], strict=True):
        total.add_(part, alpha=gain * tap)
    return total


def pyr_down(image_BCHW: Tensor) -> Tensor:
    """Filter, then keep every second pixel: (B, C, H, W) -> (B, C, ceil(H / 2), ceil(W / 2))."""
    return _binomial_filter(image_BCHW, 1.0, step=2)


def pyr_up(image_BCHW: Tensor, height: int, width: int) -> Tensor:
    """Insert zeros, filter with gain 4: (B, C, h, w) -> (B, C, height, width), height 2h or 2h - 1."""
    batch, channels, half_height, half_width = image_BCHW.shape
    spread = image_BCHW.new_zeros(batch, channels, 2 * half_height, 2 * half_width)
    spread[:, :, ::2, ::2] = image_BCHW
    return _binomial_filter(spread[:, :, :height, :width], 4.0)


def level_shapes(height: int, width: int) -> list[tuple[int, int]]:
    """Sizes of the pyramid levels, finest first, down to a smaller side of 16 px.

    >>> level_shapes(64, 64)
    [(64, 64), (32, 32), (16, 16)]

    Raises:
        DataError: an image side is under 16 px.
    """
    if min(height, width) < SMALLEST_LEVEL:
        raise DataError(
            f"sliced Wasserstein distance needs images of at least {SMALLEST_LEVEL} px a side, not {width} x {height}"
        )
    shapes = []
    while min(height, width) >= SMALLEST_LEVEL:
        shapes.append((height, width))
        height, width = (height + 1) // 2, (width + 1) // 2
    return shapes


def laplacian_pyramid(image_BCHW: Tensor) -> list[Tensor]:
    """Split images into band-pass levels, finest first; the last level is the low-pass rest."""
    shapes = level_shapes(*image_BCHW.shape[-2:])
    levels = [image_BCHW]
    for _ in shapes[1:]:
        smaller = pyr_down(levels[-1])
        levels[-1] = levels[-1] - pyr_up(smaller, *levels[-1].shape[-2:])
        levels.append(smaller)
    return levels


def _patches(level_BCHW: Tensor, uniform_B2N: np.ndarray) -> Tensor:
    """Cut whole patches around centres drawn from ``uniform_B2N`` in [0, 1): returns (B * N, C * 7 * 7)."""
    batch, channels, height, width = level_BCHW.shape
    margin = PATCH_SIZE // 2
    extent = np.array([height - 2 * margin, width - 2 * margin]).reshape(1, 2, 1)
    corner = torch.from_numpy((uniform_B2N * extent).astype(np.int64)).to(level_BCHW.device)
    step = torch.arange(PATCH_SIZE, device=level_BCHW.device)
    rows = (corner[:, 0, :, None] + step)[:, :, :, None]  # (B, N, 7, 1)
    columns = (corner[:, 1, :, None] + step)[:, :, None, :]  # (B, N, 1, 7)
    image = torch.arange(batch, device=level_BCHW.device).view(batch, 1, 1, 1)
    patches_BNyxC = level_BCHW.permute(0, 2, 3, 1)[image, rows, columns]
    return patches_BNyxC.permute(0, 1, 4, 2, 3).reshape(-1, channels * PATCH_SIZE * PATCH_SIZE)


def _float64(batch: Tensor) -> Tensor:
    batch = batch.detach()
    return (batch.cpu() if batch.device.type == "mps" else batch).double()  # mps has no float64


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Keep torch to one thread for work in small pieces: threads that wait for each other cost more than they give."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _collect(batches: Iterable[Tensor], seed: int, stream: int, what: str) -> tuple[list[DescriptorStore], tuple, int]:
    """Feed all batches of one set into one store per level; positions do not depend on how images are batched."""
    generator = np.random.default_rng([seed, stream])
    stores: list[DescriptorStore] = []
    shape: tuple[int, ...] = ()
    count = 0
    for batch in batches:
        if batch.ndim != 4 or batch.shape[1] < 1:
            raise DataError(f"{what} images: expected batches of shape (B, C, H, W), not {tuple(batch.shape)}")
        if not shape:
            shape = tuple(batch.shape[1:])
            stores = [DescriptorStore(shape[0], PATCH_SIZE**2) for _ in level_shapes(*shape[1:])]
        if tuple(batch.shape[1:]) != shape:
            raise DataError(
                f"{what} image {count} has shape {tuple(batch.shape[1:])} (C, H, W) where the first has {shape}; "
                f"resize or crop all images to one size"
            )
        finite = torch.isfinite(batch).flatten(1).all(1)
        if not bool(finite.all()):
            raise DataError(f"{what} image {count + int((~finite).nonzero()[0])} has values that are not finite")
        uniform = generator.random((len(batch), len(stores), 2, PATCHES_PER_IMAGE))
        with _one_thread():
            # One image at a time: its planes stay in the cache, which halves the time.
            pyramids = [laplacian_pyramid(image) for image in _float64(batch).split(1)]
            for index, store in enumerate(stores):
                parts = [_patches(levels[index], uniform[i : i + 1, index]) for i, levels in enumerate(pyramids)]
                store.append(torch.cat(parts))
        count += len(batch)
    if count == 0:
        raise DataError(f"sliced Wasserstein distance: there are no {what} images")
    return stores, shape, count


def wasserstein_1d(a_DN: Tensor, b_DM: Tensor) -> Tensor:
    """Exact 1-D Wasserstein-1 distance of each row's two samples, of any sizes N and M, both sorted: returns (D,).

    >>> wasserstein_1d(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 1.0, 2.0, 3.0]]))
    tensor([1.])
    """
    n, m = a_DN.shape[1], b_DM.shape[1]
    if n == m:
        return (a_DN - b_DM).abs().mean(1)
    # Both quantile functions are constant between neighbouring points of {i / n} u {j / m}; in units of 1 / (n m).
    ends = torch.unique(torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]))
    width = torch.diff(ends, prepend=ends.new_zeros(1)).to(a_DN) / (n * m)
    index_a, index_b = ((ends - 1) // m).to(a_DN.device), ((ends - 1) // n).to(a_DN.device)
    return (a_DN[:, index_a] - b_DM[:, index_b]).abs() @ width


def _level_distance(
    fake: DescriptorStore,
    real: DescriptorStore,
    seed: list[int],
    device: torch.device,
    counts: Sequence[np.ndarray] | None,
) -> tuple[float, np.ndarray]:
    """Mean Wasserstein distance over all random directions of one level.

    And that of each resample of the images (R,), over the first ``INTERVAL_DIRECTIONS``; empty if ``counts`` of the two
    sets are not given.
    """
    generator = np.random.default_rng(seed)
    normal = [generator.standard_normal((fake.length, DIRECTIONS_PER_REPEAT)) for _ in range(DIRECTION_REPEATS)]
    directions = torch.from_numpy(np.hstack([n / np.sqrt((n**2).sum(0, keepdims=True)) for n in normal]))
    sums_DC = directions.view(fake.channels, -1, directions.shape[1]).sum(1).T.numpy()
    stores = (fake, real)
    resampled = None if counts is None else (_resampled(fake, counts[0]), _resampled(real, counts[1]))
    workers = torch.get_num_threads() if device.type == "cpu" else 1
    size = max(1, min(DIRECTIONS_PER_REPEAT, _BLOCK_BYTES // (8 * max(fake.count, real.count) * workers)))

    def measure(start: int) -> tuple[Tensor, list[np.ndarray]]:
        block = directions[:, start : start + size]
        sets = [store.project(block, device) for store in stores]
        replicates = []
        if resampled is not None:
            for index in range(start, min(start + size, INTERVAL_DIRECTIONS)):
                a, b = (projected[index - start].cpu().numpy() for projected in sets)
                replicates.append(resampled_wasserstein(resampled, (a, b), sums_DC[index]))
        return wasserstein_1d(*map(_sorted_rows, sets)).cpu(), replicates

    for store in stores:
        store.statistics()  # once, before all workers ask for it
    with ThreadPoolExecutor(workers) as pool, _one_thread():
        measured = list(pool.map(measure, range(0, directions.shape[1], size)))
    replicates = [replicate for _, some in measured for replicate in some]
    distance = float(torch.cat([distances for distances, _ in measured]).mean())
    return distance, np.mean(replicates, axis=0) if replicates else np.empty(0)


def _resampled(store: DescriptorStore, counts: np.ndarray) -> ResampledSet:
    return ResampledSet.from_moments(counts, *(moment.numpy() for moment in store.moments(PATCHES_PER_IMAGE)))


def _sorted_rows(values_DN: Tensor) -> Tensor:
    """Sort each row; on a CPU in place and by numpy, which is three times as fast as torch on one core."""
    if values_DN.device.type != "cpu":
        return values_DN.sort(dim=1).values
    values_DN.numpy().sort(axis=1)
    return values_DN


def swd_progan(
    fake: Iterable[Tensor], real: Iterable[Tensor], seed: int = 0, device: torch.device | str = "cpu"
) -> dict[str, float]:
    """Measure the sliced Wasserstein distance between two sets of images, x 1000 (0 is best).

    Memory: 128 * 49 * C * 4 bytes per image and level (75 kB for RGB); what exceeds 256 MiB per set and level waits
    in an unnamed temporary file, so 10,000 images of 256 px need about 4 GB of disk per set and not of memory.

    Args:
        fake: Batches (B, C, H, W), float, made images; any linear intensity scale, this package uses [-1, 1].
        real: Batches of real images of the same channels and size; their number may differ.
        seed: Chooses patch positions and directions; the value depends on it a little and on nothing else random.
        device: Where projections are sorted, in float64.

    Returns:
        ``{"level_64": ..., "level_32": ..., "level_16": ..., "mean": ...}``, keyed by the smaller side of the level.

    Raises:
        DataError: no images, images under 16 px, of several shapes, or with values that are not finite.
    """
    return swd_progan_interval(fake, real, seed, device, resamples=0)[0]


def swd_progan_interval(
    fake: Iterable[Tensor],
    real: Iterable[Tensor],
    seed: int = 0,
    device: torch.device | str = "cpu",
    resamples: int = 200,
) -> tuple[dict[str, float], tuple[float, float] | None]:
    """Measure the same as ``swd_progan`` and, in the same pass, how much of it is the choice of images.

    The interval is a bootstrap over the images of both sets: the middle 95 % of the resampled distances, moved so that
    their mean is the measured one, because a set drawn with repetition is always farther away. Resamples are
    normalised anew, as another set would be; without that the intervals were 1.3 to 5 times too wide, because what a
    set has more of in contrast its normalisation takes away. Against the spread over new sets of images the width is
    0.9 to 1.6 times what it should be on drawings and photos, and up to 2 times for two sets of 50 photos of one
    distribution. It says nothing of the noise floor, which is part of the value.

    Returns:
        The values of ``swd_progan``, bit for bit, and the 95 % interval of ``"mean"``; ``None`` without resamples and
        for sets of fewer than 4 images, whose resamples would show next to nothing.

    Raises:
        DataError: As ``swd_progan``.
    """
    fake_stores, fake_shape, fake_count = _collect(fake, seed, _FAKE_POSITIONS, "fake")
    real_stores, real_shape, real_count = _collect(real, seed, _REAL_POSITIONS, "real")
    if fake_shape != real_shape:
        raise DataError(
            f"fake images have shape {fake_shape} (C, H, W), real images {real_shape}: resize one set to the other"
        )
    enough = resamples > 0 and min(fake_count, real_count) >= FEWEST_IMAGES
    generator = np.random.default_rng([seed, _RESAMPLES])
    counts = [drawn_counts(count, resamples, generator) for count in (fake_count, real_count)] if enough else None
    result, replicates = {}, []
    for index, (height, width) in enumerate(level_shapes(*fake_shape[1:])):
        stores = fake_stores[index], real_stores[index]
        stream = [seed, _DIRECTIONS, index]
        distance, resampled = _level_distance(*stores, stream, torch.device(device), counts)
        result[f"level_{min(height, width)}"] = 1e3 * distance
        replicates.append(1e3 * resampled)
    result["mean"] = sum(result.values()) / len(result)
    if not enough:
        return result, None
    low, high = centred_interval(np.mean(replicates, axis=0), result["mean"])
    return result, (max(0.0, low), high)
