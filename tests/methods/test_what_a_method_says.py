"""What a configured method tells the engine of itself: networks, phases, smallest sizes, and what it rules out."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tiny import tiny_settings
from unpaired.methods import METHODS, Method, adversarial, image_seeds
from unpaired.methods.base import derive_seeds
from unpaired.networks import PatchDiscriminator
from unpaired.ops import location_draws


def make(name: str, **changes: Any) -> Method:
    return METHODS[name](METHODS[name].Config(**{**tiny_settings(name), **changes}))


ONE_WAY = (("generator",), (), (("discriminator", ("discriminator",)), ("generator", ("generator", "projector"))))
BOTH = ("discriminators", ("discriminator_a", "discriminator_b"))
MUNIT_PARTS = (
    "content_encoder_a", "content_encoder_b", "style_encoder_a", "style_encoder_b", "decoder_a", "decoder_b",
)  # fmt: skip
NETWORKS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[tuple[str, tuple[str, ...]], ...]]] = {
    **dict.fromkeys(("qs_attn", "cut", "fastcut", "sincut", "monce", "hneg_src", "enco"), ONE_WAY),
    "multi_domain_qs_attn": (ONE_WAY[0], ("domain",), ONE_WAY[2]),
    "cyclegan": (
        ("generator_ab", "generator_ba"), ("reverse",), (("generators", ("generator_ab", "generator_ba")), BOTH),
    ),
    "cyclegan_qs_attn": (
        ("generator_ab", "generator_ba"), ("reverse",),
        (("generators", ("generator_ab", "generator_ba", "projector_ab", "projector_ba")), BOTH),
    ),
    **dict.fromkeys(("dclgan", "dclgan_qs_attn"), (
        ("generator_ab", "generator_ba"), ("reverse",),
        (BOTH, ("generators", ("generator_ab", "generator_ba", "projector_a", "projector_b"))),
    )),
    "munit": (MUNIT_PARTS, ("reverse", "style"), (BOTH, ("generators", MUNIT_PARTS))),
    "fsesim": (ONE_WAY[0], (), (("discriminator", ("discriminator",)), ("generator", ("generator",)))),
    "lsesim": (
        ONE_WAY[0], (),
        (("projector", ("projector",)), ("discriminator", ("discriminator",)), ("generator", ("generator",))),
    ),
    "santa": (ONE_WAY[0], (), (("discriminator", ("discriminator",)), ("generator", ("generator",)))),
}  # fmt: skip
"""Method -> networks that translate, requests that it supports, phases in their order with the networks they update."""


@pytest.mark.parametrize("name", METHODS)
def test_networks_wishes_and_phases(name: str) -> None:
    method = make(name)
    phases = tuple((phase.name, phase.networks) for phase in method.phases)
    assert (method.served, tuple(sorted(method.supports)), phases) == NETWORKS[name]
    assert list(method.served_networks()) == list(method.served)
    for entry in method.compiled:
        network, function = entry.split(".")
        assert callable(getattr(getattr(method, network), function)), entry
    assert method.compiled


@pytest.mark.parametrize("layers", [2, 3])
@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("munit", "sincut")])
def test_the_smallest_image_is_that_of_the_discriminator(name: str, layers: int) -> None:
    """Half of it would be enough for the networks of FSeSim, whose features need 16."""
    floor = 16 if name in ("fsesim", "lsesim") else 0
    assert make(name, discriminator_layers=layers).smallest_image == max(floor, {2: 12, 3: 24}[layers])


def test_the_smallest_image_and_batch_of_the_others() -> None:
    assert make("munit", discriminator_layers=1, discriminator_scales=1).smallest_image == 16
    assert make("munit", discriminator_layers=4).smallest_image == 61
    assert make("sincut", discriminator_layers=4).smallest_image == 32
    assert (make("sincut", num_queries=1).smallest_batch, make("sincut", num_queries=2).smallest_batch) == (2, 1)
    assert make("sincut", num_queries=1, negatives="image").smallest_batch == 1


@pytest.mark.parametrize(
    ("name", "changes", "host", "alone"),
    [
        ("cut", {}, "", ""),
        ("cut", {"image_pool": 3}, "image_pool and flip_equivariance are decided", "image_pool keeps images"),
        ("cut", {"flip_equivariance": True}, "image_pool and flip_equivariance are decided", ""),
        ("fastcut", {}, "image_pool and flip_equivariance are decided", ""),
        ("cyclegan", {}, "image_pool is decided on the host", "image_pool keeps images in each process"),
        ("cyclegan", {"image_pool": 0}, "", ""),
        ("dclgan", {}, "", ""),
        ("dclgan", {"image_pool": 1}, "image_pool is decided on the host", "image_pool keeps images in each process"),
        ("fsesim", {}, "image_pool is decided on the host", "image_pool keeps images in each process"),
        ("lsesim", {"image_pool": 0}, "", ""),
        ("enco", {}, "the identity pass ends during training", ""),
        ("enco", {"identity_weight": 0.0}, "", ""),
        ("multi_domain_qs_attn", {}, "the domains of its images would not be recorded", ""),
        ("munit", {}, "", ""), ("santa", {}, "", ""), ("hneg_src", {}, "", ""), ("monce", {}, "", ""),
    ],
)  # fmt: skip
def test_what_a_configuration_rules_out(name: str, changes: dict[str, Any], host: str, alone: str) -> None:
    method = make(name, **changes)
    assert method.not_recordable.startswith(host)
    assert method.one_process_only.startswith(alone)
    assert bool(method.not_recordable) == bool(host)
    assert bool(method.one_process_only) == bool(alone)


@pytest.mark.parametrize("name", METHODS)
def test_images_may_have_other_channels_than_three_and_discriminators_other_widths(name: str) -> None:
    method = METHODS[name](METHODS[name].Config(**{**tiny_settings(name), "discriminator_channels": 6}), 1)
    for key, module in method.named_children():
        if key.startswith("discriminator"):
            first = next(p for p in module.parameters() if p.dim() == 4)
            assert tuple(first.shape[:2]) == (6, 1), key
        if key.startswith(("generator", "content_encoder", "style_encoder")):
            assert next(p for p in module.parameters() if p.dim() == 4).shape[1] == 1, key
    plain = make(name)
    for key, module in plain.named_children():
        if key.startswith("discriminator") and name != "sincut":
            assert next(p for p in module.parameters() if p.dim() == 4).shape[0] == 4, key


def test_the_penalty_is_taken_between_real_and_translated(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(adversarial, "gradient_penalty", lambda *each: given.append(each) or torch.tensor(2.0))
    config = METHODS["cut"].Config(gan_mode="wgangp", gradient_penalty_weight=3.0)
    real, fake = torch.rand(2, 2, 3, 16, 16)
    seeds = image_seeds(0, range(2))
    judge = PatchDiscriminator(base_channels=4, layers=1)
    terms = config.discriminator_terms(judge, real, fake, seeds, "_a")
    assert list(terms) == ["discriminator_a", "gradient_penalty_a"]
    assert terms["gradient_penalty_a"].item() == 6.0
    ((by, one, other, shares),) = given
    assert by is judge
    assert torch.equal(one, real)
    assert torch.equal(other, fake)
    assert torch.equal(shares, location_draws(derive_seeds(seeds, -7), 1)[:, 0].to(real))
