"""The sliced Wasserstein distance against a slow NumPy one written from the paper's definition, and against sense."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import wasserstein_distance

from unpaired.errors import DataError
from unpaired.evaluation import swd_progan
from unpaired.evaluation.metrics import swd as module
from unpaired.evaluation.metrics.swd import laplacian_pyramid, level_shapes, pyr_up, wasserstein_1d

KERNEL = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256.0


def drawings(count: int, seed: int, size: int = 64) -> torch.Tensor:
    """Flat coloured rectangles on white: edges, areas and repeated colours, as in the demo set."""
    rng = np.random.default_rng(seed)
    images = np.ones((count, 3, size, size))
    for image in images:
        for _ in range(6):
            top, left = rng.integers(0, size - 8, 2)
            height, width = rng.integers(6, size // 2, 2)
            image[:, top : top + height, left : left + width] = rng.uniform(-1, 1, (3, 1, 1))
    return torch.from_numpy(images)


def outlines(count: int, seed: int, size: int = 64) -> torch.Tensor:
    """Black frames on white: another domain."""
    rng = np.random.default_rng(seed)
    images = np.ones((count, 3, size, size))
    for image in images:
        for _ in range(6):
            top, left = rng.integers(0, size - 8, 2)
            height, width = rng.integers(6, size // 2, 2)
            image[:, top : top + height, left : left + width] = -1
            image[:, top + 2 : top + height - 2, left + 2 : left + width - 2] = 1
    return torch.from_numpy(images)


def distance(fake: torch.Tensor, real: torch.Tensor, seed: int = 0) -> float:
    return swd_progan([fake], [real], seed).value


# --- the reference: explicit loops, no torch ---


def mirrored(index: int, length: int) -> int:
    index = -index if index < 0 else index
    return 2 * (length - 1) - index if index >= length else index


def loop_filter(plane: np.ndarray, gain: float) -> np.ndarray:
    height, width = plane.shape
    result = np.zeros_like(plane)
    for y in range(height):
        for x in range(width):
            for dy in range(-2, 3):
                for dx in range(-2, 3):
                    pixel = plane[mirrored(y + dy, height), mirrored(x + dx, width)]
                    result[y, x] += gain * KERNEL[dy + 2, dx + 2] * pixel
    return result


def loop_pyramid(plane: np.ndarray, levels: int) -> list[np.ndarray]:
    pyramid = [plane.copy()]
    for _ in range(levels - 1):
        small = loop_filter(pyramid[-1], 1.0)[::2, ::2]
        spread = np.zeros((2 * small.shape[0], 2 * small.shape[1]))
        spread[::2, ::2] = small
        spread = spread[: pyramid[-1].shape[0], : pyramid[-1].shape[1]]
        pyramid[-1] = pyramid[-1] - loop_filter(spread, 4.0)
        pyramid.append(small)
    return pyramid


def loop_swd(fake: np.ndarray, real: np.ndarray, seed: int) -> list[float]:
    """Published protocol for equal counts, with the package's random streams (0: fake, 1: real, 2: directions)."""
    levels, side = 0, min(fake.shape[2:])
    while side >= 16:
        levels, side = levels + 1, (side + 1) // 2
    sets: list[list[np.ndarray]] = []
    for stream, images in enumerate((fake, real)):
        uniform = np.random.default_rng([seed, stream]).random((len(images), levels, 2, 128))
        rows: list[list[np.ndarray]] = [[] for _ in range(levels)]
        for i, image in enumerate(images):
            pyramids = [loop_pyramid(plane, levels) for plane in image]
            for level in range(levels):
                height, width = pyramids[0][level].shape
                for n in range(128):
                    y = int(uniform[i, level, 0, n] * (height - 6))
                    x = int(uniform[i, level, 1, n] * (width - 6))
                    rows[level].append(np.stack([p[level][y : y + 7, x : x + 7] for p in pyramids]))
        normalised = []
        for level in range(levels):
            patches = np.stack(rows[level])
            for channel in range(patches.shape[1]):
                part = patches[:, channel]
                patches[:, channel] = (part - part.mean()) / part.std()
            normalised.append(patches.reshape(len(patches), -1))
        sets.append(normalised)
    result = []
    for level in range(levels):
        rng = np.random.default_rng([seed, 2, level])
        repeats = []
        for _ in range(4):
            directions = rng.standard_normal((sets[0][level].shape[1], 128))
            directions /= np.sqrt((directions**2).sum(0, keepdims=True))
            a, b = (np.sort(s[level] @ directions, axis=0) for s in sets)
            repeats.append(np.abs(a - b).mean())
        result.append(1e3 * float(np.mean(repeats)))
    return result


@pytest.mark.parametrize("shape", [(32, 32), (33, 38), (16, 20)])
def test_equals_the_loop_reference(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    fake, real = rng.uniform(-1, 1, (2, 3, 3, *shape))
    real = 0.3 * real + 0.7 * np.roll(real, 1, axis=-1)
    ours = swd_progan([torch.from_numpy(fake)], [torch.from_numpy(real)], seed=5)
    expected = loop_swd(fake, real, seed=5)
    assert list(ours.per_level.values()) == pytest.approx(expected, rel=1e-6)
    assert ours.value == pytest.approx(np.mean(expected), rel=1e-6)


def test_levels_are_named_by_their_smaller_side_down_to_16() -> None:
    assert level_shapes(256, 256) == [(256, 256), (128, 128), (64, 64), (32, 32), (16, 16)]
    assert level_shapes(64, 100) == [(64, 100), (32, 50), (16, 25)]
    assert level_shapes(31, 31) == [(31, 31), (16, 16)]
    assert list(swd_progan([drawings(2, 0)], [drawings(2, 1)]).per_level) == ["level_64", "level_32", "level_16"]


@pytest.mark.parametrize("size", [(64, 64), (35, 50)])
def test_pyramid_gives_the_image_back(size: tuple[int, int]) -> None:
    image = torch.randn(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    levels = laplacian_pyramid(image)
    rebuilt = levels[-1]
    for level in reversed(levels[:-1]):
        rebuilt = level + pyr_up(rebuilt, *level.shape[-2:])
    torch.testing.assert_close(rebuilt, image)


@pytest.mark.parametrize(("n", "m"), [(5, 5), (4, 6), (7, 3), (1, 9), (12, 5)])
def test_wasserstein_of_unequal_samples_equals_that_of_their_repetitions(n: int, m: int) -> None:
    """Repeating every sample of one set m times and of the other n times changes neither distribution."""
    rng = np.random.default_rng(n * 100 + m)
    a, b = np.sort(rng.normal(size=(3, n))), np.sort(rng.normal(0.5, 2.0, size=(3, m)))
    expected = np.abs(np.repeat(a, m, axis=1) - np.repeat(b, n, axis=1)).mean(1)
    np.testing.assert_allclose(wasserstein_1d(a, b), expected, rtol=1e-12)
    np.testing.assert_allclose(wasserstein_1d(a, b)[0], wasserstein_distance(a[0], b[0]), rtol=1e-12)


# --- behaviour ---


def test_real_against_real_is_small_and_falls_with_the_count() -> None:
    few = distance(drawings(12, 0), drawings(12, 1))
    many = distance(drawings(96, 0), drawings(96, 1))
    wrong = distance(outlines(96, 0), drawings(96, 1))
    assert many < 0.7 * few
    assert many < 0.35 * wrong
    assert distance(outlines(96, 0), drawings(64, 1)) == pytest.approx(wrong, rel=0.12)  # unequal counts


def _blurred(images: torch.Tensor, sigma: float) -> torch.Tensor:
    offset = torch.arange(-6, 7, dtype=torch.float64)
    taps = torch.exp(-(offset**2) / (2 * sigma**2))
    taps = (taps / taps.sum()).expand(3, 1, 1, -1)
    padded = F.pad(images, (6, 6, 6, 6), mode="reflect")
    return F.conv2d(F.conv2d(padded, taps, groups=3), taps.transpose(2, 3), groups=3)


def _noisy(images: torch.Tensor, amount: float) -> torch.Tensor:
    return images + amount * torch.randn(images.shape, generator=torch.Generator().manual_seed(1), dtype=images.dtype)


def _checkered(images: torch.Tensor, amount: float) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    return images + amount * (1.0 - 2.0 * ((x + y) % 2))


def _mixed(images: torch.Tensor, count: float) -> torch.Tensor:
    return torch.cat([outlines(int(count), 5), images[int(count) :]])


@pytest.mark.parametrize(
    ("harm", "steps"),
    [(_blurred, (0.6, 1.2, 2.4)), (_noisy, (0.05, 0.15, 0.45)), (_checkered, (0.02, 0.06, 0.18)), (_mixed, (16, 32))],
    ids=["blur", "noise", "checkerboard", "wrong domain"],
)
def test_rises_with_severity(harm, steps) -> None:  # type: ignore[no-untyped-def]
    made, real = drawings(32, 0), drawings(32, 1)
    ladder = [distance(made, real), *(distance(harm(made, step), real) for step in steps)]
    assert ladder == sorted(ladder)
    assert ladder[-1] > 1.5 * ladder[0]


def test_one_gain_and_offset_for_a_whole_set_changes_nothing() -> None:
    made, real = drawings(6, 0), drawings(6, 1)
    in_bytes = 127.5 * (made + 1.0)
    assert distance(in_bytes, real) == pytest.approx(distance(made, real), rel=1e-5)


def test_gray_channels_float32_and_constant_sets_are_finite() -> None:
    gray = drawings(3, 0)[:, :1].float()
    assert 0 < distance(gray, drawings(3, 1)[:, :1].float()) < 1000
    black = -torch.ones(3, 3, 32, 32)
    assert distance(black, black) == 0.0
    assert swd_progan([black[:0], black], [black, black[:0]]).value == 0.0
    assert np.isfinite(distance(black, drawings(3, 0, 32).float()))


def test_refusals_name_the_set_and_the_image() -> None:
    good = drawings(3, 0)
    broken = good.clone()
    broken[1, 0, 5, 5] = float("nan")
    for fake, real, words in (
        ([good], [broken], "real image 1 has values that are not finite"),
        ([], [good], "no fake images"),
        ([good[:0]], [good], "no fake images"),
        ([good], [good[:0], good[:0]], "no real images"),
        ([good[:, :, :12, :12]], [good], "at least 16 px a side, not 12 x 12"),
        ([good, good[..., :32]], [good], "fake image 3 has shape"),
        ([good], [good[..., :32]], "resize one set to the other"),
        ([good[0]], [good], r"\(B, C, H, W\)"),
    ):
        with pytest.raises(DataError, match=words):
            swd_progan(fake, real)


# --- interval, batches, threads ---


def pictures(count: int, seed: int, contrast: float = 1.0) -> torch.Tensor:
    """Squares of several sizes and greys, in images of several contrasts."""
    rng = np.random.default_rng(seed)
    images = np.zeros((count, 3, 32, 32))
    for image in images:
        for _ in range(5):
            top, left = rng.integers(0, 24, 2)
            side = rng.integers(4, 16)
            image[:, top : top + side, left : left + side] = rng.uniform(-1, 1, (3, 1, 1))
        image *= rng.uniform(0.3, 1.0) * contrast
        image += 0.3 * (contrast - 1.0) * rng.standard_normal((1, 32, 32))
    return torch.from_numpy(images)


def test_neither_batches_nor_threads_nor_the_interval_change_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    fake, real = pictures(12, 0, 1.3), pictures(10, 1)
    whole = swd_progan([fake], [real], seed=3, halves=20)
    assert whole.interval is not None
    assert whole.interval[0] < whole.value < whole.interval[1]
    assert swd_progan([fake], [real], seed=3, halves=20) == whole
    assert swd_progan([fake], [real], seed=4).value != whole.value
    plain = swd_progan([fake], [real], seed=3)
    assert (plain.value, plain.per_level, plain.interval) == (whole.value, whole.per_level, None)
    assert swd_progan([fake[:3]], [real], halves=20).interval is None  # three images say nothing about their spread
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        monkeypatch.setattr(module, "_BLOCK_ROWS", 300)  # cuts images in two
        pieces = swd_progan(fake.split(5), (image[None] for image in real), seed=3, halves=20)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert pieces.value == pytest.approx(whole.value, rel=1e-9)
    assert pieces.interval == pytest.approx(whole.interval, rel=1e-3)


def test_interval_has_the_width_of_the_spread_over_new_sets_and_narrows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DIRECTION_REPEATS", 1)
    monkeypatch.setattr(module, "DIRECTIONS_PER_REPEAT", 48)
    monkeypatch.setattr(module, "INTERVAL_DIRECTIONS", 16)
    found = [swd_progan([pictures(30, 10 * i, 1.5)], [pictures(30, 10 * i + 5)], i, halves=40) for i in range(14)]
    truth = np.std([one.value for one in found], ddof=1)
    width = np.mean([one.interval[1] - one.interval[0] for one in found if one.interval])
    assert 0.6 < width / (2 * 1.96) / truth < 2.2  # 14 sets know their spread to a fifth
    many = swd_progan([pictures(120, 0, 1.5)], [pictures(120, 1)], halves=40).interval
    assert many is not None
    assert many[1] - many[0] < 0.7 * width
