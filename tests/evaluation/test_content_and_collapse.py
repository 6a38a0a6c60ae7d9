"""Content, identity, collapse and colour on cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from unpaired.errors import DataError
from unpaired.evaluation.metrics import collapse, content
from unpaired.evaluation.metrics.collapse import (
    diversity,
    mean_change_levels,
    mean_colour_shift,
)
from unpaired.evaluation.metrics.content import lab_colours, structure_distance

SEEDS = st.integers(0, 10_000)


def maps(seed: int, batch: int = 2, channels: int = 6, height: int = 4, width: int = 5) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((batch, channels, height, width)))


# --- structure ---


def test_structure_distance_is_the_mean_difference_of_the_cosines(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = maps(0), maps(1)
    flat = [x.flatten(2).transpose(1, 2) for x in (a, b)]
    cosines = [F.cosine_similarity(x[:, :, None], x[:, None], dim=3) for x in flat]
    expected = (cosines[0] - cosines[1]).abs().mean((1, 2)).tolist()
    assert structure_distance(a, b) == pytest.approx(expected)
    monkeypatch.setattr(content, "_BLOCK_ROWS", 3)
    assert structure_distance(a, b) == pytest.approx(expected)


@given(SEEDS, st.floats(0.1, 10.0))
@settings(max_examples=20, deadline=None)
def test_structure_ignores_gain_rotation_of_channels_and_a_common_order_of_positions(seed: int, gain: float) -> None:
    a, b = maps(seed), maps(seed + 1)
    expected = structure_distance(a, b)
    assert structure_distance(a, gain * a) == pytest.approx([0.0, 0.0], abs=1e-12)
    rotation = torch.linalg.qr(maps(seed, 1, 6, 6, 1)[0, :, :, 0]).Q
    assert structure_distance(a, torch.einsum("cd,bdhw->bchw", rotation, a)) == pytest.approx([0.0, 0.0], abs=1e-12)
    assert structure_distance(a.flip(3), b.flip(3)) == pytest.approx(expected)
    assert structure_distance(b, a) == pytest.approx(expected)


def test_structure_sees_a_moved_object_and_forgives_another_appearance() -> None:
    scene = torch.zeros(1, 4, 8, 8)
    scene[:, 0] = 1.0
    scene[:, :2, 2:5, 2:5] = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1)  # an object of another feature
    repainted = scene[:, [2, 3, 0, 1]]
    moved = scene.roll((2, 2), dims=(2, 3))
    assert structure_distance(scene, repainted) == pytest.approx([0.0])
    assert structure_distance(scene, moved)[0] > 0.1
    assert structure_distance(scene, torch.ones_like(scene))[0] > 0.1
    assert structure_distance(scene, torch.zeros_like(scene))[0] <= 2.0


# --- identity ---


def test_change_is_in_levels_of_255_and_per_image() -> None:
    source = torch.zeros(3, 3, 4, 4)
    fake = source.clone()
    fake[1] += 2.0 / 255.0
    fake[2, 0, 0, 0] = 1.0
    assert mean_change_levels(source, fake) == pytest.approx([0.0, 1.0, 127.5 / 48])


# --- collapse ---


def test_diversity_of_copies_of_reals_of_one_picture_and_of_half() -> None:
    real = torch.from_numpy(np.random.default_rng(0).standard_normal((30, 10)) + 100.0)
    assert diversity(real.flip(0), real) == pytest.approx(1.0)
    assert diversity(real[:1].expand(12, -1), real) == pytest.approx(0.0, abs=1e-9)
    assert diversity(50.0 + 0.5 * real, real) == pytest.approx(0.5)


def test_diversity_equals_a_loop_over_pairs_and_needs_no_whole_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = (torch.from_numpy(np.random.default_rng(seed).standard_normal((13, 4))) for seed in (0, 1))
    expected = [np.mean([float((z[i] - z[j]).norm()) for i in range(13) for j in range(13) if i != j]) for z in (x, y)]
    assert diversity(x, y) == pytest.approx(expected[0] / expected[1], rel=1e-12)
    monkeypatch.setattr(collapse, "_BLOCK_ROWS", 5)
    assert diversity(x, y) == pytest.approx(expected[0] / expected[1], rel=1e-12)


@given(SEEDS, st.floats(-1e3, 1e3), st.floats(0.01, 100.0))
@settings(max_examples=20, deadline=None)
def test_diversity_ignores_a_common_offset_and_gain(seed: int, offset: float, gain: float) -> None:
    fake, real = maps(seed, 1, 9, 5, 1)[0, :, :, 0], maps(seed + 1, 1, 7, 5, 1)[0, :, :, 0]
    assert diversity(gain * fake + offset, gain * real + offset) == pytest.approx(diversity(fake, real), rel=1e-6)


# --- colour ---


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        ((255, 255, 255), (100.0, 0.0, 0.0)),
        ((0, 0, 0), (0.0, 0.0, 0.0)),
        ((119, 119, 119), (50.03, 0.0, 0.0)),
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 255, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
        ((1, 1, 1), (0.27, 0.0, 0.0)),  # the straight part of both curves
    ],
)
def test_lab_of_known_colours(rgb: tuple[int, int, int], lab: tuple[float, float, float]) -> None:
    image = torch.tensor(rgb, dtype=torch.float64).view(1, 3, 1, 1) / 127.5 - 1.0
    assert lab_colours(image).flatten().tolist() == pytest.approx(lab, abs=0.01)


def test_gray_images_of_one_channel_are_the_same_as_of_three() -> None:
    gray = torch.rand(2, 1, 5, 5, generator=torch.Generator().manual_seed(0)) * 2 - 1
    torch.testing.assert_close(lab_colours(gray), lab_colours(gray.expand(-1, 3, -1, -1)))
    assert lab_colours(gray)[:, 1:].abs().max() < 1e-10


def test_colour_shift_between_flat_sets_is_their_delta_e_and_images_count_alike() -> None:
    white, black = torch.ones(1, 3, 4, 4), -torch.ones(1, 3, 9, 2)
    assert mean_colour_shift([white], [black]) == pytest.approx(100.0)
    assert mean_colour_shift([white, black], [white]) == pytest.approx(50.0)  # the larger image counts no more
    assert mean_colour_shift([white, white, black], [white.expand(2, -1, -1, -1), black]) == pytest.approx(0.0)


@given(SEEDS, st.integers(1, 5))
@settings(max_examples=15, deadline=None)
def test_colour_shift_is_symmetric_and_blind_to_order_and_batching(seed: int, size: int) -> None:
    a, b = maps(seed, 6, 3).clamp(-1, 1), maps(seed + 1, 4, 3).clamp(-1, 1)
    value = mean_colour_shift([a], [b])
    assert mean_colour_shift(b.split(size), a.flip(0).split(size)) == pytest.approx(value, rel=1e-9)
    assert mean_colour_shift([a.flip(2)], [a]) == pytest.approx(0.0, abs=1e-10)


def test_refusals() -> None:
    image = torch.zeros(2, 3, 4, 4)
    broken = image.clone()
    broken[1, 0, 0, 0] = float("nan")
    with pytest.raises(DataError, match="structure distance: source has shape"):
        structure_distance(image, image[:, :, :2])
    with pytest.raises(DataError, match="change of the input: fake image 1 has values that are not finite"):
        mean_change_levels(image, broken)
    for fake, real, words in (
        (torch.zeros(1, 3), torch.zeros(4, 3), "at least 2 images"),
        (maps(0, 1, 4, 3, 1)[0, :, :, 0], torch.ones(4, 3), "real images are all equal"),
        (torch.zeros(2, 5), torch.zeros(4, 3), "5 features of a fake image, 3 of a real one"),
        (torch.tensor([[0.0], [float("inf")]]), torch.zeros(4, 1), "fake image 1 has features"),
    ):
        with pytest.raises(DataError, match=words):
            diversity(fake, real)
    with pytest.raises(DataError, match="no fake images"):
        mean_colour_shift([], [image])
    with pytest.raises(DataError, match="1 or 3 channels, not 4"):
        lab_colours(torch.zeros(1, 4, 2, 2))
