"""``--extend-to``: a run goes on past the length that it was planned for."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_training import assert_same, final_state

from tiny import tiny_run
from unpaired.config import load_yaml
from unpaired.data import SampleStream
from unpaired.errors import ConfigError
from unpaired.inference.initial import InitialWeights
from unpaired.length import Extension, TrainingLength
from unpaired.methods import METHODS, ImageBatch
from unpaired.reporting.report import runs_table
from unpaired.reporting.rows import group_runs
from unpaired.reporting.run_folders import read_runs
from unpaired.studio.live import read_progress
from unpaired.training import RunConfig, train


def rates(run: Path) -> list[float]:
    return [json.loads(line)["learning_rate"] for line in (run / "log.jsonl").read_text().splitlines()]


def run_of(dataset: Path, **changes: Any) -> RunConfig:
    return tiny_run(dataset, "cut", **changes)


def test_the_length_at_each_sample() -> None:
    length = TrainingLength(6).extended(10, at=4).extended(20, at=10)
    assert [length.total_at(sample) for sample in (0, 3, 4, 9, 10, 19)] == [6, 6, 10, 10, 20, 20]
    assert length.progress(3) == 0.5
    assert length.progress(5) == 0.5
    assert length.total == 20
    assert length.extended(20, at=15) is length
    for to in (10, 19):
        with pytest.raises(ConfigError, match="has been extended to 20 images already"):
            length.extended(to, at=15)
    with pytest.raises(ConfigError, match="trains for 6 images already"):
        TrainingLength(6).extended(6, at=6)


def test_a_later_extension_after_a_fall_back_counts_from_its_own_sample() -> None:
    """The second was asked for when damaged checkpoints had thrown the run back before the first."""
    length = TrainingLength(6, (Extension(6, 10), Extension(4, 20)))
    assert [length.total_at(sample) for sample in (3, 4, 6, 19)] == [6, 20, 20, 20]


@pytest.mark.parametrize(
    ("start", "stop", "batch", "expected"),
    [
        (0, 7, 2, [(0, 5), (5, 7)]),
        (0, 3, 2, [(0, 4)]),
        (4, 5, 2, [(4, 5)]),
        (5, 12, 2, [(5, 12)]),
        (5, 6, 4, [(5, 9)]),
        (12, 12, 2, []),
        (9, 8, 2, []),
    ],
)
def test_steps_end_where_the_run_was_extended(
    start: int, stop: int, batch: int, expected: list[tuple[int, int]]
) -> None:
    assert TrainingLength(5).extended(12, at=5).ranges(start, stop, batch) == expected


def test_a_finished_run_goes_on_at_the_rate_of_the_longer_schedule(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    train(run_of(dataset, images=4), out, quiet=True)
    before = final_state(out)
    result = train(run_of(dataset, images=4), out, extend_to=10)
    assert (result.images_seen, result.finished) == (10, True)
    full = 2e-4
    constant_then_falling = [full, full, full, full / 2]  # of 4 images: constant for 2, zero after 4
    of_ten = [full * min(1.0, (10 - seen) / 5) for seen in range(4, 10)]
    assert rates(out) == pytest.approx([*constant_then_falling, *of_ten])
    assert (
        "Extended from 4 to 10 images after 4: from here on the schedule is that of a run of 10 images. The learning "
        "rate goes from 0 to 0.0002, stays there until image 5 and falls to 0 at the end." in capsys.readouterr().err
    )
    steps = {float(one["step"]) for one in final_state(out)["state"]["optimizer_generator"]["state"].values()}
    assert steps == {10.0}, "optimizers go on"
    assert before["images_seen"] == 4
    assert load_yaml(out / "run.yaml")["extensions"] == [{"at": 4, "to": 10}]
    assert load_yaml(out / "run.yaml")["training"]["images"] == 4
    assert RunConfig.load(out / "run.yaml").images == 10


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("planned", [3, 5])
def test_an_extended_run_resumes_to_the_bit(planned: int, batch_size: int, dataset: Path, tmp_path: Path) -> None:
    whole, parts, again = (tmp_path / name for name in ("whole", "parts", "again"))
    config = run_of(dataset, images=planned, batch_size=batch_size)
    train(config, whole, quiet=True)
    shutil.copytree(whole, parts)
    train(config, whole, extend_to=9, quiet=True)
    stopped = replace(config, training=replace(config.training, stop_after=6))
    assert not train(stopped, parts, extend_to=9, quiet=True).finished
    assert train(config, parts, extend_to=9, quiet=True).finished
    assert_same(final_state(whole), final_state(parts))
    assert rates(whole) == rates(parts)
    train(RunConfig.load(whole / "run.yaml"), again, quiet=True)  # all of it once more, from its run file
    assert_same(final_state(whole), final_state(again))


def test_a_run_thrown_back_before_its_extension_takes_the_same_steps(dataset: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    config = run_of(dataset, images=5, batch_size=2)
    train(config, whole, quiet=True)
    shutil.copytree(whole, parts)
    train(config, whole, extend_to=9, quiet=True)

    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unpaired.training.fit", crash)
        with pytest.raises(KeyboardInterrupt):
            train(config, parts, extend_to=9, quiet=True)
    newest = parts / "checkpoints" / "checkpoint_000000005.pt"
    newest.write_bytes(newest.read_bytes()[:-50])
    train(config, parts, extend_to=9, quiet=True)
    assert_same(final_state(whole), final_state(parts))
    assert rates(whole) == rates(parts)


def test_an_unfinished_run_is_extended_from_where_it_stands(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    train(run_of(dataset, stop_after=2), out, quiet=True)
    train(run_of(dataset), out, extend_to=8)
    assert "The learning rate is 0.0002, stays there until image 4 and falls to 0" in capsys.readouterr().err
    assert load_yaml(out / "run.yaml")["extensions"] == [{"at": 2, "to": 8}]
    assert rates(out) == pytest.approx([2e-4 * min(1.0, (8 - seen) / 4) for seen in range(8)])


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ("linear", "is 0.0002, stays there until image 4 and falls to 0 at the end."),
        ("cosine", "is 0.0002, stays there until image 4 and falls to 0 at the end."),
        ("halving", "goes from 2.5e-05 to 5e-05 and falls to 1.95e-07 at the end."),
    ],
)
def test_the_words_fit_the_schedule(
    schedule: str, words: str, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = run_of(dataset, stop_after=2)
    config = replace(config, model=replace(config.model, optimiser=replace(config.model.optimiser, schedule=schedule)))
    train(config, tmp_path / "run", quiet=True)
    train(replace(config, training=replace(config.training, stop_after=3)), tmp_path / "run", extend_to=8)
    assert f"The learning rate {words}" in capsys.readouterr().err


def test_a_cosine_schedule_is_followed_over_an_extension(dataset: Path, tmp_path: Path) -> None:
    config = run_of(dataset, images=4)
    optimiser = replace(config.model.optimiser, schedule="cosine")
    config = replace(config, model=replace(config.model, optimiser=optimiser))
    train(config, tmp_path / "run", quiet=True)
    train(config, tmp_path / "run", extend_to=8, quiet=True)
    progress = [*(seen / 4 for seen in range(4)), *(seen / 8 for seen in range(4, 8))]
    falls = [max(0.0, 2 * done - 1) for done in progress]
    assert rates(tmp_path / "run") == pytest.approx([2e-4 * (1 + math.cos(math.pi * each)) / 2 for each in falls])


def test_the_first_command_goes_on_with_an_extended_run_and_says_so(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, whole = tmp_path / "run", tmp_path / "whole"
    for folder in (out, whole):
        train(run_of(dataset, images=4), folder, quiet=True)
    train(run_of(dataset, images=4, stop_after=6), out, extend_to=8, quiet=True)
    train(run_of(dataset, images=4), whole, extend_to=8, quiet=True)
    result = train(run_of(dataset, images=4), out)
    assert (result.images_seen, result.finished) == (8, True)
    assert "This run was extended to 8 images when it had seen 4." in capsys.readouterr().err
    assert_same(final_state(whole), final_state(out))
    train(run_of(dataset, images=4), out)
    assert "Finished after 8 of 8 images" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("first", "changes", "to", "words"),
    [
        (True, {}, 6, "trains for 6 images already"),
        (True, {"images": 9}, None, r"training.images was 6, now 9\).*to train it further, add --extend-to"),
        (False, {}, 9, "holds no run to extend; give its length with --images"),
    ],
)
def test_what_cannot_be_is_said(
    first: bool, changes: Mapping[str, Any], to: int | None, words: str, dataset: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    if first:
        train(run_of(dataset), out, quiet=True)
    with pytest.raises(ConfigError, match=words):
        train(run_of(dataset, **changes), out, extend_to=to, quiet=True)
    assert not (out / "run.yaml").exists() or "extensions" not in load_yaml(out / "run.yaml")


def test_pages_and_tables_know_the_new_length(dataset: Path, tmp_path: Path) -> None:
    plain, extended, begun = (tmp_path / name for name in ("plain", "extended", "begun"))
    for folder in (plain, extended):
        train(run_of(dataset, images=4), folder, quiet=True)
    train(run_of(dataset, images=4, stop_after=6), extended, extend_to=8, quiet=True)
    train(replace(run_of(dataset, images=4), init=InitialWeights(str(plain))), begun, quiet=True)
    runs = read_runs([plain, extended, begun])
    assert [read_progress(run).total for run in runs] == [4, 8, 4]
    page = str(runs_table(runs, "last"))
    assert "6 of 8, extended to 8 at 4" in page
    assert "generator, discriminator, projector (ema) of" in page
    sha256 = RunConfig.load(begun / "run.yaml").init.sha256  # type: ignore[union-attr]
    labels = [group.label for group in group_runs([plain, extended, begun])]
    assert labels == ["CUT", "CUT, extended at 4 to 8", f"CUT, begun with plain {str(sha256)[:6]}"]


@pytest.mark.parametrize("method", ["cut", "enco", "hneg_src"])
def test_crops_and_losses_follow_the_longer_schedule(
    method: str, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Crops end where the rate begins to fall: at 3 of 6 images, and, once it is 16 of which 6 are seen, at 8 again."""
    changes: dict[str, Any] = {"images": 6, "load_size": 40, "load_size_until": "decay"}
    progress: list[float] = []
    decay: dict[int, bool] = {}
    plain, as_before = METHODS[method].forward_train, SampleStream.in_decay

    def look(self: Any, images: ImageBatch) -> Any:
        progress.append(float(images.progress))
        return plain(self, images)

    monkeypatch.setattr(METHODS[method], "forward_train", look)
    monkeypatch.setattr(SampleStream, "in_decay", lambda self, k: decay.setdefault(k, as_before(self, k)))
    train(tiny_run(dataset, method, **changes), tmp_path / "run", quiet=True)
    train(tiny_run(dataset, method, **changes, stop_after=9), tmp_path / "run", extend_to=16, quiet=True)
    train(tiny_run(dataset, method, **changes), tmp_path / "run", quiet=True)
    assert progress == pytest.approx([*(k / 6 for k in range(6)), *(k / 16 for k in range(6, 16))])
    assert [decay[k] for k in range(16)] == [k >= 3 for k in range(6)] + [k >= 8 for k in range(6, 16)]

    train(tiny_run(dataset, method, **changes), tmp_path / "whole", quiet=True)
    train(tiny_run(dataset, method, **changes), tmp_path / "whole", extend_to=16, quiet=True)
    assert_same(final_state(tmp_path / "run"), final_state(tmp_path / "whole"))
