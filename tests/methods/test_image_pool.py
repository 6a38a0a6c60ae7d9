"""The pool hands out earlier translations, repeatably, and survives a checkpoint."""

from __future__ import annotations

import torch

from unpaired.methods.base import image_seeds
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


def test_a_full_pool_swaps_about_half_of_the_images_for_earlier_ones() -> None:
    pool = ImagePool(10)
    assert shown(pool, 0, 10) == list(range(10))
    later = [(number, shown(pool, number, 1)[0]) for number in range(10, 210)]
    earlier = [number - given for number, given in later if given != number]
    assert 70 < len(earlier) < 130
    assert min(earlier) > 0
    assert max(earlier) > 20  # some stay for long


def test_batches_and_checkpoints_change_nothing() -> None:
    one, other = ImagePool(4), ImagePool(4)
    first = shown(one, 0, 12)
    assert [x for start in range(0, 12, 3) for x in shown(other, start, 3)] == first
    restored = ImagePool(4)
    restored.load_state_dict(one.state_dict())
    assert shown(restored, 12, 30) == shown(one, 12, 30)
