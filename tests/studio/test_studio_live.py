"""A run folder -> what the page says of its training."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from recorded_runs import KID, SWD, training_line, write_lines, write_run
from unpaired.reporting.run_folders import read_runs
from unpaired.studio.live import live_key, live_page, read_progress, stamp


def line(seen: int, seconds: float = 0.5) -> dict[str, Any]:
    return {"images_seen": seen, "images_per_second": 1 / seconds, "seconds_per_image": seconds,
            "terms": {"adversarial": 1.0 / seen}}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", scores=[training_line(100, "ema", {KID: 12.5, SWD: 30.0})])


def progress(run: Path, now: float | None = None) -> Any:
    return read_progress(read_runs([run])[0], now)


def test_before_the_first_report(run: Path) -> None:
    found = progress(run)
    assert (found.images_seen, found.total, found.seconds_left) == (0, 3300, None)
    assert found.state == "waiting for the first report"


def test_speed_and_time_left_come_from_the_last_lines(run: Path) -> None:
    write_lines(run / "log.jsonl", [line(100, 9.0), *(line(100 + 20 * number, 0.5) for number in range(1, 11))])
    found = progress(run)
    assert found.images_seen == 300
    assert found.images_per_second == pytest.approx(2.0)
    assert found.seconds_left == pytest.approx(3000 * 0.5)
    assert found.state == "training"


def test_the_last_image_is_the_end_and_silence_is_said(run: Path) -> None:
    write_lines(run / "log.jsonl", [line(200)])
    written = (run / "log.jsonl").stat().st_mtime
    assert progress(run, written + 60).state == "training"
    assert progress(run, written + 600).state.startswith("no report for 10 min")
    write_lines(run / "log.jsonl", [line(3300)])
    found = progress(run, written + 600)
    assert (found.state, found.seconds_left) == ("finished", 0)


def test_a_slow_training_is_not_taken_for_stopped_between_two_reports(run: Path) -> None:
    write_lines(run / "log.jsonl", [line(100, 5.0)])  # 500 s between two lines
    written = (run / "log.jsonl").stat().st_mtime
    assert progress(run, written + 1400).state == "training"
    assert progress(run, written + 1600).state.startswith("no report for 2")


def test_without_a_number_of_images_the_epochs_count(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", training={"images": None})
    assert progress(run).total is None
    write_lines(run / "sessions.jsonl", [{"images": [30, 20]}])
    assert progress(run).total == 400 * 30


def test_lines_that_a_crash_cut_or_that_hold_no_number_are_passed_over(run: Path) -> None:
    write_lines(run / "log.jsonl", [line(20), {"images_seen": 40, "seconds_per_image": None}, '{"images_se'])
    found = progress(run)
    assert (found.images_seen, found.images_per_second) == (40, pytest.approx(2.0))
    assert "40 of 3,300" in live_page(run)


def test_the_page_shows_progress_scores_and_curves(run: Path) -> None:
    write_lines(run / "log.jsonl", [line(seen) for seen in (100, 200)])
    page = live_page(run)
    assert "200 of 3,300" in page
    assert "26 min" in page
    assert "2.00" in page
    assert "KID (Lite0) x 1e-3" in page
    assert ">12.5<" in page
    assert page.count("<svg") >= 3  # losses, scores, speed
    assert 'aria-valuenow="6"' in page


def test_a_real_run_shows_its_newest_samples(studio_runs: tuple[Path, Path], tmp_path: Path) -> None:
    run = shutil.copytree(studio_runs[0], tmp_path / "run")
    page = live_page(run)
    assert "4 of 4" in page
    assert ">finished<" in page
    assert "Samples after 4 images" in page
    assert page.count("<img") == 3 * 2, "inputs, averaged and last translations of the two held-out images"
    (run / "samples" / "9.png").write_bytes(b"cut short")
    assert "Samples after 4 images" in live_page(run), "a grid that is being written is passed over"


def test_a_folder_that_is_no_run_is_said_without_markup(tmp_path: Path) -> None:
    page = live_page(tmp_path / "<b>")
    assert "is not a run folder" in page
    assert "<b>" not in page


def test_the_stamp_changes_with_what_is_shown_and_only_then(run: Path) -> None:
    before = stamp(run)
    assert stamp(run) == before
    (run / "other").write_text("x")
    assert stamp(run) == before
    with (run / "log.jsonl").open("a") as file:
        file.write(json.dumps(line(10)) + "\n")
    assert stamp(run) != before
    before = stamp(run)
    os.utime(run / "scores.jsonl", ns=(1, 1))
    assert stamp(run) != before


def test_the_key_changes_while_a_training_is_silent(run: Path) -> None:
    write_lines(run / "log.jsonl", [line(200)])
    before = live_key(run)
    assert live_key(run) == before
    status = (run / "log.jsonl").stat()
    os.utime(run / "log.jsonl", (status.st_atime, status.st_mtime - 600))
    assert live_key(run)[1] == "no report for 10 min"
    assert live_key(run.parent / "nothing")[1].endswith("give the --out of 'unpaired train'")
