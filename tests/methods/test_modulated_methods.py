"""MoNCE and Hneg-SRC: their losses of a fixed step by hand, what makes them CUT, and the curriculum of the second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from methods.golden import read
from methods.steps import batch, losses, make
from tiny import tiny_run
from unpaired.engine.acceleration import RecordedSteps
from unpaired.engine.step import make_optimizers, training_step
from unpaired.methods import ImageBatch, OptimiserConfig
from unpaired.methods.hneg_src import HnegSRC, HnegSRCConfig
from unpaired.training import train

ENDS = {"relation_temperature": 4.0, "final_relation_temperature": 0.5, "optimiser": OptimiserConfig(epochs=8)}


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
    outputs = make("hneg_src", **ENDS).forward_train(batch(progress=2 / 8))
    assert outputs.relation_temperatures.tolist() == pytest.approx([4.0 - 3.5 * 3 / 8] * 4)


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
