"""What a training says at its start and by the clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from tiny import tiny_run
from unpaired.engine import announce
from unpaired.engine.announce import Pace
from unpaired.training import train


@pytest.mark.parametrize(
    ("queries", "images", "words"),
    [
        (16, 1, ["QS-Attn", "cpu, ", "5 + 4 images in crops of 32 pixels, 1 images to see", "generator 0."]),
        (
            64,
            1,
            ["num_queries is 64, but crops of 32 pixels have 64 locations at block", "Use --num-queries below 64; 4"],
        ),
    ],
)
def test_the_first_lines_of_a_training(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], queries: int, images: int, words: list[str]
) -> None:
    config = tiny_run(dataset, images=images, num_queries=queries, checkpoint_every=1, sample_every=9)
    train(config, str(tmp_path / "run"))
    said = capsys.readouterr().err
    assert all(word in said for word in words), said
    assert ("Warning: num_queries" in said) == (queries == 64)


@pytest.mark.parametrize(
    ("seconds", "by_clock", "total", "words"),
    [
        (1.0, False, 20, []),
        (1.0, False, 1000, ["About 17 min at 1 s an image, measured on the first steps."]),
        (10.0, False, 426_800, ["About 49.4 days", "a day. For a first result within minutes use --recipe quick"]),
        (
            10.0,
            True,
            60,
            ["About 10 min at 10 s an image", "        3 / 60 images  about 10 min left", "about 4 min left"],
        ),
    ],
)
def test_lines_come_by_the_clock(
    monkeypatch: pytest.MonkeyPatch, seconds: float, by_clock: bool, total: int, words: list[str]
) -> None:
    now, said = [0.0], list[str]()
    monkeypatch.setattr(announce.time, "perf_counter", lambda: now[0])
    pace = Pace(said.append, 0, total, by_clock=by_clock)
    for seen in range(1, 41):
        now[0] += seconds
        pace.step(seen)
    assert len(said) == len(words)
    assert all(word in line for word, line in zip(words, said, strict=True)), said
