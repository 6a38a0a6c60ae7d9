"""Self-similarity maps and their losses against loops in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from unpaired.losses.self_similarity import map_contrast_loss, self_similarity, self_similarity_loss


def features(batch: int = 2, channels: int = 3, height: int = 5, width: int = 7, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, channels, height, width, generator=generator, dtype=torch.float64)


def dot(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def cosine(one: list[float], other: list[float]) -> float:
    return dot(one, other) / math.sqrt(dot(one, one) * dot(other, other))


def map_by_loops(x_CHW: Tensor, location: int, side: int, similarity: str) -> list[float]:
    """One similarity map, place by place."""
    channels, height, width = x_CHW.shape
    means = [sum(x_CHW[c].flatten().tolist()) / (height * width) for c in range(channels)]

    def at(y: int, x: int) -> list[float]:
        return [float(x_CHW[c, y, x]) - means[c] for c in range(channels)]

    tall, wide = min(side, height), min(side, width)
    y, x = divmod(location, width)
    top, left = y - tall // 2, x - wide // 2
    top, left = min(max(top, 0), height - tall), min(max(left, 0), width - wide)  # moved inside
    found = []
    for row in range(top, top + tall):
        for column in range(left, left + wide):
            pair = at(y, x), at(row, column)
            found.append(cosine(*pair) if similarity == "cosine" else dot(*pair) / math.sqrt(channels))
    return found


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("side", [1, 2, 3, 5, 6, 7, 64])
def test_maps_are_those_of_the_loops(side: int, similarity: str) -> None:
    x = features()
    locations = torch.tensor([[0, 6, 17, 34], [28, 3, 20, 9]])  # corners, borders and the middle
    found = self_similarity(x, locations, side, similarity)  # type: ignore[arg-type]
    assert found.shape == (2, 4, min(side, 5) * min(side, 7))
    for image in range(2):
        for number, location in enumerate(locations[image].tolist()):
            expected = map_by_loops(x[image], location, side, similarity)
            torch.testing.assert_close(found[image, number], torch.tensor(expected, dtype=torch.float64))


def test_a_location_is_most_like_itself() -> None:
    maps = self_similarity(features(), torch.arange(35).expand(2, -1), 64)
    torch.testing.assert_close(maps.diagonal(dim1=1, dim2=2), torch.ones(2, 35, dtype=torch.float64))
    assert maps.abs().max() <= 1 + 1e-12


def test_what_all_features_share_and_their_scale_do_not_matter() -> None:
    x, where = features(), torch.tensor([[1, 8, 30]] * 2)
    changed = 3 * x + torch.rand(2, 3, 1, 1, dtype=torch.float64)
    torch.testing.assert_close(self_similarity(changed, where, 3), self_similarity(x, where, 3))


def test_half_precision_is_compared_in_float32_and_constant_maps_stay_finite() -> None:
    x, where = features().bfloat16(), torch.tensor([[1, 8]] * 2)
    with torch.autocast("cpu", torch.bfloat16):
        found = self_similarity(x, where, 3)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, self_similarity(x.float(), where, 3))
    flat = torch.full((1, 3, 4, 4), 0.5, requires_grad=True)
    maps = self_similarity(flat, torch.tensor([[0, 5]]), 2)
    loss = self_similarity_loss(maps, self_similarity(torch.rand(1, 3, 4, 4), torch.tensor([[0, 5]]), 2)).sum()
    loss.backward()
    assert loss.isfinite()
    assert flat.grad is not None
    assert flat.grad.isfinite().all()


def test_gradients_are_those_of_differences() -> None:
    x, where = features(1, 2, 3, 4).requires_grad_(True), torch.tensor([[0, 7]])
    other = self_similarity(features(1, 2, 3, 4, seed=1), where, 2)
    assert torch.autograd.gradcheck(lambda f: self_similarity_loss(self_similarity(f, where, 2), other), x)
    more = self_similarity(features(1, 2, 3, 4, seed=2), where, 2)
    assert torch.autograd.gradcheck(lambda f: map_contrast_loss(self_similarity(f, where, 2), other, more, 0.5), x)


def test_the_loss_is_one_minus_the_cosine_of_the_maps() -> None:
    a, b = features(2, 3, 4, 5), features(2, 3, 4, 5, seed=1)
    where = torch.tensor([[2, 9, 13]] * 2)
    one, other = self_similarity(a, where, 3), self_similarity(b, where, 3)
    found = self_similarity_loss(one, other)
    for image in range(2):
        expected = sum(1 - cosine(one[image, i].tolist(), other[image, i].tolist()) for i in range(3)) / 3
        assert found[image].item() == pytest.approx(expected, rel=1e-9)
    torch.testing.assert_close(self_similarity_loss(one, 5 * one), torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(self_similarity_loss(one, -one), torch.full((2,), 2.0, dtype=torch.float64))


def test_contrast_finds_the_own_location_among_all_others() -> None:
    tau = 0.3
    anchors, positives, negatives = (
        features(2, 1, rows, 6, seed)[:, 0] - 0.5 for rows, seed in ((3, 0), (3, 1), (2, 2))
    )
    found = map_contrast_loss(anchors, positives, negatives, tau)
    for image in range(2):
        total = 0.0
        for i in range(3):
            candidates = [*positives[image].tolist(), *negatives[image].tolist()]
            similar = [math.exp(cosine(anchors[image, i].tolist(), each) / tau) for each in candidates]
            total -= math.log(similar[i] / sum(similar)) / 3
        assert found[image].item() == pytest.approx(total, rel=1e-9)


def test_contrast_of_equal_maps_is_the_logarithm_of_their_number() -> None:
    maps = torch.ones(2, 4, 9)
    torch.testing.assert_close(map_contrast_loss(maps, maps, maps[:, :3]), torch.full((2,), math.log(7)))
