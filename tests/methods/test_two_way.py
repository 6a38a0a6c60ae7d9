"""Translators of both directions: CycleGAN, DCLGAN, and both with query selection, against figures made by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tiny import tiny_settings
from unpaired.engine.step import make_optimizers, set_learning_rate
from unpaired.errors import ConfigError
from unpaired.methods import METHODS, ImageBatch, TranslateRequest, image_seeds
from unpaired.methods.base import derive_seeds
from unpaired.methods.cyclegan import CycleGANConfig
from unpaired.methods.dclgan import DCLGANConfig
from unpaired.methods.two_way import TwoWay
from unpaired.networks import Projector
from unpaired.ops import location_draws

NAMES = ("cyclegan", "cyclegan_qs_attn", "dclgan", "dclgan_qs_attn")


def make(name: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    return METHODS[name](METHODS[name].Config(**{**tiny_settings(name), **changes}))


def batch(images: int = 2, size: int = 32, dtype: torch.dtype = torch.float32) -> ImageBatch:
    source, target = torch.rand(2, images, 3, size, size, generator=torch.Generator().manual_seed(3), dtype=dtype)
    return ImageBatch(source * 2 - 1, target * 2 - 1, image_seeds(0, range(images)))


def losses(method: Any, images: ImageBatch) -> dict[str, Tensor]:
    outputs = method.forward_train(images)
    return {name: term for phase in method.phases for name, term in phase.loss(outputs).items()}


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


GENERATOR = (
    (7 * 7 * 3 * 64 + 64)  # stem
    + (3 * 3 * 64 * 128 + 128)  # halving
    + (3 * 3 * 128 * 256 + 256)  # halving
    + 9 * 2 * (3 * 3 * 256 * 256 + 256)  # nine residual blocks of two convolutions
    + (3 * 3 * 256 * 128 + 128)  # doubling
    + (3 * 3 * 128 * 64 + 64)  # doubling
    + (7 * 7 * 64 * 3 + 3)  # head
)
DISCRIMINATOR = (
    (16 * 3 * 64 + 64) + (16 * 64 * 128 + 128) + (16 * 128 * 256 + 256) + (16 * 256 * 512 + 512) + (16 * 512 + 1)
)


def projector(*channels: int) -> int:
    """Two layers per tap: C -> 256 -> 256."""
    return sum((each * 256 + 256) + (256 * 256 + 256) for each in channels)


@pytest.mark.parametrize(
    ("name", "projectors"),
    [
        ("cyclegan", {}),
        ("cyclegan_qs_attn", dict.fromkeys(("projector_ab", "projector_ba"), projector(3, 128, 256, 256, 256))),
        ("dclgan", dict.fromkeys(("projector_a", "projector_b"), projector(128, 256, 256, 256))),
        ("dclgan_qs_attn", dict.fromkeys(("projector_a", "projector_b"), projector(128, 256, 256, 256))),
    ],
)
def test_parameters_at_the_defaults_are_those_of_the_layers(name: str, projectors: dict[str, int]) -> None:
    assert (GENERATOR, DISCRIMINATOR) == (11_378_179, 2_764_737)
    assert (projector(3, 128, 256, 256, 256), projector(128, 256, 256, 256)) == (560_384, 493_568)
    with torch.device("meta"):
        method = METHODS[name](METHODS[name].Config())
    assert {key: parameters(network) for key, network in method.named_children()} == {
        "generator_ab": GENERATOR,
        "generator_ba": GENERATOR,
        "discriminator_a": DISCRIMINATOR,
        "discriminator_b": DISCRIMINATOR,
        "pool_a": 0,
        "pool_b": 0,
        **projectors,
    }


def test_the_defaults_are_those_of_the_authors_code() -> None:
    cyclegan, dclgan = CycleGANConfig(), DCLGANConfig()
    assert (cyclegan.cycle_weight, cyclegan.identity_weight, cyclegan.image_pool) == (10.0, 0.5, 50)
    assert (cyclegan.optimiser.learning_rate, cyclegan.optimiser.beta1) == (2e-4, 0.5)
    assert (cyclegan.optimiser.epochs, cyclegan.optimiser.constant_fraction) == (200, 0.5)
    assert (dclgan.adversarial_weight, dclgan.contrastive_weight, dclgan.identity_weight) == (1.0, 2.0, 1.0)
    assert (dclgan.num_queries, dclgan.temperature, dclgan.optimiser.epochs) == (256, 0.07, 400)
    assert dclgan.taps == ("down1", "down2", "block1", "block5")
    assert (dclgan.gan_mode, dclgan.image_pool, dclgan.negatives) == ("hinge", 0, "batch")
    assert (cyclegan.gan_mode, cyclegan.spectral_norm) == ("lsgan", False)


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


def test_generators_of_cyclegan_learn_first_and_those_of_dclgan_last() -> None:
    assert [phase.name for phase in make("cyclegan").phases] == ["generators", "discriminators"]
    assert [phase.name for phase in make("cyclegan_qs_attn").phases] == ["generators", "discriminators"]
    assert [phase.name for phase in make("dclgan").phases] == ["discriminators", "generators"]


def fix(layer: nn.Module, value: float) -> None:
    """Make a last layer give one value, whatever comes in."""
    nn.init.zeros_(layer.weight)
    nn.init.constant_(layer.bias, value)


def constant(name: str) -> tuple[TwoWay, ImageBatch]:
    """G_ab gives 0.5, G_ba -0.25, D_a 0.5, D_b 0.75 everywhere; I_x is 0.1 and I_y -0.3."""
    method = make(name)
    fix(method.generator_ab.head, math.atanh(0.5))
    fix(method.generator_ba.head, math.atanh(-0.25))
    fix(method.discriminator_a.last, 0.5)
    fix(method.discriminator_b.last, 0.75)
    for network in method.children():
        if isinstance(network, Projector):
            for perceptron in network.taps.values():
                fix(perceptron[-1], 1.0)
    source, target = (torch.full((2, 3, 32, 32), value) for value in (0.1, -0.3))
    return method, ImageBatch(source, target, image_seeds(0, range(2)))


ADVERSARIAL = {
    "discriminator_a": 0.5 * ((0.5 - 1) ** 2 + 0.5**2),  # 0.25
    "discriminator_b": 0.5 * ((0.75 - 1) ** 2 + 0.75**2),  # 0.3125
    "adversarial_ab": (0.75 - 1) ** 2,  # 0.0625
    "adversarial_ba": (0.5 - 1) ** 2,  # 0.25
}
CYCLE = {
    "cycle_ab": 10 * 0.35,  # |G_ba(G_ab(x)) - x| = |-0.25 - 0.1|
    "cycle_ba": 10 * 0.8,  # |G_ab(G_ba(y)) - y| = |0.5 + 0.3|
    "identity_ab": 5 * 0.8,  # 0.5 * 10 * |G_ab(y) - y| = |0.5 + 0.3|
    "identity_ba": 5 * 0.35,  # 0.5 * 10 * |G_ba(x) - x| = |-0.25 - 0.1|
}
# Where all of N = 16 projected features are equal, no anchor can tell its positive from the others: log 16.
ONE_SIDED = {"contrastive_ab": math.log(16), "contrastive_ba": math.log(16)}
# DCLGAN: the hinge, half of every term of the generators, and anchors that know 2 x 16 locations of the batch.
DUAL = {
    "discriminator_a": 0.5 * ((1 - 0.5) + (1 + 0.5)),
    "discriminator_b": 0.5 * ((1 - 0.75) + (1 + 0.75)),
    "adversarial_ab": 0.5 * (1 - 0.75),
    "adversarial_ba": 0.5 * (1 - 0.5),
    "contrastive_ab": 0.5 * 2 * math.log(32),
    "contrastive_ba": 0.5 * 2 * math.log(32),
    "identity_ab": 0.5 * 0.8,
    "identity_ba": 0.5 * 0.35,
}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cyclegan", ADVERSARIAL | CYCLE),
        ("cyclegan_qs_attn", ADVERSARIAL | CYCLE | ONE_SIDED),
        ("dclgan", DUAL),
        ("dclgan_qs_attn", DUAL),
    ],
)
def test_losses_of_constant_networks_are_those_worked_out_by_hand(name: str, expected: dict[str, float]) -> None:
    method, images = constant(name)
    found = {key: value.item() for key, value in losses(method, images).items()}
    assert found == pytest.approx(expected, rel=1e-5)


def test_losses_of_a_step_are_the_formulas_one_image_at_a_time() -> None:
    method, images = make("cyclegan").double(), batch(dtype=torch.float64)
    found = losses(method, images)
    there, back = method.generator_ab, method.generator_ba
    expected = dict.fromkeys(found, 0.0)
    for x, y in zip(images.source.split(1), images.target.split(1), strict=True):
        real, fake = method.discriminator_b(y), method.discriminator_b(there(x))
        expected["discriminator_b"] += (((real - 1) ** 2).mean() / 2 + (fake**2).mean() / 2).item() / 2
        expected["adversarial_ab"] += (((fake - 1) ** 2).mean()).item() / 2
        real, fake = method.discriminator_a(x), method.discriminator_a(back(y))
        expected["discriminator_a"] += (((real - 1) ** 2).mean() / 2 + (fake**2).mean() / 2).item() / 2
        expected["adversarial_ba"] += (((fake - 1) ** 2).mean()).item() / 2
        expected["cycle_ab"] += 10 * ((back(there(x)) - x).abs().mean()).item() / 2
        expected["cycle_ba"] += 10 * ((there(back(y)) - y).abs().mean()).item() / 2
        expected["identity_ab"] += 0.5 * 10 * ((there(y) - y).abs().mean()).item() / 2
        expected["identity_ba"] += 0.5 * 10 * ((back(x) - x).abs().mean()).item() / 2
    assert {key: value.item() for key, value in found.items()} == pytest.approx(expected, rel=1e-9)


def random_contrast(
    taps: tuple[str, ...], keys: list[Tensor], anchors: list[Tensor], seeds: Tensor, project: Callable[..., Tensor],
    project_keys: Callable[..., Tensor],
) -> float:  # fmt: skip
    """Patch contrast of one image at 16 random locations of each tap, written out anchor by anchor."""
    total = 0.0
    for number, tap in enumerate(taps):
        places = location_draws(derive_seeds(seeds, number), keys[number][0, 0].numel())[0].argsort(stable=True)[:16]
        q, k = (
            perceptron(tap, maps[number].flatten(2)[:, :, places].transpose(1, 2))[0].detach()
            for perceptron, maps in ((project, anchors), (project_keys, keys))
        )
        for i in range(16):
            similar = [math.exp(float(q[i] @ k[j]) / 0.07) for j in range(16)]
            total -= math.log(similar[i] / sum(similar)) / 16 / len(taps)
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


@pytest.mark.parametrize(
    ("name", "without"), [("cyclegan", {"cycle_weight": 0.0}), ("dclgan", {"identity_weight": 0.0})]
)
def test_terms_of_weight_zero_are_left_out_with_their_passes(name: str, without: dict[str, float]) -> None:
    method = make(name, **without)
    passes = Passes(method)
    terms = losses(method, batch(1))
    assert not any(term.startswith(("cycle", "identity")) for term in terms)
    assert (passes.decoded["generator_ab"], passes.decoded["generator_ba"]) == (1, 1)


class Passes:
    """Counts the images that each network takes in, and those that each generator decodes."""

    def __init__(self, method: Any) -> None:
        self.encoded, self.decoded, self.scored = {}, {}, {}  # type: ignore[var-annotated]
        for name in ("generator_ab", "generator_ba"):
            self._count(self.encoded, name, getattr(method, name).stem)
            self._count(self.decoded, name, getattr(method, name).head)
        for name in ("discriminator_a", "discriminator_b"):
            self._count(self.scored, name, getattr(method, name))

    @staticmethod
    def _count(counts: dict[str, int], name: str, module: nn.Module) -> None:
        counts[name] = 0
        module.register_forward_hook(lambda m, i, o: counts.__setitem__(name, counts[name] + len(o)))


@pytest.mark.parametrize(
    ("name", "encoded", "decoded"),
    [
        ("cyclegan", 3, 3),  # G_ab: I_x, I_y and the cycle of G_ba(I_y)
        ("cyclegan_qs_attn", 4, 3),  # and the encoding of G_ab(I_x)
        ("dclgan", 3, 2),  # G_ab: I_x and I_y, and the encoding of G_ba(I_y)
        ("dclgan_qs_attn", 3, 2),
    ],
)
def test_each_generator_and_discriminator_runs_as_often_as_it_must(name: str, encoded: int, decoded: int) -> None:
    method = make(name)
    passes = Passes(method)
    losses(method, batch(1))
    assert set(passes.encoded.values()) == {encoded}
    assert set(passes.decoded.values()) == {decoded}
    assert set(passes.scored.values()) == {3}  # real and shown for D, the translation for G


@pytest.mark.parametrize("name", NAMES)
def test_both_directions_are_served(name: str) -> None:
    method, x = make(name), batch().source
    assert method.supports == {"reverse"}
    assert set(method.served_networks()) == {"generator_ab", "generator_ba"}
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


@pytest.mark.parametrize("name", NAMES)
def test_a_pool_is_what_keeps_a_step_from_being_recorded(name: str) -> None:
    assert make(name, image_pool=50).not_recordable
    assert make(name, image_pool=50).one_process_only
    assert not make(name, image_pool=0).not_recordable
    assert not make(name, image_pool=0).one_process_only


def test_positives_of_dclgan_get_no_gradient() -> None:
    method = make("dclgan")
    outputs = method.forward_train(batch())
    method.generator_loss(outputs)["contrastive_ab"].backward()
    assert all(p.grad is None for p in method.projector_a.parameters())  # projects the positives, I_x in A
    assert all(p.grad is not None for p in method.projector_b.parameters())
    assert method.generator_ba.stem.weight.grad.abs().max() > 0  # encodes the translation
    assert method.generator_ab.head.weight.grad.abs().max() > 0  # made it


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("cyclegan_qs_attn", {"attention_taps": ("block2",)}, "not among the taps"),
        ("dclgan", {"projector_betas": (0.9, 1.0)}, "projector_betas.1 must be below 1"),
        ("dclgan", {"gan_mode": "wgangp", "gradient_penalty_weight": 0.0}, "gradient_penalty_weight"),
        ("dclgan_qs_attn", {"window": 4}, "window must be odd"),
        ("dclgan_qs_attn", {"blocks": 3}, r"no 'block5'.*'blocks'"),
    ],
)
def test_impossible_settings_are_refused_by_name(name: str, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make(name, **changes)
