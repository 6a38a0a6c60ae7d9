"""``unpaired compare``: what it prints and writes in every format (``golden/``), and what it rejects."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from recorded_runs import (
    KID,
    METRICS,
    PSNR,
    SWD,
    evaluation,
    named,
    score,
    training_line,
    write_lines,
    write_run,
)
from unpaired.cli.compare import main
from unpaired.errors import ConfigError

GOLDEN = Path(__file__).parent / "golden"
RUNS = ("qs0", "qs1", "qs2", "cut", "munit")
Printed = Callable[..., str]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with three seeds of QS-Attn, one of CUT, and images that other software made.

    Seeds differ in whether they have a score, an interval and infinite values; CUT has damaged and old records.
    """
    monkeypatch.chdir(tmp_path)
    psnr = ((12.0, "inf", "inf"), (13.0, 20.0, "-inf"), (14.0, "inf", None))
    for seed, kid in enumerate((30.0, 33.0, 31.0)):
        rows = {"input": {KID: 93.0, PSNR: 6.5}, "ema": {KID: kid, SWD: None if seed == 2 else 70.0 + seed},
                "last": {KID: kid + 4}, "best": {KID: kid - 2}, "real": {KID: 1.5}}  # fmt: skip
        line = evaluation(rows)
        for row, value in zip(("ema", "last", "best"), psnr[seed], strict=True):
            line["scores"][row] |= named([score(PSNR, 0.0) | {"value": value}])
        line["scores"]["input"][f"{KID}_200v200"]["interval"] = [90.0, 96.0]
        line["scores"]["real"] = named([score(KID, 1.5, (150, 200))])
        line["rows"]["best"]["images_seen"] = 1200 + 600 * seed
        lines = [training_line(n, w, {KID: kid + n / 100, PSNR: 10.0}) for n in (100, 200) for w in ("ema", "last")]
        best = {"images_seen": 100, "weights": "ema", "score": f"{KID}_100v100"} if seed else None
        write_run(tmp_path / f"qs{seed}", line, seed=seed, scores=lines, best=best, model={"similarity": "scaled"})
    line = evaluation({"input": {KID: 93.0}, "ema": {}, "last": {KID: 41.0}})
    line["scores"]["ema"] = named(
        [score(KID, 40.0, interval=[-0.5, 43.0]), score(PSNR, 13.0), score(SWD, 4, spread=0.3)]
    )
    run = write_run(
        tmp_path / "cut", {"scores": {}}, line, method="cut", scores=[training_line(100, "ema", {KID: 50.0})]
    )
    with (run / "evaluations.jsonl").open("a") as file:
        file.write("{\n")
    (tmp_path / "munit").mkdir()
    line = evaluation({"input": {KID: 93.0}, "made": {KID: 50.0}}, images_seen=0)
    write_lines(tmp_path / "munit" / "evaluations.jsonl", [line])
    return tmp_path


@pytest.fixture
def printed(runs: Path, capsys: pytest.CaptureFixture[str]) -> Printed:
    """Run the command with these arguments; its output without spaces at the ends of lines."""

    def run(*words: str) -> str:
        assert main(list(words)) == 0
        return "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines())

    return run


def check(name: str, text: str) -> None:
    """Compare with a golden file; a missing one is written, to be reviewed and committed."""
    path = GOLDEN / name
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        pytest.fail(f"wrote {path}")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["terminal", "markdown", "csv", "latex"])
def test_every_format_is_the_golden_one(printed: Printed, kind: str) -> None:
    check(f"{kind}.txt", printed(*RUNS, "--format", kind))


@pytest.mark.parametrize("kind", ["terminal", "markdown", "csv"])
def test_every_format_over_training_is_the_golden_one(printed: Printed, kind: str) -> None:
    check(f"training_{kind}.txt", printed(*RUNS[:-1], "--over-training", "--format", kind))


def test_json_holds_everything(printed: Printed) -> None:
    found = json.loads(printed(*RUNS, "--format", "json"))
    assert [column["metric"] for column in found["columns"]] == [KID, SWD, PSNR]
    name = f"{SWD}_200v200"
    assert found["rows"][1]["values"][name] == {
        "mean": 70.5, "sd": pytest.approx(0.5**0.5), "n": 2, "spread": None, "interval": None, "name": name,
    }  # fmt: skip
    assert found["rows"][0]["values"][f"{KID}_200v200"]["interval"] == [90.0, 96.0]
    assert found["rows"][2]["values"][f"{PSNR}_200v200"]["mean"] == "inf"
    assert found["data"]["source_digest"] == "aaaa1111aaaa1111"
    assert found["networks"] == {"lite0": ["EfficientNet-Lite0, ImageNet", "cccc3333cccc3333"]}
    assert (found["footnotes"][0][:16], len(found["warnings"])) == ("† best: chosen b", 2)


def test_wide_tables_are_continued_below(runs: Path, printed: Printed) -> None:
    rows = {row: dict.fromkeys(METRICS, 12.5) for row in ("input", "ema", "last", "best")}
    write_run(runs / "wide", evaluation(rows), model={"base_channels": 8, "blocks": 4, "num_queries": 3})
    text = printed("qs0", "qs1", "wide", "cut")
    assert max(map(len, text.splitlines())) <= 110
    heads = [line for line in text.splitlines() if line.startswith("method")]
    assert ["images seen" in head for head in heads] == [True, *[False] * (len(heads) - 1)]
    assert len(heads) > 1
    assert all(f"{label}: {name}_200v200" in text.splitlines() for name, (label, *_) in METRICS.items())


@pytest.mark.parametrize("suffix", [".md", ".csv", ".tex", ".json"])
def test_files_hold_what_would_be_printed(runs: Path, printed: Printed, suffix: str) -> None:
    kind = {".md": "markdown", ".csv": "csv", ".tex": "latex", ".json": "json"}[suffix]
    text = printed("qs0", "cut", "--format", kind)
    shown = printed("qs0", "cut", "--out", f"new/folder/table{suffix}")
    assert "KID (Lite0): kid_lite0_x1e3_200v200" in shown, "the terminal shows what was written"
    printed("qs0", "cut", "--out", "table.txt", "--format", kind)
    for path in (runs / "new" / "folder" / f"table{suffix}", runs / "table.txt"):
        assert path.read_text(encoding="utf-8").splitlines() == text.splitlines()


def test_a_page(printed: Printed, runs: Path) -> None:
    printed("qs0", "qs1", "cut", "--out", "page.html")
    page = (runs / "page.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    for words in (
        "QS-Attn, similarity scaled, best †<small>1,200 to 1,800 images seen, 2 seeds</small>",
        "another run&#39;s last",
        "unpaired compare qs0 qs1 cut --out page.html",
        "∞",
        "cut/evaluations.jsonl, line 3 is skipped",
    ):
        assert words in page


def test_warnings_go_to_standard_error(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cut", "--format", "json", "--out", "table.json"]) == 0
    said = capsys.readouterr()
    assert "warning: cut/evaluations.jsonl, line 3 is skipped: it is not complete JSON" in said.err
    assert "warning: cut/evaluations.jsonl: 1 evaluation was recorded before protocols" in said.err
    assert "wrote table.json" in said.err
    assert "skipped" not in said.out
    assert len(json.loads((runs / "table.json").read_text())["warnings"]) == 2


def test_names_are_printed_as_they_are(printed: Printed) -> None:
    assert "[red]x[/red]" in printed("cut", "--names", "[red]x[/red]")
    text = printed("cut", "--names", "a|b *c* <d> [e](f)\n| x", "--format", "markdown")
    assert "| a\\|b \\*c\\* \\<d\\> \\[e\\](f) \\| x | EMA |" in text
    for name in ('a, "b"; c', "x\r\ny\tz", "é ∞ '"):
        text = printed("cut", "--names", name, "--format", "csv")
        assert {row["label"] for row in csv.DictReader(io.StringIO(text))} == {
            "input (untranslated)",
            " ".join(name.split()),
        }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name at least one run"),
        (["cut", "--out", "table.pdf"], r"--out table\.pdf: unknown suffix; use one of \.md, \.csv"),
        (["cut", "--out", "table.md", "--format", "csv"], r"--format csv contradicts --out table\.md"),
        (["cut", "--format", "html"], r"--out FILE\.html"),
        (["cut", "--format", "terminal", "--out", "table.txt"], r"> table\.txt"),
        (["cut", "--over-training", "--out", "table.tex"], "--over-training is for the terminal, markdown or csv"),
        (["cut", "--over-training", "--data", "x"], "--data chooses among evaluations"),
    ],
)
def test_contradicting_options(runs: Path, words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        main(words)
