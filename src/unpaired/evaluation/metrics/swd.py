"""Sliced Wasserstein distance (SWD) of the progressive-GAN paper, with the constants of its published tool.

Karras, Aila, Laine, Lehtinen, "Progressive Growing of GANs", ICLR 2018, section 5. For every level of a Laplacian
pyramid, 128 patches of 7 x 7 pixels per image are normalised per channel, projected on 4 x 128 random directions,
sorted, and compared; reported x 1000, per level and as the mean over levels. Unlike scores made from the features of
a classifier it reacts to checkerboards, blur and noise; it does not know what an object is.

Before reading a value:
- Each set is normalised by its own mean and standard deviation per channel, as in the published tool. One gain and
  offset per channel for a whole set (8 bits against [-1, 1], a tint) therefore changes nothing, and a few images of
  another contrast rescale all others, so that single levels may dip where the mean rises: compare means.
- Patch positions of the two sets are independent, so a set against itself gives the noise floor, not zero. The floor
  falls with the number of images: compare values of equal counts, beside real against real.
- The published tool needs equal counts and square power-of-two images. For unequal counts the 1-D Wasserstein distance
  is the exact one (the area between the quantile functions), which for equal counts is "sort and subtract"; a level of
  odd side n goes to (n + 1) / 2, and the way up is cropped back to n.

Shapes: B batch, C channels, H height, W width, N descriptors of C * 7 * 7 numbers.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unpaired.errors import DataError
from unpaired.evaluation.intervals import FEWEST_IMAGES
from unpaired.evaluation.registry import ImageSets, Score, metric

PATCH_SIZE = 7
PATCHES_PER_IMAGE = 128
DIRECTION_REPEATS = 4
DIRECTIONS_PER_REPEAT = 128
SMALLEST_LEVEL = 16
INTERVAL_DIRECTIONS = 32
"""Of the 512 directions per level, those that the interval is measured along."""
_TAPS = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
_BLOCK_ROWS = 1 << 15  # of descriptors in float64
_BLOCK_BYTES = 1 << 27  # of sorted projections held at a time, per set

_FAKE_POSITIONS, _REAL_POSITIONS, _DIRECTIONS, _HALVES = range(4)  # independent random streams of one seed


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


def _patches(level_CHW: Tensor, uniform_2N: np.ndarray) -> Tensor:
    """Cut whole patches at places drawn from ``uniform_2N`` in [0, 1): returns (N, C * 7 * 7)."""
    windows = level_CHW.unfold(1, PATCH_SIZE, 1).unfold(2, PATCH_SIZE, 1)
    rows, columns = torch.from_numpy((uniform_2N * np.array(windows.shape[1:3])[:, None]).astype(np.int64))
    return windows[:, rows, columns].transpose(0, 1).flatten(1)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Keep torch to one thread for work in small pieces: threads that wait for each other cost more than they give."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _patch_moments(rows_NCV: np.ndarray, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and mean square of each image's descriptors, per channel: two (images, C), float64."""
    parts = np.array_split(rows_NCV.reshape(images, -1, *rows_NCV.shape[1:]), -(-len(rows_NCV) // _BLOCK_ROWS))
    means = [part.mean((1, 3), dtype=np.float64) for part in parts]
    squares = [np.square(part, dtype=np.float64).mean((1, 3)) for part in parts]
    return np.concatenate(means), np.concatenate(squares)


def _normalisation(means_IC: np.ndarray, squares_IC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and one over the standard deviation of a set's descriptors, per channel: two (C,).

    A channel that is constant over the whole set has no contrast to normalise and becomes zero.
    """
    mean = means_IC.mean(0)
    deviation = np.sqrt(np.maximum(squares_IC.mean(0) - mean**2, 0.0))
    # A spread at the rounding of [-1, 1] images or of float32 storage: dividing would turn rounding into a signal.
    constant = deviation <= np.maximum(1e-6 * np.abs(mean), 1e-9)
    return mean, np.where(constant, 0.0, 1.0 / np.where(constant, 1.0, deviation))


def _collect(batches: Iterable[Tensor], seed: int, stream: int, what: str) -> tuple[list[np.ndarray], tuple, int]:
    """Descriptors of a set, (images * patches, C, 49) float32 per level, in order, however images are batched.

    float32 is storage only (relative error 6e-8); statistics and projections are float64.
    """
    generator = np.random.default_rng([seed, stream])
    files: list[IO[bytes]] = []
    shape: tuple[int, ...] = ()
    count = 0
    for batch in batches:
        if batch.ndim != 4 or batch.shape[1] < 1:
            raise DataError(f"{what} images: expected batches of shape (B, C, H, W), not {tuple(batch.shape)}")
        if not shape:
            shape = tuple(batch.shape[1:])
            files = [tempfile.TemporaryFile(prefix="unpaired-swd-") for _ in level_shapes(*shape[1:])]  # noqa: SIM115
        if tuple(batch.shape[1:]) != shape:
            raise DataError(
                f"{what} image {count} has shape {tuple(batch.shape[1:])} (C, H, W) where the first has {shape}; "
                f"resize or crop all images to one size"
            )
        finite = torch.isfinite(batch).flatten(1).all(1)
        if not bool(finite.all()):
            raise DataError(f"{what} image {count + int((~finite).nonzero()[0])} has values that are not finite")
        batch = batch.detach().cpu().double()
        uniform = generator.random((len(batch), len(files), 2, PATCHES_PER_IMAGE))
        with _one_thread():
            for image, drawn in zip(batch, uniform, strict=True):  # its planes stay in the cache
                for file, level, positions in zip(files, laplacian_pyramid(image[None]), drawn, strict=True):
                    file.write(_patches(level[0], positions).float().numpy().tobytes())
        count += len(batch)
    if count == 0:
        raise DataError(f"sliced Wasserstein distance: there are no {what} images")
    for file in files:
        file.flush()
    levels = [np.memmap(file, np.float32, "r").reshape(-1, shape[0], PATCH_SIZE**2) for file in files]
    return levels, shape, count


def wasserstein_1d(a_DN: np.ndarray, b_DM: np.ndarray) -> np.ndarray:
    """Exact 1-D Wasserstein-1 distance of each row's two samples, of any sizes N and M, both sorted: returns (D,).

    >>> wasserstein_1d(np.array([[0.0, 1.0]]), np.array([[0.0, 1.0, 2.0, 3.0]]))
    array([1.])
    """
    n, m = a_DN.shape[1], b_DM.shape[1]
    if n == m:
        return np.abs(a_DN - b_DM).mean(1)
    # Both quantile functions are constant between neighbouring points of {i / n} u {j / m}; in units of 1 / (n m).
    ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    width = (np.diff(ends, prepend=0) / (n * m)).astype(a_DN.dtype)
    return np.abs(a_DN[:, (ends - 1) // m] - b_DM[:, (ends - 1) // n]) @ width


def _level_distance(
    sets: Sequence[np.ndarray], counts: Sequence[int], seed: list[int], halves: int
) -> tuple[float, np.ndarray]:
    """Mean Wasserstein distance over all directions of one level, and those of random halves of the images."""
    generator = np.random.default_rng(seed)
    channels, values = sets[0].shape[1:]
    normal = [generator.standard_normal((channels * values, DIRECTIONS_PER_REPEAT)) for _ in range(DIRECTION_REPEATS)]
    directions = np.hstack([n / np.sqrt((n**2).sum(0, keepdims=True)) for n in normal])
    moments = [_patch_moments(rows, count) for rows, count in zip(sets, counts, strict=True)]
    scales = [_normalisation(*each) for each in moments]
    workers = torch.get_num_threads()
    size = max(1, min(DIRECTIONS_PER_REPEAT, _BLOCK_BYTES // (8 * max(map(len, sets)) * workers)))

    def measure(start: int) -> np.ndarray:
        part = directions[:, start : start + size]
        projected = [_project(rows, *scale, part) for rows, scale in zip(sets, scales, strict=True)]
        for each in projected:
            each.sort(axis=1)  # in place: three times as fast as torch on one core
        return wasserstein_1d(*projected)

    def measure_half(number: int) -> float:
        chosen = np.random.default_rng([seed[0], _HALVES, number])  # the same images at every level
        sides = []
        for numbers_ICPD, (means, squares) in zip(unscaled, moments, strict=True):
            half = chosen.permutation(len(means))[: -(-len(means) // 2)]
            mean, scale = (each.astype(np.float32) for each in _normalisation(means[half], squares[half]))
            centred = numbers_ICPD[half] - (mean[:, None] * sums_CD)[:, None]
            sides.append(np.sort(np.tensordot(scale, centred, (0, 1)).reshape(-1, len(sums_CD[0])).T, axis=1))
        return float(wasserstein_1d(*sides).mean())

    with ThreadPoolExecutor(workers) as pool, _one_thread():
        distance = float(np.concatenate(list(pool.map(measure, range(0, directions.shape[1], size)))).mean())
        if not halves:
            return distance, np.empty(0)
        some_CVD = directions[:, :INTERVAL_DIRECTIONS].reshape(channels, values, -1).astype(np.float32)
        sums_CD = some_CVD.sum(1)
        unscaled = [_channel_projections(rows, count, some_CVD) for rows, count in zip(sets, counts, strict=True)]
        return distance, np.array(list(pool.map(measure_half, range(halves))))


def _project(rows_NCV: np.ndarray, mean_C: np.ndarray, scale_C: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Project normalised descriptors on directions (C * 49, D): (D, N), float64."""
    values = rows_NCV.shape[2]
    scaled = (directions * np.repeat(scale_C, values)[:, None]).T
    offset = (scaled @ np.repeat(mean_C, values))[:, None]
    projected = np.empty((len(scaled), len(rows_NCV)))
    for start in range(0, len(rows_NCV), _BLOCK_ROWS):
        block = rows_NCV[start : start + _BLOCK_ROWS].reshape(-1, scaled.shape[1]).astype(np.float64)
        # By torch, which keeps to the number of threads that it was given.
        projected[:, start : start + len(block)] = (torch.from_numpy(scaled) @ torch.from_numpy(block).T).numpy()
    return projected - offset


def _channel_projections(rows_NCV: np.ndarray, images: int, directions_CVD: np.ndarray) -> np.ndarray:
    """What each channel adds to a projection before it is normalised: (images, C, patches, D), float32."""
    parts = np.array_split(rows_NCV, -(-len(rows_NCV) // _BLOCK_ROWS))
    found = np.concatenate([np.matmul(part.swapaxes(0, 1), directions_CVD) for part in parts], axis=1)
    return found.reshape(len(found), images, -1, found.shape[2]).swapaxes(0, 1)


def swd_progan(fake: Iterable[Tensor], real: Iterable[Tensor], seed: int = 0, halves: int = 0) -> Score:
    """Measure the sliced Wasserstein distance between two sets of images, x 1000 (0 is best), on the CPU.

    The interval is the value plus and minus 1.96 deviations of the distances between random halves of the two sets: for
    a smooth statistic, halves drawn without replacement spread around the value as the value does around the truth.
    Halves are normalised anew, as another set would be. It says nothing of the noise floor, which is part of the value.
    Descriptors wait in unnamed temporary files, 128 * 49 * C * 4 bytes per image and level (75 kB for RGB): 10,000
    images of 256 px need about 4 GB of disk per set, and not of memory.

    Args:
        fake: Batches (B, C, H, W), float, made images; any linear intensity scale, this package uses [-1, 1].
        real: Batches of real images of the same channels and size; their number may differ.
        seed: Chooses patch positions and directions; the value depends on it a little and on nothing else random.
        halves: Random halves for the interval; without them, and for sets of fewer than 4 images, there is none.

    Returns:
        The mean over the levels, and ``per_level``, keyed by the smaller side: ``level_64``, ``level_32``, ...

    Raises:
        DataError: no images, images under 16 px, of several shapes, or with values that are not finite.
    """
    fake_levels, fake_shape, fake_count = _collect(fake, seed, _FAKE_POSITIONS, "fake")
    real_levels, real_shape, real_count = _collect(real, seed, _REAL_POSITIONS, "real")
    if fake_shape != real_shape:
        raise DataError(
            f"fake images have shape {fake_shape} (C, H, W), real images {real_shape}: resize one set to the other"
        )
    counts = fake_count, real_count
    halves = halves if min(counts) >= FEWEST_IMAGES else 0
    levels, of_halves = {}, []
    for index, (height, width) in enumerate(level_shapes(*fake_shape[1:])):
        sets = fake_levels[index], real_levels[index]
        distance, some = _level_distance(sets, counts, [seed, _DIRECTIONS, index], halves)
        levels[f"level_{min(height, width)}"] = 1e3 * distance
        of_halves.append(1e3 * some)
    mean = sum(levels.values()) / len(levels)
    reach = 1.96 * float(np.mean(of_halves, axis=0).std(ddof=1)) if halves else 0.0
    return Score(mean, interval=(max(0.0, mean - reach), mean + reach) if halves else None, per_level=levels)


@metric(
    "swd_progan_x1e3", "SWD", "x 1e-3", "lower",
    "sliced Wasserstein distance (Karras et al. 2018): Laplacian pyramid down to 16 px, 128 patches of 7 x 7 "
    "per image and level, each set normalised per channel, 4 x 128 random directions, x 1000, mean over levels",
    against="real",
)  # fmt: skip
def _swd(sets: ImageSets, seed: int) -> Score:
    return swd_progan(sets.batches("fake"), sets.batches("real"), seed, halves=50 if sets.intervals else 0)
