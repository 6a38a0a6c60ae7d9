"""One training step of QS-Attn on the published schedule: what speed claims about the whole step are measured against.

Written by us from a description (method.md, sections 1 and 4); no line of the published code is copied. The networks
are ours with the library's convolutions, and their instance norm has the right gradient. What it does as published: two
full passes in one batch; the discriminator sees real and translated images in separate passes; per contrastive term
the translation and the input are encoded again, with gradient; a fifth encoding whose result nobody uses; attention
as in ``published_attention.py``; one Adam step per network, one parameter at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from published_attention import published_qs_attention
from unpaired.engine.step import only
from unpaired.losses import discriminator_loss, generator_loss, patch_nce_loss
from unpaired.methods import ImageBatch
from unpaired.methods.qs_attn import QSAttn
from unpaired.ops.winograd import direct_convolutions

Optimizers = dict[str, torch.optim.Optimizer]


def published_optimizers(method: QSAttn) -> Optimizers:
    """One Adam for each of the three networks."""
    optimiser = method.config.optimiser
    return {
        name: torch.optim.Adam(
            getattr(method, name).parameters(), lr=optimiser.learning_rate, betas=(optimiser.beta1, optimiser.beta2)
        )
        for name in ("generator", "discriminator", "projector")
    }


def published_step(
    method: QSAttn,
    optimizers: Optimizers,
    images: ImageBatch,
    *,
    indices: Sequence[Sequence[Tensor]] | None = None,
    autocast: AbstractContextManager[object] | None = None,
) -> dict[str, Tensor]:
    """Update every network once.

    Args:
        method: QS-Attn at ``formulation="equations"`` or ``"published"``: the step is the published one either way.
        optimizers: From :func:`published_optimizers`.
        images: The batch.
        indices: Per term (I_x, I_y) and tap the positions to take, (B, N), so that losses can be compared; by default
            each tap selects or draws its own as the published code does.
        autocast: Context in which networks and losses run.

    Returns:
        The loss terms by name.
    """
    with direct_convolutions(), autocast or nullcontext():
        generator, discriminator, config = method.generator, method.discriminator, method.config
        translated, identity = generator(torch.cat([images.source, images.target])).chunk(2)

        with only(method, ("discriminator",)):
            optimizers["discriminator"].zero_grad()
            fake = discriminator(translated.detach())
            judged = discriminator_loss(discriminator(images.target), fake)
            judged.backward()
            optimizers["discriminator"].step()

        with only(method, ("generator", "projector")):
            optimizers["generator"].zero_grad()
            optimizers["projector"].zero_grad()
            adversarial = config.adversarial_weight * generator_loss(discriminator(translated))
            generator.encode(images.source, config.taps)  # the result that nobody uses
            pairs = ((images.source, translated), (images.target, identity))
            terms = [_contrastive(method, *pair, indices[i] if indices else None) for i, pair in enumerate(pairs)]
            contrastive = 0.5 * config.contrastive_weight * terms[0]
            identity_loss = 0.5 * config.identity_weight * terms[1]
            (adversarial + contrastive + identity_loss).backward()
            optimizers["generator"].step()
            optimizers["projector"].step()
    return {
        "discriminator": judged,
        "adversarial": adversarial,
        "contrastive": contrastive,
        "identity": identity_loss,
    }


def _contrastive(method: QSAttn, inputs: Tensor, translations: Tensor, indices: Sequence[Tensor] | None) -> Tensor:
    config = method.config
    anchors_by_tap = method.generator.encode(translations, config.taps)
    keys_by_tap = method.generator.encode(inputs, config.taps)
    losses = []
    for number, tap in enumerate(config.taps):
        keys, anchors = keys_by_tap[number], anchors_by_tap[number]
        chosen = indices[number] if indices else None
        if tap in config.attention_taps:
            _, positives, routed = published_qs_attention(
                keys, anchors, config.num_queries, config.attention, config.window, chosen
            )
        else:
            if chosen is None:
                chosen = torch.randperm(keys[0, 0].numel(), device=keys.device)[: config.num_queries].unsqueeze(0)
            positives, routed = _taken(keys, chosen), _taken(anchors, chosen)
        losses.append(_nce(method, tap, routed, positives))
    return torch.stack(losses).mean()


def _taken(features_BCHW: Tensor, indices_BN: Tensor) -> Tensor:
    images_B1 = torch.arange(len(features_BCHW), device=features_BCHW.device).unsqueeze(1)
    return features_BCHW.permute(0, 2, 3, 1).flatten(1, 2)[images_B1, indices_BN]


def _nce(method: QSAttn, tap: str, anchors_BNC: Tensor, positives_BNC: Tensor) -> Tensor:
    projector: nn.Module = method.projector
    anchors, positives = projector(tap, anchors_BNC), projector(tap, positives_BNC)
    return patch_nce_loss(anchors, positives.detach(), method.config.temperature).mean()
