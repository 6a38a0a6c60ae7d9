"""The sliced Wasserstein distance against a slow NumPy one written from the paper's definition, and against sense."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from unpaired.metrics import swd_progan
from unpaired.metrics.descriptors import DescriptorStore
from unpaired.metrics.swd import laplacian_pyramid, level_shapes, pyr_up, wasserstein_1d

from unpaired.errors import DataError

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
    return swd_progan([fake], [real], seed)["mean"]


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
    assert list(ours.values())[:-1] == pytest.approx(expected, rel=1e-6)
    assert ours["mean"] == pytest.approx(np.mean(expected), rel=1e-6)


def test_levels_are_named_by_their_smaller_side_down_to_16() -> None:
    assert level_shapes(256, 256) == [(256, 256), (128, 128), (64, 64), (32, 32), (16, 16)]
    assert level_shapes(64, 100) == [(64, 100), (32, 50), (16, 25)]
    assert level_shapes(31, 31) == [(31, 31), (16, 16)]
    assert list(swd_progan([drawings(2, 0)], [drawings(2, 1)])) == ["level_64", "level_32", "level_16", "mean"]


@pytest.mark.parametrize("size", [(64, 64), (35, 50)])
def test_pyramid_gives_the_image_back(size: tuple[int, int]) -> None:
    image = torch.randn(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    levels = laplacian_pyramid(image)
    rebuilt = levels[-1]
    for level in reversed(levels[:-1]):
        rebuilt = level + pyr_up(rebuilt, *level.shape[-2:])
    torch.testing.assert_close(rebuilt, image)


def test_constant_image_has_nothing_above_the_last_level() -> None:
    levels = laplacian_pyramid(torch.full((1, 3, 64, 64), 0.25, dtype=torch.float64))
    assert all(level.abs().max() < 1e-12 for level in levels[:-1])
    torch.testing.assert_close(levels[-1], torch.full_like(levels[-1], 0.25))


# --- unequal counts ---


@pytest.mark.parametrize(("n", "m"), [(5, 5), (4, 6), (7, 3), (1, 9), (12, 5)])
def test_wasserstein_of_unequal_samples_equals_that_of_their_repetitions(n: int, m: int) -> None:
    """Repeating every sample of one set m times and of the other n times changes neither distribution."""
    rng = np.random.default_rng(n * 100 + m)
    a, b = np.sort(rng.normal(size=(3, n))), np.sort(rng.normal(0.5, 2.0, size=(3, m)))
    expected = np.abs(np.repeat(a, m, axis=1) - np.repeat(b, n, axis=1)).mean(1)
    ours = wasserstein_1d(torch.from_numpy(a), torch.from_numpy(b))
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-12)


def test_unequal_counts_estimate_the_same_distance() -> None:
    far = outlines(60, 1)
    equal, fewer = distance(far, drawings(60, 0)), distance(far, drawings(40, 0))
    assert fewer == pytest.approx(equal, rel=0.12)


# --- behaviour ---


def test_real_against_real_is_small_and_falls_with_the_count() -> None:
    few = distance(drawings(12, 0), drawings(12, 1))
    many = distance(drawings(96, 0), drawings(96, 1))
    wrong = distance(outlines(96, 0), drawings(96, 1))
    assert many < 0.7 * few
    assert many < 0.35 * wrong


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


@pytest.mark.parametrize(
    ("harm", "steps"),
    [(_blurred, (0.6, 1.2, 2.4)), (_noisy, (0.05, 0.15, 0.45)), (_checkered, (0.02, 0.06, 0.18))],
    ids=["blur", "noise", "checkerboard"],
)
def test_rises_with_severity(harm, steps) -> None:
    made, real = drawings(32, 0), drawings(32, 1)
    ladder = [distance(made, real), *(distance(harm(made, step), real) for step in steps)]
    assert ladder == sorted(ladder)
    assert ladder[-1] > 1.5 * ladder[0]


def test_checkerboard_shows_on_the_finest_level() -> None:
    made, real = drawings(16, 0), drawings(16, 1)
    before, after = swd_progan([made], [real]), swd_progan([_checkered(made, 0.1)], [real])
    assert after["level_64"] > 2 * before["level_64"]
    assert after["level_16"] == pytest.approx(before["level_16"], rel=0.05)


def test_mixing_in_the_wrong_domain_raises_it() -> None:
    """None, half, all. Finer steps need not be monotone: each set is normalised by its own contrast (module docs)."""
    right, wrong, real = drawings(40, 0), outlines(40, 5), drawings(40, 1)
    values = [distance(torch.cat([wrong[:k], right[k:]]), real) for k in (0, 20, 40)]
    assert values == sorted(values)
    assert values[-1] > 1.5 * values[0]


def test_one_gain_and_offset_for_a_whole_set_changes_nothing() -> None:
    made, real = drawings(6, 0), drawings(6, 1)
    in_bytes = 127.5 * (made + 1.0)
    assert distance(in_bytes, real) == pytest.approx(distance(made, real), rel=1e-5)


def test_deterministic_by_seed_and_blind_to_batching() -> None:
    made, real = drawings(7, 0), drawings(7, 1)
    whole = swd_progan([made], [real], seed=4)
    assert swd_progan([made], [real], seed=4) == whole
    pieces = swd_progan(made.split(3), (image[None] for image in real), seed=4)
    assert pieces == pytest.approx(whole, rel=1e-9)
    assert swd_progan([made], [real], seed=5)["mean"] != whole["mean"]


def test_gray_channels_float32_and_constant_sets_are_finite() -> None:
    gray = drawings(3, 0)[:, :1].float()
    assert 0 < distance(gray, drawings(3, 1)[:, :1].float()) < 1000
    black = -torch.ones(3, 3, 32, 32)
    assert distance(black, black) == 0.0
    assert np.isfinite(distance(black, drawings(3, 0, 32).float()))


def test_descriptors_in_a_temporary_file_give_the_same_numbers() -> None:
    rows = torch.randn(50, 3 * 49, generator=torch.Generator().manual_seed(0))
    directions = torch.randn(147, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    in_memory, on_disk = DescriptorStore(3, 49), DescriptorStore(3, 49, memory_bytes=20 * 147 * 4)
    for part in rows.split(9):
        in_memory.append(part)
        on_disk.append(part)
    assert on_disk._file is not None
    assert in_memory.count == on_disk.count == 50
    torch.testing.assert_close(torch.cat(list(on_disk.blocks())), rows.double(), rtol=0, atol=0)
    cpu = torch.device("cpu")
    torch.testing.assert_close(on_disk.project(directions, cpu), in_memory.project(directions, cpu))
    projected = on_disk.project(torch.eye(147, dtype=torch.float64), cpu).view(3, 49 * 50)
    torch.testing.assert_close(projected.mean(1), torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(projected.std(1, correction=0), torch.ones(3, dtype=torch.float64))


def test_refusals_name_the_set_and_the_image() -> None:
    good = drawings(3, 0)
    broken = good.clone()
    broken[1, 0, 5, 5] = float("nan")
    with pytest.raises(DataError, match="real image 1 has values that are not finite"):
        swd_progan([good], [broken])
    with pytest.raises(DataError, match="no fake images"):
        swd_progan([], [good])
    with pytest.raises(DataError, match="at least 16 px a side, not 12 x 12"):
        swd_progan([good[:, :, :12, :12]], [good])
    with pytest.raises(DataError, match="fake image 3 has shape"):
        swd_progan([good, good[..., :32]], [good])
    with pytest.raises(DataError, match="resize one set to the other"):
        swd_progan([good], [good[..., :32]])
    with pytest.raises(DataError, match=r"\(B, C, H, W\)"):
        swd_progan([good[0]], [good])
