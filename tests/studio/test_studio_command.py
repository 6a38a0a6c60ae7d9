"""``unpaired studio``: what it opens, and what it says when it cannot."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest

from unpaired import cli
from unpaired.cli import studio
from unpaired.studio import serving
from unpaired.studio.limits import Limits


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Any, ...]]:
    """What would be served: (names of the runs, host, port, limits, note), without a server."""
    seen: list[tuple[Any, ...]] = []

    def record(runs: Any, host: str, port: int, limits: Any, *, note: str, **options: Any) -> None:
        seen.append(([run.name for run in runs], host, port, limits, note))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(studio, "require_packages", lambda *names: None)
    monkeypatch.setattr("unpaired.studio.serving.serve", record)
    return seen


def test_without_a_run_the_drawings_are_shown_on_loopback(served: list[tuple[Any, ...]]) -> None:
    assert cli.main(["studio"]) == 0
    names, host, port, limits, note = served[0]
    assert (names, host, port, note) == ([], "127.0.0.1", 7860, "")
    assert (limits.pixels, limits.bytes, limits.batch, limits.queue) == (4_000_000, 20_000_000, 32, 16)


def test_the_run_of_the_demo_is_offered(
    served: list[tuple[Any, ...]], studio_runs: tuple[Path, Path], tmp_path: Path
) -> None:
    shutil.copytree(studio_runs[0], tmp_path / "runs" / "demo")
    assert cli.main(["studio", "--device", "cpu"]) == 0
    names, *_, note = served[0]
    assert names == ["demo"]
    assert "No run was named" in note


def test_runs_and_limits_are_taken(served: list[tuple[Any, ...]], studio_runs: tuple[Path, Path]) -> None:
    words = ["studio", *map(str, studio_runs), "--device", "cpu", "--host", "0.0.0.0", "--megapixels", "1.5"]
    assert cli.main(words) == 0
    names, host, _, limits, _ = served[0]
    assert (names, host, limits.pixels) == (["first", "second"], "0.0.0.0", 1_500_000)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing"], "nothing is not a trained run"),
        (["--batch", "0"], "batch must be at least 1"),
        (["--refresh-seconds", "0"], "refresh_seconds must be at least 0.5"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], said: str, served: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["studio", *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not served


def test_a_missing_package_is_named_with_its_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "gradio" else found(name))
    assert cli.main(["studio"]) == 2
    assert 'pip install "unpaired[studio]"' in capsys.readouterr().err


def test_the_state_of_pages_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page takes about a megabyte of Gradio, which keeps ten thousand of them unless it is told."""
    pytest.importorskip("gradio")
    from unpaired.studio import app

    pages = []
    original = app.make_page
    monkeypatch.setattr(app, "make_page", lambda shown: pages.append(original(shown)) or pages[0])
    monkeypatch.setattr(serving, "_PAGES", 3)
    serving.make_app(app.Shown((), tmp_path, Limits(), 5.0, ""))
    kept = pages[0].state_holder
    for number in range(5):
        _ = kept[f"page{number}"]
    assert list(kept.session_data) == ["page2", "page3", "page4"]
