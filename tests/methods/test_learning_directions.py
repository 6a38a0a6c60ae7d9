"""Where a step leads: discriminators tell real from translated better, generators are taken for real more often, and
each other term moves what it is about, measured here without the method's losses. Wrong signs, exchanged arguments and
detached tensors show in these directions even where every loss stays finite and every shape right."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Collection
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tiny import tiny_settings
from unpaired.engine.step import make_optimizers, set_learning_rate, training_step
from unpaired.losses import GanMode
from unpaired.methods import METHODS, ImageBatch, Method, image_seeds
from unpaired.methods.base import OptimiserConfig, Phase, coin_flips, derive_seeds
from unpaired.networks import ProjectedDiscriminator, ProjectedScores
from unpaired.networks.frozen import Frozen

SEEDS = (1, 2)
"""Of weights and images: everything here is deterministic."""
SMALL_TAPS = ("down2", "block1", "block5")
"""Places with maps of at most 12 x 12 locations, for the methods whose places are CUT's."""


def make(name: str, seed: int = 0, **changes: Any) -> Method:
    torch.manual_seed(seed)
    settings = tiny_settings(name)
    if "num_queries" in settings:
        settings["num_queries"] = 1000  # every place of the maps, so that nothing hangs on which are drawn
    if name != "sincut" and hasattr(METHODS[name].Config, "temperature") and hasattr(METHODS[name].Config, "taps"):
        settings["taps"] = SMALL_TAPS
    method = METHODS[name](METHODS[name].Config(**settings, **changes)).double()
    for name, network in method.named_children():
        if name.startswith("projector"):  # without biases some places project to zero, whose direction any step decides
            for bias in (value for key, value in network.named_parameters() if key.endswith("bias")):
                nn.init.normal_(bias, std=0.1)
    method.prepare()
    for owner in (method, *method.children()):
        if isinstance(frozen := getattr(owner, "_frozen", None), Frozen):
            frozen.module.double()
        if isinstance(owner, ProjectedDiscriminator):
            owner.eval()  # no power iteration between two looks
    return method


def batch(seed: int = 0, size: int = 24) -> ImageBatch:
    """Dark waves along one axis -> bright ones along the other, with noise of their own; float64."""
    generator = torch.Generator().manual_seed(100 + seed)
    noise = 0.3 * (torch.rand(2, 2, 3, size, size, generator=generator, dtype=torch.float64) - 0.5)
    waves = 0.4 * torch.sin(torch.arange(size, dtype=torch.float64) * (0.5 + 0.1 * seed))
    source, target = noise[0] + waves - 0.3, noise[1] + waves[:, None] + 0.3
    return ImageBatch(source, target, image_seeds(seed, range(2)), torch.tensor([0, 1]), torch.tensor([1, 2]))


def seeded(cases: Collection[tuple[Any, ...]]) -> pytest.MarkDecorator:
    """Each case with each seed."""

    def named(case: tuple[Any, ...]) -> str:
        return "-".join("-".join(map(str, part.values())) if isinstance(part, dict) else part for part in case if part)

    return pytest.mark.parametrize(
        ("case", "seed"), [pytest.param(case, seed, id=f"{named(case)}-{seed}") for case in cases for seed in SEEDS]
    )


def take_steps(
    method: Method, images: ImageBatch, wanted: Callable[[Phase, str], bool], *, steps: int = 1, rate: float = 1e-10
) -> None:
    """Real steps of training in which only the ``wanted`` terms of the losses are there.

    A single small one follows the gradient so closely that the term falls by the first order of its Taylor series.
    """

    def reduced(phase: Phase) -> Phase:
        return dataclasses.replace(
            phase, loss=lambda outputs: {k: v for k, v in phase.loss(outputs).items() if wanted(phase, k)}
        )

    outputs = copy.deepcopy(method).forward_train(images)
    phases = method.phases
    method.phases = tuple(reduced(p) for p in phases if any(wanted(p, name) for name in p.loss(outputs)))
    assert method.phases
    optimizers = make_optimizers(method, OptimiserConfig(learning_rate=rate))
    set_learning_rate(optimizers, rate)
    for number in range(steps):
        training_step(method, optimizers, images, number=number)
    method.phases = phases


def of_discriminator(phase: Phase, term: str) -> bool:
    return phase.name.startswith("discriminator")


def translations(method: Method, images: ImageBatch) -> dict[str, Tensor]:
    """What each discriminator is to tell from its real images."""
    outputs = copy.deepcopy(method).forward_train(images)  # a copy: pools and counters stay as they are
    if hasattr(outputs, "ba"):
        made = {"discriminator_a": outputs.ba.translated, "discriminator_b": outputs.ab.translated}
    else:
        made = {"discriminator": outputs.translated}
    assert made.keys() == {name for name, _ in method.named_children() if name.startswith("discriminator")}
    return {name: each.detach() for name, each in made.items()}


@torch.no_grad()
def mean_score(method: Method, name: str, pictures: Tensor, images: ImageBatch) -> float:
    """Mean score that a discriminator gives, over scales where it has several."""
    several = [images.target_domains] if method.domains else []
    scores = getattr(method, name)(pictures, *several)
    if isinstance(scores, ProjectedScores):
        scores = [*scores.projected, *([] if scores.patch is None else [scores.patch])]
    return float(torch.stack([each.mean() for each in (scores if isinstance(scores, list) else [scores])]).mean())


def halfway(method: Any) -> None:
    """Let every score start where the loss pulls real and translated images apart with equal force."""
    middle = 0.5 if method.config.gan_mode == "lsgan" else 0.0
    for name, network in method.named_children():
        if name.startswith("discriminator"):
            biases = {
                key: bias for key, bias in network.named_parameters() if key.endswith("bias") and bias.numel() < 4
            }
            assert biases
            for bias in biases.values():
                nn.init.constant_(bias, middle)


PROJECTED = {"discriminator": "projected", "head_channels": 8, "augment_shift": 0.0, "augment_noise": 0.0}
GAMES = (
    [(name, {}) for name in METHODS]
    + [
        ("cut", PROJECTED),
        ("cut", {**PROJECTED, "discriminator": "projected_patch"}),
        ("cyclegan", PROJECTED),
        ("cut", {"generator": "light"}),
        ("cyclegan", {"generator": "light", **PROJECTED}),
        ("fsesim", PROJECTED),
        ("enco", {**PROJECTED, "generator": "light", "taps": ("stem", "block1", "block2")}),
        ("santa", PROJECTED),
    ]
    + [
        (name, {"gan_mode": mode})
        for name in ("cut", "cyclegan", "munit", "multi_domain_qs_attn")
        for mode in get_args(GanMode)
        if mode != "lsgan"
    ]
)
"""Every method, and every adversarial loss with each kind of discriminator."""


@seeded(GAMES)
def test_discriminators_alone_raise_real_and_lower_translated(case: tuple[str, dict[str, Any]], seed: int) -> None:
    """By their adversarial losses; penalties have their own tests."""
    method, images = make(case[0], seed, **case[1]), batch(seed)
    halfway(method)
    fakes = translations(method, images)
    reals = {name: images.source if name.endswith("_a") else images.target for name in fakes}
    before = {name: [mean_score(method, name, each[name], images) for each in (reals, fakes)] for name in fakes}
    others = {key: value.clone() for key, value in method.named_parameters() if not key.startswith("discriminator")}
    take_steps(method, images, lambda phase, term: term.startswith("discriminator"), steps=6, rate=1e-3)
    for name, (real, fake) in before.items():
        after_real, after_fake = (mean_score(method, name, each[name], images) for each in (reals, fakes))
        assert after_real - after_fake > real - fake, name
        if method.config.gan_mode != "wgangp":  # which has no opinion on where the scores lie
            assert after_real > real, name
            assert after_fake < fake, name
    assert all(torch.equal(value, others[key]) for key, value in method.named_parameters() if key in others)


@seeded(GAMES)
def test_the_adversarial_term_alone_raises_the_scores_of_translations(
    case: tuple[str, dict[str, Any]], seed: int
) -> None:
    method, images = make(case[0], seed, **case[1]), batch(seed)
    before = {name: mean_score(method, name, each, images) for name, each in translations(method, images).items()}
    kept = {key: value.clone() for key, value in method.named_parameters() if key.startswith("discriminator")}
    take_steps(method, images, lambda phase, term: term.startswith("adversarial"))
    for name, each in translations(method, images).items():
        assert mean_score(method, name, each, images) > before[name], name
    assert all(torch.equal(value, kept[key]) for key, value in method.named_parameters() if key in kept)


def place_probability(anchors_BND: Tensor, candidates_BMD: Tensor, temperature: float = 0.07) -> float:
    """How sure an anchor is of the candidate at its own place: the mean logarithm of its probability."""
    cosines = F.normalize(anchors_BND, dim=2) @ F.normalize(candidates_BMD, dim=2).transpose(1, 2)
    return float((cosines / temperature).softmax(dim=2).diagonal(dim1=1, dim2=2).log().mean())


def at_all_places(maps: list[Tensor]) -> list[Tensor]:
    """(B, C, H, W) -> (B, H W, C)."""
    return [each.flatten(2).transpose(1, 2) for each in maps]


def attended(method: Any, tap: str, features_BNC: Tensor, values_BNC: Tensor) -> Tensor:
    """``values`` routed by the attention that ``features`` pay each other, where a tap of the method does that."""
    options = method.selection(tap)
    if options["routing"] == "none":
        return values_BNC
    assert (options["routing"], options["attention"], options["temperature"]) == ("cross", "global", None)
    scale = {"dot": 1.0, "scaled": features_BNC.shape[2] ** -0.5}[options["similarity"]]
    return (features_BNC @ features_BNC.transpose(1, 2) * scale).softmax(dim=2) @ values_BNC


def same_place(
    now: Any, before: Any, inputs: tuple[list[Tensor], list[Tensor]], made: list[Tensor], keys: Any, queries: Any
) -> float:
    """Minus the log probability of the own place, mean over the taps.

    Args:
        now: The method.
        before: The method as it was.
        inputs: Encodings of the inputs by the method now and before.
        made: Encodings of the translations.
        keys: Projector of the inputs, as it was.
        queries: Projector of the translations.
    """
    total, taps = 0.0, now.config.taps
    among_all = now.config.negatives == "batch"
    for tap, new, old, translated in zip(taps, *(at_all_places(each) for each in (*inputs, made)), strict=True):
        candidates = keys(tap, attended(before, tap, old, old))
        anchors = queries(tap, attended(now, tap, new, translated))
        if among_all:
            anchors, candidates = anchors.flatten(0, 1)[None], candidates.flatten(0, 1)[None]
        total -= place_probability(anchors, candidates)
    return total / len(taps)


def mirrored(maps: Tensor, turned: list[bool]) -> Tensor:
    return torch.stack([each.flip(-1) if turn else each for each, turn in zip(maps, turned, strict=True)])


def distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().mean())


@torch.no_grad()
def measured(method: Any, images: ImageBatch, before: Any) -> dict[str, float]:
    """For each term but the adversarial ones, what training on it should lower, from the networks themselves.

    Where translations are to find their inputs, these are encoded by the method as it was ``before``: losses give them
    no gradient, so a step may move them anywhere.
    """
    x, y, name = images.source, images.target, type(method).__name__
    if name == "MUNIT":
        return _of_munit(method, images)
    if hasattr(method, "generator_ab"):
        return _of_two_ways(method, images, before)
    if name == "SANTA":
        outputs = method.forward_train(images)
        g = method.generator
        return {
            "reconstruction": distance(outputs.reconstructed, x),
            "identity": distance(method.forward_train(images).identical, y),
            "latent": float(torch.stack([g.encode(each, [g.last_tap])[0].square().mean() for each in (x, y)]).mean()),
            "path": sum(float((a - b).square().mean()) for a, b in zip(outputs.later, outputs.earlier, strict=True)),
        }
    if name in ("FSeSim", "LSeSim"):
        return _of_self_similarity(method, images)
    made = method.translate(x)
    if name == "EnCo":
        taps, opposite = method.config.taps, method.config.decoder_taps()
        decoded = at_all_places(method.generator.translate_and_encode(x, opposite)[1])
        encoded = at_all_places(before.generator.encode(x, taps))
        agreements = [
            F.cosine_similarity(
                method.projector(tap, one, predict=True), before.projector(tap, other, predict=False), dim=2
            ).mean()
            for tap, one, other in zip(taps, decoded, encoded, strict=True)
        ]
        return {"content": -float(torch.stack(agreements).mean()), "identity": distance(method.translate(y), y)}
    found = {}
    for term, given, into in (("contrastive", x, images), ("identity", y, images)):
        turned = [False] * len(given)
        if getattr(method.config, "flip_equivariance", False):  # then mirrored inputs are held against the plain ones
            turned = coin_flips(derive_seeds(images.seeds, -1))
        seen = mirrored(given, turned)
        made = method.generator(seen, into.target_domains) if method.domains else method.translate(seen)
        taps = method.config.taps
        inputs = method.generator.encode(given, taps), before.generator.encode(given, taps)
        features = [mirrored(each, turned) for each in method.generator.encode(made, taps)]
        found[term] = same_place(method, before, inputs, features, before.projector, method.projector)
        if term == "contrastive" and name == "HnegSRC":
            found["relation"] = _relation_gap(method, before, (inputs[1], features))
    if name == "SinCUT":
        found["pixel_identity"] = distance(method.translate(y), y)
    if not method.config.identity_weight:
        del found["identity"]
    return found


def _relation_gap(method: Any, before: Any, encodings: tuple[list[Tensor], list[Tensor]]) -> float:
    """Kullback-Leibler divergence of the relations between the translation's places from those between the input's."""
    gaps = []
    for tap, *both in zip(method.config.taps, *(at_all_places(each) for each in encodings), strict=True):
        given, made = (by.projector(tap, each) for by, each in zip((before, method), both, strict=True))
        given, made = ((each @ each.transpose(1, 2)).softmax(dim=2) for each in (given, made))
        gaps.append((given * (given / made).log()).mean())
    return float(torch.stack(gaps).mean())


def _of_two_ways(method: Any, images: ImageBatch, before: Any) -> dict[str, float]:
    g, taps = {"ab": method.generator_ab, "ba": method.generator_ba}, method.taps
    given = {"ab": images.source, "ba": images.target}
    found = {}
    for way, back in (("ab", "ba"), ("ba", "ab")):
        made = g[way](given[way])
        found[f"identity_{way}"] = distance(g[way](given[back]), given[back])
        if getattr(method.config, "cycle_weight", 0):
            found[f"cycle_{way}"] = distance(g[back](made), given[way])
        if not taps:
            continue
        if hasattr(method, "projector_ab"):
            reader, keys, queries = g[way], *(getattr(each, f"projector_{way}") for each in (before, method))
        else:
            reader, (domain, other) = g[back], way
            keys, queries = getattr(before, f"projector_{domain}"), getattr(method, f"projector_{other}")
        inputs = g[way].encode(given[way], taps), getattr(before, f"generator_{way}").encode(given[way], taps)
        found[f"contrastive_{way}"] = same_place(method, before, inputs, reader.encode(made, taps), keys, queries)
    return found


def _of_munit(method: Any, images: ImageBatch) -> dict[str, float]:
    found = {}
    draws = method.forward_train(images)
    for here, there, given, way in (("a", "b", images.source, "ab"), ("b", "a", images.target, "ba")):
        encoder, decoder = getattr(method, f"content_encoder_{here}"), getattr(method, f"decoder_{here}")
        content, drawn = encoder(given), getattr(draws, way).drawn
        found[f"reconstruction_{here}"] = distance(
            decoder(content, getattr(method, f"style_encoder_{here}")(given)), given
        )
        made = getattr(method, f"decoder_{there}")(content, drawn)
        again = getattr(method, f"content_encoder_{there}")(made)
        found[f"content_{way}"] = distance(again, content)
        found[f"style_{way}"] = distance(getattr(method, f"style_encoder_{there}")(made), drawn)
        if method.config.cycle_weight:
            cycled = decoder(again, getattr(method, f"style_encoder_{here}")(given))
            found[f"cycle_{way}"] = distance(cycled, given)
    return found


def _of_self_similarity(method: Any, images: ImageBatch) -> dict[str, float]:
    """Cosines between places, of one image and of its translation; for LSeSim also who is found by the maps."""
    outputs, gaps = method.forward_train(images), []
    features = [method.features(each) for each in (images.source, method.translate(images.source))]
    for layer, *both in zip(method.config.layers, *features, strict=True):
        places = at_all_places([method.project(layer, each) for each in both])
        directions = (F.normalize(each - each.mean(dim=1, keepdim=True), dim=2) for each in places)
        given, made = (each @ each.transpose(1, 2) for each in directions)
        gaps.append(1 - F.cosine_similarity(given, made, dim=2).mean())
    found = {"structure": float(torch.stack(gaps).mean())}
    if hasattr(outputs, "recoloured_features"):
        kinds = ("source", "translated", "other", "recoloured", "recoloured_other")
        maps = {kind: method.maps(getattr(outputs, f"{kind}_features"), outputs.locations) for kind in kinds}
        found["contrastive"] = -sum(
            place_probability(anchors, torch.cat([positives, negatives], dim=1))
            for positive, negative in (("translated", "other"), ("recoloured", "recoloured_other"))
            for anchors, positives, negatives in zip(maps["source"], maps[positive], maps[negative], strict=True)
        )
    return found


def terms_of(name: str, **changes: Any) -> list[str]:
    """Names of a method's terms that are neither a discriminator's nor adversarial."""
    method = make(name, **changes)
    outputs = method.forward_train(batch())
    phases = [phase for phase in method.phases if not of_discriminator(phase, "")]
    return [term for phase in phases for term in phase.loss(outputs) if not term.startswith("adversarial")]


TERMS = [(name, {}, term) for name in METHODS for term in terms_of(name)] + [
    ("munit", {"cycle_weight": 1.0}, term) for term in ("cycle_ab", "cycle_ba")
]


@pytest.mark.parametrize(("name", "changes"), [(name, {}) for name in METHODS] + [("munit", {"cycle_weight": 1.0})])
def test_every_term_has_its_measure(name: str, changes: dict[str, Any]) -> None:
    method = make(name, **changes)
    assert set(measured(method, batch(), method)) == set(terms_of(name, **changes))


@seeded(TERMS)
def test_a_term_alone_moves_what_it_is_about(case: tuple[str, dict[str, Any], str], seed: int) -> None:
    name, changes, term = case
    if name == "enco":
        changes = {**changes, "sampling": "random"}  # which takes every place here, not some of them twice
    method, images = make(name, seed, **changes), batch(seed)
    before = copy.deepcopy(method)
    take_steps(method, images, lambda phase, each: each == term)
    changed, unchanged = (measured(copy.deepcopy(each), images, before)[term] for each in (method, before))
    assert changed < unchanged


@pytest.mark.parametrize("name", ["cut", "sincut"])
def test_the_contrast_of_the_inputs_is_their_own(name: str) -> None:
    """With negatives from the batch, L_X is the same with and without L_Y: each has its own minibatch."""
    values = []
    for weight in (1.0, 0.0):
        method = make(name, identity_weight=weight, contrastive_weight=1.0, negatives="batch")
        terms: Any = method.phases[1].loss(method.forward_train(batch()))
        values.append(terms["contrastive"].item() * (2 if weight else 1))  # half of each counts where there are two
    assert values[0] == pytest.approx(values[1], rel=1e-12)
