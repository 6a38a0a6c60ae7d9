"""EnCo and SANTA: their losses of a fixed step by hand, their parameters, and what is published of their settings."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from methods import steps
from methods.steps import batch
from unpaired.engine.step import make_optimizers, set_learning_rate, training_step
from unpaired.methods import image_seeds
from unpaired.methods.base import derive_seeds
from unpaired.methods.enco import EnCo, EnCoConfig
from unpaired.methods.santa import SANTA, SANTAConfig
from unpaired.networks import PathGenerator, ResnetGenerator
from unpaired.ops import location_draws


def make(name: str, **changes: Any) -> Any:
    method = steps.make(name, **changes)
    for parameter in method.parameters():  # the published start is so small that every error would be, too
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return method


def test_where_features_are_compared() -> None:
    assert EnCoConfig().decoder_taps() == ("doubled2", "doubled1", "block7")  # outputs 28, 24, 18 of the published list
    assert SANTAConfig().path_taps() == ("block5", "block8", "up1", "up2", "head")


def test_enco_compares_stages_of_one_pass_and_teaches_the_decoder_only_through_itself() -> None:
    method: EnCo = make("enco", identity_weight=0.0, adversarial_weight=0.0)
    images = batch()
    outputs = method.forward_train(images)
    stages = [*method.generator._encoder_stages(), *method.generator._decoder_stages()]
    hidden, found = images.source, {}
    for name, stage in stages:
        hidden = stage(hidden)
        found[name] = hidden.clone()
    expected = [found[name] for name in ("stem", "halved1", "block2", "doubled2", "doubled1", "block3")]
    for one, other in zip([*outputs.encoder_features, *outputs.decoder_features], expected, strict=True):
        torch.testing.assert_close(one, other)
    assert method.generator_loss(outputs)["content"].requires_grad
    frozen = method.forward_train(images)
    frozen.decoder_features[:] = [each.detach() for each in frozen.decoder_features]
    method.generator_loss(frozen)["content"].backward()
    assert all(p.grad is None for p in method.generator.parameters())  # the encoder's features are only compared with


def test_the_discriminator_of_enco_learns_four_times_as_fast() -> None:
    method = make("enco")
    optimizers = make_optimizers(method, method.config.optimiser)
    rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in optimizers.items()}
    assert rates == {"discriminator": 2e-4, "generator": 5e-5}
    set_learning_rate(optimizers, 1e-5)
    rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in optimizers.items()}
    assert rates == pytest.approx({"discriminator": 4e-5, "generator": 1e-5})
    other = make_optimizers(method, method.config.optimiser)
    for name, optimizer in other.items():
        optimizer.load_state_dict(optimizers[name].state_dict())
    set_learning_rate(other, 1e-3)
    assert other["discriminator"].param_groups[0]["lr"] == pytest.approx(4e-3)
    training_step(method, other, batch())
    moved = {name: other[name].state[other[name].param_groups[0]["params"][0]]["step"].item() for name in other}
    assert moved == {"discriminator": 1, "generator": 1}


def test_least_convincing_patches_are_chosen_per_image() -> None:
    """With every location a candidate and none random, the chosen ones are those with the lowest scores."""
    method: EnCo = make("enco", random_share=0.0, oversampling=100)
    scores = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    chosen = method.locations(scores, (8, 8), image_seeds(0, range(3)))
    for image in range(3):
        assert set(chosen[image].tolist()) == set(scores[image].flatten().argsort()[:16].tolist())
    alone = method.locations(scores[1:2], (8, 8), image_seeds(0, [1]))
    assert torch.equal(alone[0], chosen[1])
    # As published: half of them are the least convincing of 4 N candidates, half are drawn anew.
    seeds = image_seeds(0, range(3))
    mixed = make("enco").locations(scores, (16, 16), seeds)
    doubted = F.interpolate(scores, (16, 16), mode="bilinear").flatten(1)
    draws, others = (location_draws(each, 256) for each in (seeds, derive_seeds(seeds, -1)))
    for image in range(3):
        candidates = draws[image].argsort(stable=True)[: 4 * 16]
        worst = candidates[doubted[image, candidates].argsort()[:8]]
        expected = [*worst.tolist(), *others[image].argsort(stable=True)[:8].tolist()]
        assert sorted(mixed[image].tolist()) == sorted(expected)


def test_the_decoder_of_santa_is_the_family_s_with_adaptive_norms() -> None:
    """With all codes zero and the affine layers at scale 0 and shift 0 it is the ResNet generator."""
    torch.manual_seed(0)
    path = PathGenerator(base_channels=4, blocks=5)
    resnet = ResnetGenerator(base_channels=4, blocks=5)
    torch.nn.init.zeros_(path.ends_2S)
    own = path.state_dict()
    copied = {}
    for key in resnet.state_dict():
        number = int(key.split(".")[1]) if key.startswith("blocks.") else 0
        place = f"blocks.{number - 2}.{key.split('.', 2)[2]}" if number >= 2 else f"resnet.{key}"
        copied[key] = own[place]
    resnet.load_state_dict(copied)
    x = torch.rand(2, 3, 20, 24) * 2 - 1
    torch.testing.assert_close(path(x, torch.tensor([0.0, 0.7])), resnet(x))
    torch.nn.init.normal_(path.ends_2S)
    for module in path.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight)
    ends = path(x[:1].expand(3, -1, -1, -1), torch.tensor([0.0, 0.5, 1.0]))
    assert not torch.allclose(ends[0], ends[2], atol=1e-3)
    assert not torch.allclose(ends[0], ends[1], atol=1e-3)


def test_translation_has_no_noise_and_goes_to_the_end_of_the_path() -> None:
    method: SANTA = make("santa")
    images = batch()
    assert torch.equal(method.translate(images.source), method.translate(images.source))
    torch.testing.assert_close(
        method.translate(images.source), method.generator(images.source, torch.ones(2)), rtol=1e-5, atol=1e-6
    )
    quiet: SANTA = make("santa", noise=0.0)
    outputs = quiet.forward_train(images)
    torch.testing.assert_close(outputs.translated, quiet.translate(images.source), rtol=1e-4, atol=1e-5)
    loud = make("santa").forward_train(images)
    assert not torch.allclose(loud.translated, quiet.translate(images.source), atol=1e-2)
