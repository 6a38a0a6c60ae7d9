"""``unpaired compare``: what it prints, what it writes, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from recorded_runs import KID, METRICS, PSNR, evaluation, named, score, training_line, write_lines, write_run
from unpaired.cli.compare import main
from unpaired.errors import ConfigError

Printed = Callable[..., str]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two seeds of QS-Attn and one of CUT, the present one while a test runs."""
    monkeypatch.chdir(tmp_path)
    for seed, kid in enumerate((30.0, 33.0)):
        rows = {"input": {KID: 93.0, PSNR: 6.5}, "ema": {KID: kid, PSNR: 12.0}, "last": {KID: kid + 4},
                "best": {KID: kid - 2}, "real": {KID: 1.5}}  # fmt: skip
        lines = [training_line(n, w, {KID: kid + n / 100}) for n in (100, 200) for w in ("ema", "last")]
        write_run(tmp_path / f"qs{seed}", evaluation(rows), seed=seed, scores=lines)
    rows = {"input": {KID: 93.0}, "ema": {KID: 40.0, PSNR: 13.0}, "last": {KID: 41.0}}
    line = evaluation(rows)
    line["scores"]["ema"] = named([score(KID, 40.0, interval=[37.0, 43.0]), score(PSNR, 13.0)])
    write_run(tmp_path / "cut", line, method="cut", scores=[training_line(100, "ema", {KID: 50.0})])
    return tmp_path


@pytest.fixture
def printed(runs: Path, capsys: pytest.CaptureFixture[str]) -> Printed:
    """Run the command with these words; its output without blanks at the ends of lines."""

    def run(*words: str) -> str:
        assert main(list(words)) == 0
        return "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines())

    return run


def test_the_terminal(printed: Printed) -> None:
    assert printed("qs0", "qs1", "cut") == (
        "                                                                           PSNR to\n"
        "                                                         KID (Lite0)         truth\n"
        "method                 weights   images seen   seeds        ↓ x 1e-3          ↑ dB\n"
        "──────────────────────────────────────────────────────────────────────────────────\n"
        "input (untranslated)                                            93.0           6.5\n"
        "\n"
        "QS-Attn                EMA             3,300       2     31.5 ± 2.1*    12.0 ± 0.0\n"
        "                       last            3,300       2      35.5 ± 2.1             –\n"  # noqa: RUF001
        "                       best †          1,200       2      29.5 ± 2.1             –\n"  # noqa: RUF001
        "\n"
        "CUT                    EMA             3,300       1            40.0         13.0*\n"
        "                                                        [37.0, 43.0]\n"
        "                       last            3,300       1            41.0             –\n"  # noqa: RUF001
        "\n"
        "real against real                                                1.5             –\n"  # noqa: RUF001
        "\n"
        "† best: chosen by kid_lite0_x1e3_100v100 on testA and testB of drawings: flattered; "
        "never compare with another\nrun's last\n"
        "± standard deviation over training seeds\n"
        "[ ] 95 % bootstrap interval over images\n"
        "*: best of its column; reference rows and † are excluded from ranking\n"
        "data: data/drawings, 200 source and 200 target images at 64 px (digests aaaa1111aaaa1111, bbbb2222bbbb2222);\n"
        "seed of the scores: 0\n"
        "networks: EfficientNet-Lite0, ImageNet (cccc3333cccc3333)\n"
        "KID (Lite0): kid_lite0_x1e3_200v200\n"
        "PSNR to truth: paired_psnr_db_200v200\n"
        ""
    )


def test_the_table_fits_and_is_continued_below(runs: Path, printed: Printed) -> None:
    rows = {row: dict.fromkeys(METRICS, 12.5) for row in ("input", "ema", "last", "best")}
    write_run(runs / "wide", evaluation(rows), model={"base_channels": 8, "blocks": 4, "num_queries": 3})
    text = printed("qs0", "qs1", "wide", "cut")
    assert max(map(len, text.splitlines())) <= 110
    heads = [line for line in text.splitlines() if line.startswith("method")]
    assert len(heads) > 1
    assert "images seen" in heads[0]
    assert "images seen" not in heads[1]
    names = [f"{label}: {name}_200v200" for name, (label, *_) in METRICS.items()]
    assert all(line in text.splitlines() for line in names)
    for name in ("SWD", "diversity", "SSIM"):
        assert name in text.split("† best")[0]


def test_brackets_in_names_are_no_markup(printed: Printed) -> None:
    assert "[red]x[/red]" in printed("cut", "--names", "[red]x[/red]")


def test_over_training(printed: Printed) -> None:
    assert printed("qs0", "qs1", "cut", "--over-training") == (
        "QS-Attn\n"
        "               KID (Lite0)    KID (Lite0)\n"
        "                  ↓ x 1e-3       ↓ x 1e-3\n"
        "images seen            EMA           last\n"
        "─────────────────────────────────────────\n"
        "        100    32.5 ± 2.1*    32.5 ± 2.1*\n"
        "        200     33.5 ± 2.1     33.5 ± 2.1\n"
        "\n"
        "scored on testA and testB of drawings\n"
        "*: best of its score over training, and flattered by that choice\n"
        "± standard deviation over 2 training seeds\n"
        "KID (Lite0): kid_lite0_x1e3_100v100\n"
        "\n"
        "CUT\n"
        "               KID (Lite0)\n"
        "                  ↓ x 1e-3\n"
        "images seen            EMA\n"
        "──────────────────────────\n"
        "        100           50.0\n"
        "\n"
        "scored on testA and testB of drawings\n"
        "KID (Lite0): kid_lite0_x1e3_100v100\n"
        ""
    )


def test_over_training_as_text_for_other_programs(printed: Printed) -> None:
    assert printed("qs0", "--over-training", "--format", "markdown").startswith(
        "### QS-Attn\n\n| images seen | KID (Li"
    )
    assert printed("qs0", "--over-training", "--format", "csv").count("\n") == 4


@pytest.mark.parametrize(
    ("kind", "suffix", "begins"),
    [
        ("markdown", ".md", "| method | weights |"),
        ("csv", ".csv", "label,weights,reference,runs,score,"),
        ("latex", ".tex", "% needs \\usepackage{booktabs}"),
        ("json", ".json", "{"),
    ],
)
def test_formats_are_printed_or_written(runs: Path, printed: Printed, kind: str, suffix: str, begins: str) -> None:
    text = printed("qs0", "cut", "--format", kind)
    assert text.startswith(begins)
    shown = printed("qs0", "cut", "--out", f"new/folder/table{suffix}")
    assert (runs / "new" / "folder" / f"table{suffix}").read_text(encoding="utf-8").splitlines() == text.splitlines()
    assert "KID (Lite0): kid_lite0_x1e3_200v200" in shown  # the terminal shows what was written
    printed("qs0", "cut", "--out", "table.txt", "--format", kind)
    assert (runs / "table.txt").read_text(encoding="utf-8").startswith(begins)


def test_a_page(runs: Path, printed: Printed) -> None:
    printed("qs0", "qs1", "cut", "--out", "page.html")
    page = (runs / "page.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert "QS-Attn, best †" in page
    assert "unpaired compare qs0 qs1 cut --out page.html" in page


def test_warnings_are_said_apart_from_the_table(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (runs / "cut" / "evaluations.jsonl").open("a") as file:
        file.write("{\n")
    assert main(["cut", "--format", "json", "--out", "table.json"]) == 0
    said = capsys.readouterr()
    assert "warning: cut/evaluations.jsonl, line 2 is skipped" in said.err
    assert "wrote table.json" in said.err
    assert "skipped" not in said.out
    assert len(json.loads((runs / "table.json").read_text())["warnings"]) == 1


def test_data_is_chosen(runs: Path, printed: Printed) -> None:
    other = {"name": "photos", "source_digest": "9" * 16, "target_digest": "8" * 16}
    write_lines(runs / "qs0" / "evaluations.jsonl", [evaluation({"ema": {KID: 7.25}}, data=other)])
    assert "7.25" in printed("qs0", "--data", "photos", "--format", "csv")
    with pytest.raises(ConfigError, match=r"photos \(source 99999999.*data/drawings"):
        main(["qs0", "cut"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name at least one run"),
        (["cut", "--out", "table.pdf"], r"--out table\.pdf: the suffix names no format; use one of \.md, \.csv"),
        (["cut", "--out", "table.md", "--format", "csv"], r"--format csv contradicts --out table\.md"),
        (["cut", "--format", "html"], r"--out FILE\.html"),
        (["cut", "--format", "terminal", "--out", "table.txt"], r"> table\.txt"),
        (["cut", "--over-training", "--out", "table.tex"], "--over-training is for the terminal, markdown or csv"),
        (["cut", "--over-training", "--data", "x"], "--data chooses among evaluations"),
    ],
)
def test_options_that_do_not_fit(runs: Path, words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        main(words)
