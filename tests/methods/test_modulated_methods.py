"""MoNCE and Hneg-SRC: their losses of a fixed step by hand, what makes them CUT, and the curriculum of the second."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from methods.golden import read
from tiny import tiny_run, tiny_settings
from unpaired.engine.acceleration import RecordedSteps
from unpaired.engine.step import make_optimizers, training_step
from unpaired.errors import ConfigError
from unpaired.methods import METHODS, ImageBatch, OptimiserConfig, image_seeds
from unpaired.methods.hneg_src import HnegSRC, HnegSRCConfig
from unpaired.methods.monce import MoNCEConfig
from unpaired.training import train

NAMES = ("monce", "hneg_src")
ENDS = {"relation_temperature": 4.0, "final_relation_temperature": 0.5, "optimiser": OptimiserConfig(epochs=8)}


def make(name: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    return METHODS[name](METHODS[name].Config(**{**tiny_settings(name), **changes}))


def batch(images: int = 2, first: int = 0, progress: float = 0.0) -> ImageBatch:
    source, target = torch.rand(2, 8, 3, 32, 32, generator=torch.Generator().manual_seed(3)) * 2 - 1
    chosen, done = slice(first, first + images), torch.tensor(progress, dtype=torch.float64)
    return ImageBatch(source[chosen], target[chosen], image_seeds(0, range(first, first + images)), progress=done)


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
    assert hneg.optimiser.epochs == 400


def rows(features_ND: Tensor) -> list[list[float]]:
    return features_ND.detach().double().tolist()


def products(one_ND: Tensor, other_ND: Tensor) -> list[list[float]]:
    return [[sum(a * b for a, b in zip(x, y, strict=True)) for y in rows(other_ND)] for x in rows(one_ND)]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def modulated(anchors_ND: Tensor, positives_ND: Tensor, beta: float, q: float) -> float:
    """MoNCE of one image and tap: the plan by 50 divisions of rows and columns."""
    similarity = products(anchors_ND, positives_ND)
    places = range(len(similarity))
    plan = [[math.exp((-10 if i == j else similarity[i][j]) / beta) for j in places] for i in places]
    for _ in range(50):
        plan = [[value / sum(row) for value in row] for row in plan]
        totals = [sum(plan[i][j] for i in places) for j in places]
        plan = [[plan[i][j] / totals[j] for j in places] for i in places]
    found = []
    for i in places:
        weights = [q * (len(places) - 1) * plan[i][j] + 1e-8 for j in places]
        forces = [weights[j] * math.exp(similarity[i][j] / 0.07) for j in places if j != i]
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
    """In the third of eight epochs the curriculum is at 3 / 8."""
    method = make("hneg_src", **ENDS)
    outputs = method.forward_train(batch(progress=2 / 8))
    temperatures = [4.0 - 3.5 * 3 / 8] * 2
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


def test_the_curriculum_is_the_published_one_over_the_length_of_the_run() -> None:
    config = HnegSRCConfig()
    for epoch, expected in read("hneg_src")["relation_temperature_per_epoch"].items():
        for within in (0.0, 0.999):
            progress = torch.tensor((int(epoch) - 1 + within) / 400, dtype=torch.float64)
            assert config.relation_temperature_at(progress).item() == pytest.approx(expected, rel=1e-12)
    short = HnegSRCConfig(**ENDS)
    found = [short.relation_temperature_at(torch.tensor(k / 800, dtype=torch.float64)).item() for k in range(801)]
    assert found[::100] == pytest.approx([4.0 - 3.5 * min(e + 1, 8) / 8 for e in range(9)])
    assert len(set(found)) == 8


def test_a_run_passes_its_progress_to_the_losses(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the length, the batch size and an interruption: the share of the run that is done."""
    seen: list[float] = []
    plain = HnegSRC.forward_train

    def look(self: HnegSRC, images: ImageBatch) -> Any:
        seen.append(float(images.progress))
        return plain(self, images)

    monkeypatch.setattr(HnegSRC, "forward_train", look)
    train(tiny_run(dataset, "hneg_src", images=6, batch_size=2, stop_after=4), tmp_path / "run", quiet=True)
    train(tiny_run(dataset, "hneg_src", images=6, batch_size=2), tmp_path / "run", quiet=True)
    assert seen == pytest.approx([0.0, 2 / 6, 4 / 6])


def test_a_replayed_step_reads_the_progress() -> None:
    """Nothing of the curriculum is decided on the host, so a recorded step follows it."""
    plain, recorded = make("hneg_src", **ENDS), make("hneg_src", **ENDS)
    assert not recorded.not_recordable
    assert not recorded.one_process_only

    def later(step: Any) -> Any:
        return step  # recording computes nothing; a replay runs it

    optimizers = make_optimizers(plain, plain.config.optimiser)
    take = RecordedSteps(recorded, make_optimizers(recorded, plain.config.optimiser), eager_steps=1, record=later)
    for number in range(3):
        images = batch(2, first=2 * number, progress=number / 3)
        expected = training_step(plain, optimizers, images, number=number)
        found = take(images, number=number)
        assert all(torch.equal(found[term], value) for term, value in expected.items())


@pytest.mark.parametrize(
    ("config", "changes", "words"),
    [
        (MoNCEConfig, {"transport_temperature": 0.01}, "transport_temperature must be at least 0.05"),
    ],
)
def test_impossible_settings_are_refused_by_name(config: Any, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        config(**changes)
