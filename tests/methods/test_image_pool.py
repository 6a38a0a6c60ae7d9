"""The pool hands out earlier translations, repeatably, and survives a checkpoint."""

from __future__ import annotations

import pytest
import torch

from tiny import tiny_settings
from unpaired.methods import METHODS, ImageBatch
from unpaired.methods.base import coin_flips, derive_seeds, image_seeds
from unpaired.methods.image_pool import ImagePool


def numbered(first: int, count: int) -> torch.Tensor:
    return torch.arange(first, first + count).float().view(-1, 1, 1, 1).expand(-1, 1, 2, 2)


def shown(pool: ImagePool, first: int, count: int) -> list[int]:
    images = numbered(first, count)
    return [int(x[0, 0, 0]) for x in pool.exchange(images, image_seeds(0, range(first, first + count)))]


def test_an_empty_pool_hands_every_image_through_without_gradient() -> None:
    images = torch.rand(2, 3, 4, 4, requires_grad=True)
    given = ImagePool(0).exchange(images, image_seeds(0, range(2)))
    assert torch.equal(given, images)
    assert not given.requires_grad


def test_batches_and_checkpoints_change_nothing() -> None:
    one, other = ImagePool(4), ImagePool(4)
    first = shown(one, 0, 12)
    assert [x for start in range(0, 12, 3) for x in shown(other, start, 3)] == first
    restored = ImagePool(4)
    restored.load_state_dict(one.state_dict())
    assert shown(restored, 12, 30) == shown(one, 12, 30)


def by_hand(size: int, numbers: range) -> list[int]:
    """What a pool gives, image by image, from the same coins and draws."""
    kept: list[int] = []
    given = []
    for number in numbers:
        seed = image_seeds(0, [number])
        (flip,), place = coin_flips(derive_seeds(seed, 0)), int(derive_seeds(seed, 1)) % size
        if len(kept) < size:
            kept.append(number)
            given.append(number)
        elif flip:
            given.append(kept[place])
            kept[place] = number
        else:
            given.append(number)
    return given


def test_the_pool_by_hand() -> None:
    for size in (1, 2, 5):
        pool = ImagePool(size)
        assert shown(pool, 0, 40) + shown(pool, 40, 20) == by_hand(size, range(60))


def test_what_is_kept_is_a_copy_without_gradient() -> None:
    pool, images = ImagePool(2), numbered(0, 2).clone().requires_grad_()
    assert not pool.exchange(images, image_seeds(0, range(2))).requires_grad
    with torch.no_grad():
        images.fill_(99)
    assert shown(pool, 2, 30) == by_hand(2, range(32))[2:]
    state = pool.get_extra_state()
    assert list(state) == ["images"]
    assert [tuple(image.shape) for image in state["images"]] == [(1, 2, 2)] * 2
    pool.set_extra_state({"images": (torch.full((1, 2, 2), 7.0), torch.full((1, 2, 2), 8.0))})
    later = {value for first in range(100, 130) for value in shown(pool, first, 1)}
    assert {7, 8} <= later


def test_a_kept_image_stays_when_the_newest_is_changed_later() -> None:
    pool = ImagePool(1)
    shown(pool, 0, 1)
    number = next(n for n in range(1, 99) if coin_flips(derive_seeds(image_seeds(0, [n]), 0))[0])
    newest = numbered(number, 1).clone()
    assert pool.exchange(newest, image_seeds(0, [number])).flatten().tolist() == [0.0] * 4
    newest.fill_(-1)
    assert pool.get_extra_state()["images"][0].flatten().tolist() == [float(number)] * 4


@pytest.mark.parametrize(
    ("name", "salts"), [("cut", {"pool": -3}), ("fsesim", {"pool": -3}), ("cyclegan", {"pool_a": -4, "pool_b": -3})]
)
def test_each_pool_draws_for_a_purpose_of_its_own(name: str, salts: dict[str, int]) -> None:
    """What a pool gives is part of a run's draws, which docs/architecture.md promises to repeat."""
    method = METHODS[name](METHODS[name].Config(**{**tiny_settings(name), "image_pool": 2}))
    method.prepare()
    given: dict[str, torch.Tensor] = {}
    for pool in salts:
        module = getattr(method, pool)
        module.exchange = lambda images, seeds, pool=pool: given.update({pool: seeds}) or images.detach()
    images = torch.rand(2, 2, 3, 32, 32) * 2 - 1
    seeds = image_seeds(5, range(2))
    method.forward_train(ImageBatch(*images, seeds))
    assert given.keys() == salts.keys()
    for pool, salt in salts.items():
        assert torch.equal(given[pool], derive_seeds(seeds, salt)), pool
