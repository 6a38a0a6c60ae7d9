"""What a configured method tells the engine of itself: networks, phases, smallest sizes, and what it rules out."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import pytest
import torch

from methods.steps import batch, losses, make
from tiny import tiny_settings
from unpaired.methods import METHODS

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


GENERATOR, DISCRIMINATOR = 11_378_179, 2_764_737
FIVE, FOUR = 560_384, 493_568
"""Of the projector at CUT's five taps and at DCLGAN's four."""
ONE_PAIR = {"generator": GENERATOR, "discriminator": DISCRIMINATOR}
TWO_PAIRS = {f"{name}_{way}": count for name, count, ways in (
    ("generator", GENERATOR, ("ab", "ba")), ("discriminator", DISCRIMINATOR, "ab")) for way in ways}  # fmt: skip
PARAMETERS: dict[str, dict[str, int]] = {
    **{key: {**ONE_PAIR, "projector": FIVE} for key in ("qs_attn", "cut", "fastcut", "monce", "hneg_src")},
    "cyclegan": TWO_PAIRS,
    "cyclegan_qs_attn": {**TWO_PAIRS, "projector_ab": FIVE, "projector_ba": FIVE},
    **{key: {**TWO_PAIRS, "projector_a": FOUR, "projector_b": FOUR} for key in ("dclgan", "dclgan_qs_attn")},
    # Scale and shift for three domains in blocks 6 to 9 and the doublings; one score per domain.
    "multi_domain_qs_attn": {"generator": 11_391_619, "discriminator": 2_781_123, "projector": FIVE},
    "munit": {f"{name}_{domain}": count for domain in "ab" for name, count in (
        ("content_encoder", 5_385_856), ("style_encoder", 2_764_936), ("decoder", 6_875_395),
        ("discriminator", 8_271_171))},
    "fsesim": ONE_PAIR,
    "lsesim": {**ONE_PAIR, "projector": 184_960},
    "enco": {**ONE_PAIR, "projector": 510_976},  # projections and predictions
    "santa": {"generator": 11_427_731, "discriminator": DISCRIMINATOR},
}  # fmt: skip
"""Method -> parameters of its networks at the defaults; the tests of the networks add these up layer by layer."""


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_at_the_defaults(name: str) -> None:
    several = {"domains": ("a", "b", "c")} if name.startswith("multi") else {}
    with torch.device("meta"):
        method = METHODS[name](METHODS[name].Config(**several))
    counted = {key: sum(p.numel() for p in network.parameters()) for key, network in method.named_children()}
    assert {key: count for key, count in counted.items() if count} == PARAMETERS[name]


PASSES: tuple[tuple[str, dict[str, Any], dict[str, int]], ...] = (
    # I_x and I_y are translated, they and their translations encoded; real and fake for D, fake for G.
    ("qs_attn", {}, {"generator.stem": 4, "generator.head": 2, "discriminator": 3}),
    ("cut", {"identity_weight": 0.0}, {"generator.stem": 2, "generator.head": 1, "discriminator": 3}),
    # G_ab: I_x, I_y and the cycle of G_ba(I_y); then also the encoding of G_ab(I_x).
    ("cyclegan", {}, {"generator.stem": 3, "generator.head": 3, "discriminator": 3}),
    ("cyclegan", {"cycle_weight": 0.0}, {"generator.head": 1}),
    ("cyclegan_qs_attn", {}, {"generator.stem": 4, "generator.head": 3, "discriminator": 3}),
    # G_ab: I_x and I_y, and the encoding of G_ba(I_y).
    ("dclgan", {}, {"generator.stem": 3, "generator.head": 2, "discriminator": 3}),
    ("dclgan", {"identity_weight": 0.0}, {"generator.head": 1}),
    ("dclgan_qs_attn", {}, {"generator.stem": 3, "generator.head": 2, "discriminator": 3}),
    # Real and translated; reconstruction, translation and, with its weight, cycle.
    ("munit", {}, {"content_encoder": 2, "style_encoder": 2, "decoder": 2, "discriminator": 3}),
    ("munit", {"cycle_weight": 10.0}, {"content_encoder": 2, "style_encoder": 2, "decoder": 3, "discriminator": 3}),
    ("fsesim", {}, {"_frozen.module": 2, "generator.stem": 1, "discriminator": 3}),  # I_x and G(I_x)
    ("lsesim", {}, {"_frozen.module": 5, "generator.stem": 1, "discriminator": 3}),  # and I_y, both recoloured
)


@pytest.mark.parametrize(("name", "changes", "expected"), PASSES)
def test_each_network_sees_as_many_images_as_it_must(
    name: str, changes: dict[str, Any], expected: dict[str, int]
) -> None:
    method, seen = make(name, **changes), dict[str, int]()
    for path, count in expected.items():
        first, _, rest = path.partition(".")
        for network in [key for key, _ in method.named_children() if key.startswith(first)] or [first]:
            key = f"{network}.{rest}".rstrip(".")
            module = attrgetter(key)(method)
            seen[key] = -count
            module.register_forward_pre_hook(
                lambda module, given, key=key: seen.update({key: seen[key] + len(given[0])})
            )
    losses(method, batch(1))
    assert not any(seen.values()), seen
    assert len(seen) >= len(expected)


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
        ("multi_domain_qs_attn", {}, "a recorded step does not take the domains", ""),
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
