"""MoNCE and Hneg-SRC: their losses of a fixed step by hand, what makes them CUT, and the curriculum of the second."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tiny import tiny_settings
from unpaired.engine.acceleration import RecordedSteps
from unpaired.engine.step import make_optimizers, settle_optimizers, training_step
from unpaired.errors import ConfigError
from unpaired.methods import METHODS, ImageBatch, image_seeds
from unpaired.methods.hneg_src import HnegSRC, HnegSRCConfig
from unpaired.methods.monce import MoNCEConfig

NAMES = ("monce", "hneg_src")
ENDS = {"relation_temperature": 4.0, "final_relation_temperature": 0.5, "curriculum_images": 8}


def make(name: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    return METHODS[name](METHODS[name].Config(**{**tiny_settings(name), **changes}))


def batch(images: int = 2, first: int = 0) -> ImageBatch:
    source, target = torch.rand(2, 8, 3, 32, 32, generator=torch.Generator().manual_seed(3)) * 2 - 1
    chosen = slice(first, first + images)
    return ImageBatch(source[chosen], target[chosen], image_seeds(0, range(first, first + images)))


def losses(method: Any, images: ImageBatch) -> dict[str, Tensor]:
    outputs = method.forward_train(images)
    return {name: term for phase in method.phases for name, term in phase.loss(outputs).items()}


def test_parameters_at_the_defaults_are_those_of_cut() -> None:
    """Both change the loss alone. A projection is C -> 256 -> 256 with biases; taps have 3, 128, 256, 256, 256."""
    generator, discriminator = 11_378_179, 2_764_737  # test_two_way.py adds them up
    projector = sum((c * 256 + 256) + (256 * 256 + 256) for c in (3, 128, 256, 256, 256))
    with torch.device("meta"):
        methods = [METHODS[name](METHODS[name].Config()) for name in ("cut", *NAMES)]
    for method in methods:
        counted = {n: sum(p.numel() for p in x.parameters()) for n, x in method.named_children()}
        assert counted == {"generator": generator, "discriminator": discriminator, "pool": 0, "projector": projector}


def test_the_defaults_are_the_published_ones() -> None:
    monce, hneg = MoNCEConfig(), HnegSRCConfig()
    assert (monce.transport_temperature, monce.negative_weight, monce.transport_iterations) == (1.0, 1.0, 50)
    assert (monce.contrastive_weight, monce.identity_weight, monce.num_queries, monce.temperature) == (1, 1, 256, 0.07)
    assert (hneg.contrastive_weight, hneg.identity_weight, hneg.relation_weight) == (0.1, 0.1, 0.05)
    assert (hneg.relation_temperature, hneg.final_relation_temperature) == (50.0, 10.0)
    assert hneg.curriculum_images == 400 * 1334  # horse2zebra: 1,067 horses, 1,334 zebras


def rows(features_ND: Tensor) -> list[list[float]]:
    return features_ND.detach().double().tolist()


def products(one_ND: Tensor, other_ND: Tensor) -> list[list[float]]:
    return [[sum(a * b for a, b in zip(x, y, strict=True)) for y in rows(other_ND)] for x in rows(one_ND)]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def modulated(anchors_ND: Tensor, positives_ND: Tensor, beta: float, q: float) -> float:
    """MoNCE of one image and tap: the plan by 50 divisions of columns and rows."""
    similarity = products(anchors_ND, positives_ND)
    places = range(len(similarity))
    plan = [[0.0 if i == j else math.exp(similarity[i][j] / beta) for j in places] for i in places]
    for _ in range(50):
        totals = [sum(plan[i][j] for i in places) for j in places]
        plan = [[plan[i][j] / totals[j] for j in places] for i in places]
        plan = [[value / sum(row) for value in row] for row in plan]
    found = []
    for i in places:
        forces = [q * (len(places) - 1) * plan[i][j] * math.exp(similarity[i][j] / 0.07) for j in places]
        found.append(math.log(1 + sum(forces) / math.exp(similarity[i][i] / 0.07)))
    return mean(found)


def hard(anchors_ND: Tensor, positives_ND: Tensor, relation_temperature: float) -> float:
    """The published hDCE of one image and tap."""
    similarity, relations = products(anchors_ND, positives_ND), products(positives_ND, positives_ND)
    found = []
    for i, row in enumerate(similarity):
        others = [j for j in range(len(row)) if j != i]
        hardest = max(relations[i][j] for j in others)
        weights = {j: math.exp((relations[i][j] - hardest) / relation_temperature) for j in others}
        found.append(math.log(sum(math.exp(weights[j] * row[j] / 0.07) for j in others)) - row[i] / 0.07)
    return mean(found)


def changed_relations(anchors_ND: Tensor, positives_ND: Tensor) -> float:
    """SRC of one image and tap."""
    total = 0.0
    for made, given in zip(products(anchors_ND, anchors_ND), products(positives_ND, positives_ND), strict=True):
        q, p = ([math.exp(s) / sum(map(math.exp, row)) for s in row] for row in (made, given))
        for one, other in ((p, q), (q, p)):
            total += sum(a * math.log(2 * a / (a + b)) for a, b in zip(one, other, strict=True)) / 2
    return total


def test_a_step_of_monce_by_hand() -> None:
    method = make("monce", transport_temperature=0.2, negative_weight=1.5, contrastive_weight=3.0)
    outputs = method.forward_train(batch())
    terms = method.generator_loss(outputs)
    per_image = [
        mean([modulated(pair.anchors[i], pair.positives[i], 0.2, 1.5) for pair in method.pairs(outputs)])
        for i in range(4)
    ]
    assert len(method.pairs(outputs)) == 5
    assert terms["contrastive"].item() == pytest.approx(0.5 * 3.0 * mean(per_image[:2]), rel=1e-4)
    assert terms["identity"].item() == pytest.approx(0.5 * mean(per_image[2:]), rel=1e-4)
    scores = rows(method.discriminator(outputs.translated).flatten(1))
    assert terms["adversarial"].item() == pytest.approx(mean([(s - 1) ** 2 for row in scores for s in row]), rel=1e-5)


def test_a_step_of_hneg_src_by_hand() -> None:
    """The second step of two images, where images 2 and 3 of 8 stand at a quarter and 3/8 of the curriculum."""
    method = make("hneg_src", **ENDS)
    method.forward_train(batch())
    outputs = method.forward_train(batch(first=2))
    temperatures = [4.0 - 3.5 * part for part in (2 / 8, 3 / 8)]
    assert outputs.relation_temperatures.tolist() == pytest.approx(temperatures * 2)
    terms, pairs = method.generator_loss(outputs), method.pairs(outputs)
    contrast = [
        mean([hard(pair.anchors[i], pair.positives[i], temperatures[i % 2]) for pair in pairs]) for i in range(4)
    ]
    relation = [mean([changed_relations(pair.anchors[i], pair.positives[i]) for pair in pairs]) for i in range(2)]
    assert terms["contrastive"].item() == pytest.approx(0.5 * 0.1 * mean(contrast[:2]), rel=1e-4)
    assert terms["identity"].item() == pytest.approx(0.5 * 0.1 * mean(contrast[2:]), rel=1e-4)
    assert terms["relation"].item() == pytest.approx(0.05 * mean(relation), rel=1e-3)
    assert terms.keys() == {"adversarial", "contrastive", "identity", "relation"}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("monce", {"transport_temperature": 1e9}),
        (
            "hneg_src",
            {"mining": "none", "decoupled": False, "relation_weight": 0.0, "contrastive_weight": 1.0,
             "identity_weight": 1.0},
        ),
    ],
)  # fmt: skip
def test_without_what_they_add_they_are_cut(name: str, changes: dict[str, Any]) -> None:
    plain, reduced = losses(make("cut"), batch()), losses(make(name, **changes), batch())
    assert plain.keys() == reduced.keys()
    for term, value in plain.items():
        torch.testing.assert_close(reduced[term], value, rtol=1e-5, atol=1e-6)


def test_features_are_projected_once_for_both_losses() -> None:
    method = make("hneg_src")
    outputs = method.forward_train(batch())
    calls = []
    method.projector.register_forward_hook(lambda module, given, made: calls.append(given[0]))
    method.generator_loss(outputs)
    assert sorted(calls) == sorted(2 * method.config.taps)  # anchors and positives of each tap


def test_the_curriculum_goes_from_start_to_end_in_400_stages() -> None:
    method = make("hneg_src", curriculum_images=4000)
    found = method.relation_temperatures(5000)
    for image, expected in ((0, 50.0), (9, 50.0), (10, 49.9), (2000, 30.0), (3999, 10.1), (4000, 10.0), (4999, 10.0)):
        assert found[image].item() == pytest.approx(expected), image


def test_the_curriculum_counts_images_that_are_learned_from_and_no_others() -> None:
    method = make("hneg_src", **ENDS)
    method.forward_train(batch(3))
    with torch.no_grad():
        method.forward_train(batch(2))
    method.eval()
    method.forward_train(batch(2))
    method.translate(batch().source)
    assert method.images_seen.item() == 3
    assert method.images_seen.dtype == torch.int64
    whole, parts = make("hneg_src", **ENDS), make("hneg_src", **ENDS)
    together = whole.forward_train(batch(6)).relation_temperatures[:6]
    apart = [parts.forward_train(batch(2, first)).relation_temperatures[:2] for first in (0, 2, 4)]
    assert torch.equal(together, torch.cat(apart))
    assert together.unique().numel() == 6  # each image has its own place


def test_a_resumed_run_goes_on_at_its_place_in_the_curriculum() -> None:
    def steps(method: Any, optimizers: Any, numbers: range) -> list[float]:
        found = []
        for number in numbers:
            terms = training_step(method, optimizers, batch(2, first=2 * number), number=number)
            found.append(terms["contrastive"].item())
        return found

    method = make("hneg_src", **ENDS)
    optimizers = make_optimizers(method, method.config.optimiser)
    steps(method, optimizers, range(2))
    kept = io.BytesIO()
    torch.save([method.state_dict(), {key: value.state_dict() for key, value in optimizers.items()}], kept)
    expected = steps(method, optimizers, range(2, 4))

    resumed = make("hneg_src", **ENDS)
    again = make_optimizers(resumed, resumed.config.optimiser)
    kept.seek(0)
    state, optimizer_states = torch.load(kept, weights_only=True)
    resumed.load_state_dict(state)
    for key, value in optimizer_states.items():
        again[key].load_state_dict(value)
    settle_optimizers(again)
    assert steps(resumed, again, range(2, 4)) == expected
    pairs = zip([*method.parameters(), *method.buffers()], [*resumed.parameters(), *resumed.buffers()], strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)

    forgetful = make("hneg_src", **ENDS)
    forgetful.load_state_dict({**state, "images_seen": torch.zeros((), dtype=torch.int64)})
    assert steps(forgetful, make_optimizers(forgetful, forgetful.config.optimiser), range(2, 3)) != expected[:1]


def test_a_replayed_step_counts_on() -> None:
    """Nothing of the curriculum is decided on the host, so a recorded step reads the count and advances it."""
    plain, recorded = make("hneg_src", **ENDS), make("hneg_src", **ENDS)
    assert not recorded.host_decides

    def later(step: Any) -> Any:
        return step  # recording computes nothing; a replay runs it

    optimizers = make_optimizers(plain, plain.config.optimiser)
    take = RecordedSteps(recorded, make_optimizers(recorded, plain.config.optimiser), eager_steps=1, record=later)
    for number in range(3):
        expected = training_step(plain, optimizers, batch(2, first=2 * number), number=number)
        found = take(batch(2, first=2 * number), number=number)
        assert all(torch.equal(found[term], value) for term, value in expected.items())
    assert recorded.images_seen.item() == plain.images_seen.item() == 6


def test_only_a_curriculum_keeps_it_in_one_process() -> None:
    assert make("hneg_src").one_process_only
    assert not make("hneg_src", final_relation_temperature=50.0).one_process_only
    assert not make("hneg_src", mining="none").one_process_only
    assert isinstance(make("hneg_src"), HnegSRC)


@pytest.mark.parametrize(
    ("config", "changes", "words"),
    [
        (MoNCEConfig, {"transport_temperature": 0.01}, "transport_temperature must be at least 0.05"),
        (MoNCEConfig, {"negative_weight": 0.0}, "negative_weight must be above 0"),
        (MoNCEConfig, {"transport_iterations": 0}, "transport_iterations must be at least 1"),
        (HnegSRCConfig, {"relation_weight": -1.0}, "relation_weight must be finite and not negative"),
        (HnegSRCConfig, {"relation_temperature": 0.0}, "relation_temperature must be above 0"),
        (HnegSRCConfig, {"final_relation_temperature": float("inf")}, "final_relation_temperature must be above 0"),
        (HnegSRCConfig, {"curriculum_images": 0}, "curriculum_images must be at least 1"),
        (HnegSRCConfig, {"temperature": 0.0}, "temperature must be above 0"),
    ],
)
def test_impossible_settings_are_refused_by_name(config: Any, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        config(**changes)
