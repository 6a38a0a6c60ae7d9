"""Loss terms in bf16: the networks compute in it, losses do not."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from tiny import tiny_settings
from unpaired.engine.step import make_optimizers, random_batch, training_step
from unpaired.methods import METHODS
from unpaired.methods.two_way import mean_distance


@pytest.mark.parametrize("name", METHODS)
def test_every_loss_term_is_at_least_float32_under_autocast(name: str) -> None:
    torch.manual_seed(0)
    method = METHODS[name](METHODS[name].Config(**tiny_settings(name)))
    method.prepare()
    side = max(32, method.smallest_image)
    source, target = torch.rand(2, max(2, method.smallest_batch), 3, side, side) * 2 - 1
    images = random_batch(method, source, target)
    autocast = partial(torch.autocast, "cpu", dtype=torch.bfloat16)
    terms = training_step(method, make_optimizers(method, method.config.optimiser), images, autocast=autocast)
    assert {term: value.dtype for term, value in terms.items()} == dict.fromkeys(terms, torch.float32)


def test_the_distance_of_features_in_bf16_is_not_rounded_again() -> None:
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(2, 16, 8, 8, generator=generator).bfloat16()
    other = (one.float() + 0.05 * torch.randn(one.shape, generator=generator)).bfloat16()
    exact = (one.double() - other.double()).abs().mean()
    assert mean_distance(one, other).dtype == torch.float32
    torch.testing.assert_close(mean_distance(one, other).double(), exact, rtol=1e-6, atol=0)
    assert mean_distance(one.double(), other.double()).dtype == torch.float64
