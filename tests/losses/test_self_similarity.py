"""Self-similarity maps and their losses against loops in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from methods.golden import fills, read
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
            found.append(cosine(*pair) if similarity == "cosine" else math.tanh(dot(*pair) / channels / 10))
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


def loss_by_loops(source: list[float], translated: list[float], similarity: str) -> float:
    """Of one query: only what reaches entry N_p // 4 of the translation's map, counted from its largest, counts."""
    least = sorted(translated, reverse=True)[len(translated) // 4]
    kept = [(a, b) for a, b in zip(source, translated, strict=True) if b >= least]
    distance = 1 - cosine([a for a, _ in kept], [b for _, b in kept])
    if similarity == "cosine":
        return distance
    return distance**2 / 2 if distance < 1 else distance - 0.5


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("side", [1, 3, 4])
def test_the_loss_compares_the_strongest_quarter_of_the_translations_maps(side: int, similarity: Any) -> None:
    a, b = features(2, 3, 4, 5), features(2, 3, 4, 5, seed=1)
    where = torch.tensor([[2, 9, 13]] * 2)
    one, other = self_similarity(a, where, side, similarity), self_similarity(b, where, side, similarity)
    found = self_similarity_loss(one, other, similarity)
    for image in range(2):
        expected = sum(loss_by_loops(one[image, i].tolist(), other[image, i].tolist(), similarity) for i in range(3))
        assert found[image].item() == pytest.approx(expected / 3, rel=1e-9)
    torch.testing.assert_close(self_similarity_loss(one, 5 * one, similarity), torch.zeros(2, dtype=torch.float64))
    far = self_similarity_loss(-other, other, similarity)
    torch.testing.assert_close(far, torch.full((2,), 2.0 if similarity == "cosine" else 1.5, dtype=torch.float64))


@pytest.mark.parametrize("case", read("fsesim")["structure_loss_on_given_maps"], ids=lambda c: str(c["patch_size"]))
def test_the_authors_loss_on_given_maps(case: dict[str, Any]) -> None:
    channels, side = case["channels"], case["side"]
    count = channels * side * side
    waves = 0.05 * torch.arange(count, dtype=torch.float64)
    first, second = (fills.hashed(11 + 5003 * t, count) + 0.5 * torch.sin(waves + t) for t in range(2))
    source = first.clamp(min=-0.2).reshape(1, channels, side, side)
    target = (0.6 * first + 0.6 * second).clamp(min=-0.2).reshape(1, channels, side, side).requires_grad_()
    similarity: Any = "cosine" if case["use_norm"] else "dot"
    where = torch.tensor(case["locations"])[None]
    maps = [self_similarity(x, where, case["patch_size"], similarity) for x in (source, target)]
    loss = self_similarity_loss(maps[0], maps[1], similarity).mean()
    loss.backward()
    assert loss.item() == pytest.approx(case["loss"], rel=1e-12)
    assert target.grad is not None
    assert target.grad.norm().item() == pytest.approx(case["gradient_to_target"]["l2"], rel=1e-12)
    for found, name in zip(maps, ("source_maps", "target_maps"), strict=True):
        assert found.norm().item() == pytest.approx(case[name]["l2"], rel=1e-12)


def test_the_authors_contrast_on_given_maps() -> None:
    case = read("fsesim")["learned_contrast_on_given_maps"]
    maps = [fills.hashed(7 + 3001 * t, 720).reshape(1, 20, 36) for t in range(3)]
    found = map_contrast_loss(maps[0], maps[0] + 0.5 * maps[1], maps[2], case["T"])
    assert found.item() == pytest.approx(case["loss"], rel=1e-12)


def test_contrast_finds_the_own_location_among_all_others() -> None:
    tau = 0.3
    anchors, positives, negatives = (
        features(2, 1, rows, 6, seed)[:, 0] - 0.5 for rows, seed in ((3, 0), (3, 1), (2, 2))
    )
    found = map_contrast_loss(anchors, positives, negatives, tau)
    for image in range(2):
        total = 0.0
        others = negatives[image].tolist()
        for i in range(3):
            anchor, positive = anchors[image, i].tolist(), positives[image, i].tolist()
            alike = [cosine(anchor, each) for each in (*positives[image].tolist(), *others)]
            alike += [cosine(positive, each) for each in others]
            similar = [math.exp(each / tau) for each in alike]
            total -= math.log(similar[i] / sum(similar)) / 3
        assert found[image].item() == pytest.approx(total, rel=1e-9)


def test_contrast_of_equal_maps_is_the_logarithm_of_the_number_of_candidates() -> None:
    maps = torch.ones(2, 4, 9)
    torch.testing.assert_close(map_contrast_loss(maps, maps, maps[:, :3]), torch.full((2,), math.log(4 + 2 * 3)))
