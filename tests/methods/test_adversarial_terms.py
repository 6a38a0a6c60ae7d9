"""The loss terms that methods share: the adversarial ones with their penalty, and the contrast of several blocks."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from methods.steps import batch, make
from unpaired.losses import discriminator_loss, generator_loss, gradient_penalty, patch_nce_loss
from unpaired.methods.base import derive_seeds
from unpaired.methods.contrast import mean_patch_nce
from unpaired.ops import location_draws


def test_the_penalty_is_taken_between_real_and_shown_images_at_the_drawn_shares() -> None:
    method: Any = make("cut", gan_mode="wgangp", gradient_penalty_weight=3.0, adversarial_weight=2.0)
    outputs = method.forward_train(batch())
    terms = method.discriminator_loss(outputs)
    shares = location_draws(derive_seeds(batch().seeds, 0, -7), 1)[:, 0]
    expected = 3.0 * gradient_penalty(method.discriminator, outputs.target, outputs.fakes, shares)
    assert terms["gradient_penalty"].item() == pytest.approx(expected.item(), rel=1e-6)
    exchanged = 3.0 * gradient_penalty(method.discriminator, outputs.fakes, outputs.target, shares)
    assert terms["gradient_penalty"].item() != pytest.approx(exchanged.item(), rel=1e-6)
    real, fake = method.discriminator(outputs.target), method.discriminator(outputs.fakes)
    assert terms["discriminator"].item() == pytest.approx(discriminator_loss(real, fake, "wgangp").item(), abs=1e-6)
    made = method.generator_loss(outputs)["adversarial"].item()
    assert made == pytest.approx(2.0 * generator_loss(fake, "wgangp").item(), abs=1e-6)


@pytest.mark.parametrize("negatives", ["image", "batch"])
def test_contrasts_of_blocks_are_losses_of_their_own(negatives: Any) -> None:
    method: Any = make("cut", temperature=0.3, negatives=negatives)
    outputs = method.forward_train(batch(3))
    pairs = method.pairs(outputs)
    found = mean_patch_nce(pairs, 3, method.config)
    expected = torch.stack(
        [
            torch.cat(
                [
                    patch_nce_loss(pair.anchors[block], pair.positives[block], 0.3, negatives=negatives)
                    for block in (slice(0, 3), slice(3, 6))
                ]
            )
            for pair in pairs
        ]
    ).mean(dim=0)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(method.contrastive_loss(outputs, pairs), expected)
    assert not torch.allclose(found, mean_patch_nce(pairs, 3, dataclasses.replace(method.config, temperature=0.07)))
    if negatives == "batch":
        assert not torch.allclose(found, mean_patch_nce(pairs, 6, method.config))
