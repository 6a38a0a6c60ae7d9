"""Translators of both directions: CycleGAN, DCLGAN, and both with query selection, against figures made by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from losses.by_hand import contrast
from methods.steps import batch, losses, make
from unpaired.engine.step import make_optimizers, set_learning_rate
from unpaired.methods import ImageBatch, TranslateRequest, image_seeds
from unpaired.methods.base import derive_seeds
from unpaired.ops import location_draws

NAMES = ("cyclegan", "cyclegan_qs_attn", "dclgan", "dclgan_qs_attn")


def test_projectors_of_dclgan_have_an_adam_of_their_own() -> None:
    method = make("dclgan")
    optimizers = make_optimizers(method, method.config.optimiser)
    set_learning_rate(optimizers, 1e-4)  # half of 2e-4: the schedule counts for both
    groups = optimizers["generators"].param_groups
    assert [(group["lr"], group["betas"]) for group in groups] == [
        (1e-4, (0.5, 0.999)),
        (pytest.approx(5e-4), (0.9, 0.999)),
    ]
    own = {id(p) for name in ("projector_a", "projector_b") for p in getattr(method, name).parameters()}
    assert {id(p) for p in groups[1]["params"]} == own
    assert [group["lr"] for group in optimizers["discriminators"].param_groups] == [1e-4]


def random_contrast(
    taps: tuple[str, ...], keys: list[Tensor], anchors: list[Tensor], seeds: Tensor, project: Callable[..., Tensor],
    project_keys: Callable[..., Tensor],
) -> float:  # fmt: skip
    """Patch contrast of one image at 16 random locations of each tap."""
    total = 0.0
    for number, tap in enumerate(taps):
        places = location_draws(derive_seeds(seeds, number), keys[number][0, 0].numel())[0].argsort(stable=True)[:16]
        q, k = (
            perceptron(tap, maps[number].flatten(2)[:, :, places].transpose(1, 2))[0].detach()
            for perceptron, maps in ((project, anchors), (project_keys, keys))
        )
        total += contrast((q @ k.T).tolist(), 0.07) / len(taps)
    return total


@pytest.mark.parametrize("name", ["cyclegan_qs_attn", "dclgan", "dclgan_qs_attn"])
def test_without_selection_the_contrast_is_the_plain_one_with_the_right_encoders(name: str) -> None:
    plain = {} if name == "dclgan" else {"significance": "random", "routing": "none"}
    method, images = make(name, **plain).double(), batch(1, dtype=torch.float64)
    found, taps = losses(method, images), method.config.taps
    weight = method.config.contrastive_weight * (1 if name == "cyclegan_qs_attn" else 0.5)
    for number, (way, generator, other, x) in enumerate(
        (
            ("ab", method.generator_ab, method.generator_ba, images.source),
            ("ba", method.generator_ba, method.generator_ab, images.target),
        )
    ):
        if name == "cyclegan_qs_attn":  # the translation is encoded by its own generator
            encoder, anchors = generator, getattr(method, f"projector_{way}")
            positives = anchors
        else:  # by the generator that reads its domain, and through that domain's projector
            encoder, anchors, positives = other, *(getattr(method, f"projector_{d}") for d in reversed(way))
        seeds = derive_seeds(images.seeds, number)
        encoded = generator.encode(x, taps), encoder.encode(generator(x), taps)
        expected = weight * random_contrast(taps, *encoded, seeds, anchors, positives)
        assert found[f"contrastive_{way}"].item() == pytest.approx(expected, rel=1e-9)


def test_cyclegan_with_qs_attn_of_weight_zero_is_cyclegan() -> None:
    plain, composed = (
        losses(make("cyclegan"), batch()),
        losses(make("cyclegan_qs_attn", contrastive_weight=0.0), batch()),
    )
    assert set(composed) - set(plain) == {"contrastive_ab", "contrastive_ba"}
    assert composed["contrastive_ab"] == composed["contrastive_ba"] == 0
    assert all(torch.equal(value, composed[term]) for term, value in plain.items())


def test_dclgan_with_nothing_selected_and_nothing_routed_is_dclgan() -> None:
    plain = losses(make("dclgan"), batch())
    reduced = losses(make("dclgan_qs_attn", significance="random", routing="none"), batch())
    selected = losses(make("dclgan_qs_attn"), batch())
    assert all(torch.equal(value, reduced[term]) for term, value in plain.items())
    assert not torch.equal(plain["contrastive_ab"], selected["contrastive_ab"])


@pytest.mark.parametrize("name", NAMES)
def test_both_directions_are_served(name: str) -> None:
    method, x = make(name), batch().source
    assert torch.equal(method.translate(x), method.generator_ab(x))
    assert torch.equal(method.translate(x, TranslateRequest(reverse=True)), method.generator_ba(x))
    assert not torch.equal(method.translate(x), method.translate(x, TranslateRequest(reverse=True)))
    for one, other in zip(method.encode(x, ("block1",)), method.generator_ab.encode(x, ("block1",)), strict=True):
        assert torch.equal(one, other)


def test_each_discriminator_is_shown_earlier_translations_of_its_own_domain() -> None:
    method, made = make("cyclegan", image_pool=2), {"ab": [], "ba": []}  # type: ignore[var-annotated]
    differ = []
    for step in range(12):
        source, target = torch.rand(2, 1, 3, 32, 32) * 2 - 1
        outputs = method.forward_train(ImageBatch(source, target, image_seeds(0, [step])))
        found = method.discriminator_loss(outputs)
        for name, way in outputs.named():
            made[name].append(way.translated.detach())
            assert not way.fakes.requires_grad
            assert any(torch.equal(way.fakes, earlier) for earlier in made[name])
            differ.append((step, name, not torch.equal(way.fakes, made[name][-1])))
        scores = method.discriminator_b(outputs.ab.fakes), method.discriminator_b(outputs.ab.target)
        expected = 0.5 * (scores[0].square().mean() + (scores[1] - 1).square().mean())
        torch.testing.assert_close(found["discriminator_b"], expected)
    earlier = {(step, name) for step, name, is_earlier in differ if is_earlier}
    assert not {step for step, _ in earlier} & {0, 1}  # the pools fill first
    ab, ba = ({step for step, which in earlier if which == name} for name in ("ab", "ba"))
    assert ab
    assert ba
    assert ab != ba  # each pool draws for itself
    assert {"pool_a._extra_state", "pool_b._extra_state"} < set(method.state_dict())


def test_positives_of_dclgan_get_no_gradient() -> None:
    method = make("dclgan")
    outputs = method.forward_train(batch())
    method.generator_loss(outputs)["contrastive_ab"].backward()
    assert all(p.grad is None for p in method.projector_a.parameters())  # projects the positives, I_x in A
    assert all(p.grad is not None for p in method.projector_b.parameters())
    assert method.generator_ba.stem.weight.grad.abs().max() > 0  # encodes the translation
    assert method.generator_ab.head.weight.grad.abs().max() > 0  # made it
