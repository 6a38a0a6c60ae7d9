"""Comparing runs from their records: rows, labels, ranking and refusals; what is printed: test_compare_command.py."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
import statistics
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recorded_runs import (
    KID,
    METRICS,
    PSNR,
    SWD,
    Record,
    evaluation,
    named,
    score,
    training_line,
    write_lines,
    write_run,
)
from unpaired import evaluation as evaluation_module
from unpaired.errors import ConfigError, DataError
from unpaired.reporting.formats import escape_latex, to_csv, to_json, to_latex, to_markdown, training_csv
from unpaired.reporting.records import EvaluationRecord, training_frame
from unpaired.reporting.rows import group_runs
from unpaired.reporting.tables import Cell, Comparison, Row, collect, training_tables

FULL_KID, FULL_SWD, FULL_PSNR = f"{KID}_200v200", f"{SWD}_200v200", f"{PSNR}_200v200"
FLOOR = {"input": {KID: 93.0, PSNR: 6.5}, "real": {KID: 1.5}}


def two_methods(root: Path) -> list[Path]:
    """QS-Attn with three seeds and CUT with two, each with EMA, last and best, a floor and a ceiling."""
    runs = []
    for seed, kid in enumerate((30.0, 31.0, 35.0)):
        rows = {"ema": {KID: kid, PSNR: 12.0 + seed}, "last": {KID: kid + 4, PSNR: 12.5}, "best": {KID: kid - 2}}
        line = evaluation({**FLOOR, **rows})
        line["rows"]["best"]["images_seen"] = 1200 + 600 * seed
        runs.append(write_run(root / f"qs{seed}", line, seed=seed, model={"similarity": "scaled"}))
    for seed, kid in enumerate((40.0, 44.0)):
        rows = {"ema": {KID: kid, PSNR: 13.0}, "last": {KID: kid - 1, PSNR: 14.0}, "best": {KID: kid - 15}}
        runs.append(write_run(root / f"cut{seed}", evaluation({**FLOOR, **rows}), method="cut", seed=seed))
    return runs


def row(comparison: Comparison, label: str, weights: str = "ema") -> Row:
    (found,) = [row for row in comparison.rows if (row.label, row.weights) == (label, weights)]
    return found


def value(comparison: Comparison, label: str, name: str, weights: str = "ema") -> Any:
    """The line of a value of one row."""
    return comparison.values.loc[comparison.rows.index(row(comparison, label, weights)), name]


def cell(comparison: Comparison, label: str, name: str, weights: str = "ema") -> Cell:
    place = [column.name for column in comparison.columns].index(name)
    return comparison.cells()[comparison.rows.index(row(comparison, label, weights))][place]


def best(comparison: Comparison) -> set[tuple[str, str, str]]:
    return {
        (row.label, row.weights, column.name)
        for row, cells in zip(comparison.rows, comparison.cells(), strict=True)
        for column, cell in zip(comparison.columns, cells, strict=True)
        if cell.best
    }


# ---------------------------------------------------------------------------------------------------------------------
# rows
# ---------------------------------------------------------------------------------------------------------------------
def test_seeds_are_one_row_and_references_stand_once_above_and_below(tmp_path: Path) -> None:
    found = collect(two_methods(tmp_path))
    assert [(r.label, r.weights, r.reference, len(r.runs)) for r in found.rows] == [
        ("input (untranslated)", "", True, 5),
        ("QS-Attn, similarity scaled", "ema", False, 3),
        ("QS-Attn, similarity scaled", "last", False, 3),
        ("QS-Attn, similarity scaled", "best", False, 3),
        ("CUT", "ema", False, 2),
        ("CUT", "last", False, 2),
        ("CUT", "best", False, 2),
        ("real against real", "", True, 5),
    ]
    kid = value(found, "QS-Attn, similarity scaled", FULL_KID)
    assert (kid["mean"], kid["n"]) == (32.0, 3)
    assert kid["sd"] == pytest.approx(statistics.stdev([30, 31, 35]))
    assert row(found, "QS-Attn, similarity scaled", "best").images_seen == (1200, 1800, 2400)
    assert row(found, "CUT", "best").images_words == "1,200"
    assert value(found, "input (untranslated)", FULL_KID, "")["n"] == 1
    assert found.remarks == (
        "best: chosen by kid_lite0_x1e3_100v100 on testA and testB of drawings: biased; never compare with "
        "another run's last",
    )


def test_columns_come_in_the_order_of_the_first_run(tmp_path: Path) -> None:
    line = evaluation({"ema": {SWD: 70.0, KID: 30.0}, "best": {KID: 2.0}})
    line["rows"]["best"]["chosen_on"] = "valA and valB of drawings"
    first = write_run(tmp_path / "a", line)
    second = write_run(tmp_path / "b", evaluation({"ema": {KID: 31.0, PSNR: 12.0}}), method="cut")
    found = collect([first, second])
    assert [column.name for column in found.columns] == [FULL_SWD, FULL_KID, FULL_PSNR]
    (remark,) = found.remarks
    assert "biased if those are the images scored here" in remark, "they were not chosen on the test images"


def test_spread_and_interval_are_averaged_where_all_seeds_have_them(tmp_path: Path) -> None:
    runs = []
    for seed in (0, 1):
        line = evaluation({"ema": {KID: 30.0, SWD: 70.0}})
        line["scores"]["ema"] = named(
            [
                score(KID, 30.0 + seed, spread=2.0 + seed, interval=[25.0, 35.0 + seed]),
                score(SWD, 70.0, **({"interval": [60.0, 80.0], "spread": 1.0} if seed else {})),
            ]
        )
        runs.append(write_run(tmp_path / f"run{seed}", line, seed=seed))
    found = collect(runs)
    kid, swd = value(found, "QS-Attn", FULL_KID), value(found, "QS-Attn", FULL_SWD)
    assert (kid["spread"], kid["low"], kid["high"]) == (2.5, 25.0, 35.5)
    assert swd[["spread", "low", "high"]].isna().all()


@pytest.mark.filterwarnings("error")
def test_infinite_scores_have_no_deviation_and_may_cancel(tmp_path: Path) -> None:
    runs = []
    for seed, psnr in enumerate((math.inf, 20.0)):
        rows = {"ema": {PSNR: psnr}, "last": {PSNR: -math.inf}, "best": {PSNR: (-1) ** seed * math.inf}}
        runs.append(write_run(tmp_path / f"run{seed}", evaluation(rows), seed=seed))
    comparison = collect(runs)
    found = value(comparison, "QS-Attn", FULL_PSNR)
    assert (found["mean"], found["n"], math.isnan(found["sd"])) == (math.inf, 2, True)
    for weights, words in (("ema", "**∞**"), ("last", "-∞"), ("best", "\N{EN DASH}")):
        assert cell(comparison, "QS-Attn", FULL_PSNR, weights).mean == words.strip("*")
        assert f"| {words} |" in to_markdown(comparison)
    means = [one["values"][FULL_PSNR]["mean"] for one in json.loads(to_json(comparison))["rows"]]
    assert means == ["inf", "-inf", None]
    assert ",inf,,2," in to_csv(comparison)


# ---------------------------------------------------------------------------------------------------------------------
# labels
# ---------------------------------------------------------------------------------------------------------------------
SETTINGS: list[tuple[list[dict[str, Any]], list[str]]] = [
    ([{}, {"method": "cut"}, {"method": "fastcut"}], ["QS-Attn", "CUT", "FastCUT"]),
    ([{"model": {"similarity": "scaled"}}, {}], ["QS-Attn, similarity scaled", "QS-Attn, similarity dot"]),
    ([{"model": {"similarity": "scaled"}}], ["QS-Attn"]),
    (
        [{"model": {"num_queries": 64}}, {"model": {"num_queries": 64}, "method": "cut"}],
        ["QS-Attn", "CUT"],
    ),
    (
        [{"model": {"num_queries": 64}}, {"method": "cut"}],
        ["QS-Attn, num queries 64", "CUT, num queries 256"],
    ),
    (
        [{"model": {"flip_equivariance": True}}, {}],
        ["QS-Attn, flip equivariance", "QS-Attn, no flip equivariance"],
    ),
    ([{"training": {"images": 100}}, {}], ["QS-Attn, length 100", "QS-Attn, length 3,300"]),
    ([{"model": {"similarity": "scaled"}}, {"method": "cut"}], ["QS-Attn, similarity scaled", "CUT"]),
    (
        [{"data": {"image_size": 64, "load_size": None}}, {"data": {"image_size": 64, "load_size": 64}}],
        ["QS-Attn", "QS-Attn, load size 64"],
    ),
    (
        [{"model": {"temperature": 0.1, "attention_taps": ("block5",)}}, {}],
        ["QS-Attn, temperature 0.1, attention taps block5", "QS-Attn, temperature 0.07, attention taps block1+block5"],
    ),
    ([{"files_digest": "1111111"}, {"files_digest": "2222222"}],
     ["QS-Attn, trained on drawings 111111", "QS-Attn, trained on drawings 222222"]),
]  # fmt: skip


@pytest.mark.parametrize(("settings_of_runs", "labels"), SETTINGS)
def test_labels_name_the_method_and_what_differs(
    tmp_path: Path, settings_of_runs: list[dict[str, Any]], labels: list[str]
) -> None:
    runs = [write_run(tmp_path / f"run{n}", **changes) for n, changes in enumerate(settings_of_runs)]
    assert [group.label for group in group_runs(runs)] == labels


def test_many_differences_are_counted_and_labels_stay_apart(tmp_path: Path) -> None:
    many = {"base_channels": 8, "blocks": 4, "num_queries": 3, "projector_width": 2, "temperature": 0.5}
    others = many | {"projector_width": 4}
    runs = [write_run(tmp_path / f"run{n}", model=model) for n, model in enumerate(({}, many, others))]
    labels = [group.label for group in group_runs(runs)]
    assert labels[1] == "QS-Attn, base channels 8, blocks 4, num queries 3, 2 more (run1)"
    assert len({*labels}) == 3


def test_settings_that_change_nothing_are_ignored_and_other_images_count(tmp_path: Path) -> None:
    changes: list[dict[str, Any]] = [{}, {"threads": 1, "log_every": 7}, {"accelerator": "cpu", "stop_after": 3}]
    runs = [
        write_run(tmp_path / f"place{n}" / "run", seed=n, training=training, data={"num_workers": n})
        for n, training in enumerate(changes)
    ]
    (group,) = group_runs(runs)
    assert (group.seeds, group.runs, group.method) == ((0, 1, 2), tuple(runs), "qs_attn")
    digests = ("aaaaaaa", "bbbbbbb", None)
    runs = [write_run(tmp_path / f"run{n}", seed=n, files_digest=digest) for n, digest in enumerate(digests)]
    assert [group.runs for group in group_runs(runs)] == [(run,) for run in runs], "though their folder is the same"


def test_a_run_that_was_stopped_earlier_is_another_row(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / f"run{seed}", evaluation({"ema": {KID: 30.0}}, images_seen=seen), seed=seed)
        for seed, seen in enumerate((3300, 1000, 3300))
    ]
    rows = [("QS-Attn, 3,300 images seen", 2), ("QS-Attn, 1,000 images seen", 1)]
    assert [(r.label, len(r.runs)) for r in collect(runs).rows] == rows


def test_the_length_of_training_is_not_told_beside_the_images_seen(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / f"run{n}", evaluation({"ema": {KID: 30.0}}, images_seen=n), training={"images": n})
        for n in (100, 200)
    ]
    assert [r.label for r in collect(runs).rows] == ["QS-Attn, 100 images seen", "QS-Attn, 200 images seen"]


@pytest.mark.parametrize(
    ("names", "labels"),
    [(["ours", "theirs"], ["ours", "theirs"]), (["ours", "ours", "ours", "theirs", "theirs"], ["ours", "theirs"])],
)
def test_names_are_given_per_row_or_per_run(tmp_path: Path, names: list[str], labels: list[str]) -> None:
    found = collect(two_methods(tmp_path), names=names)
    assert list(dict.fromkeys(r.label for r in found.rows if not r.reference)) == labels


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["one"], ["1 names for 2 rows of 5 runs", "qs0, ", "cut0, "]),
        (["a", "a", "b", "c", "c"], ["qs0", "qs2", "differ only in their seed", "'a' and 'b'"]),
        (["same", "same"], ["'same' names two rows"]),
    ],
)
def test_names_that_do_not_fit_are_refused(tmp_path: Path, names: list[str], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        collect(two_methods(tmp_path), names=names)
    assert all(word in str(error.value) for word in words), error.value


def test_the_same_run_or_seed_twice_is_refused(tmp_path: Path) -> None:
    first = write_run(tmp_path / "first", evaluation({"ema": {KID: 30.0}}), seed=4)
    copy = write_run(tmp_path / "copy", evaluation({"ema": {KID: 30.0}}), seed=4)
    with pytest.raises(ConfigError, match=r"given twice"):
        collect([first, tmp_path / "copy" / ".." / "first"])
    with pytest.raises(ConfigError, match=r"first and .*copy have the same settings and the same seed \(4\)"):
        collect([first, copy])


# ---------------------------------------------------------------------------------------------------------------------
# which evaluation
# ---------------------------------------------------------------------------------------------------------------------
def test_the_newest_line_counts_and_broken_and_old_ones_are_reported(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    good, newer = (evaluation({"ema": {KID: value}}) for value in (30.0, 28.0))
    broken = json.dumps(evaluation({"ema": {KID: 1.0}}))[:100]
    unlike = evaluation({"ema": {KID: 1.0}})
    unlike["scores"]["ema"][FULL_KID]["value"] = [1]
    lines = [good, {"scores": {}}, broken, "", newer, unlike, "[1]", {**good, "format": 3}, {"format": 2}]
    write_lines(run / "evaluations.jsonl", lines)
    found = collect([run])
    assert value(found, "QS-Attn", FULL_KID)["mean"] == 28.0
    where = run / "evaluations.jsonl"
    said = "\n".join(found.warnings)
    kid = f"scores.ema.{FULL_KID}.value"
    assert f"{where}, line 3 is skipped: it is not complete JSON" in said
    assert f"{where}, line 6 is skipped: '{kid}' is [1]; input should be a valid number" in said
    assert f"{where}, line 7 is skipped: it is not a JSON object" in said
    assert f"{where}, line 8 is skipped: 'format' is 3; input should be 2" in said
    assert f"{where}, line 9 is skipped: 'images_seen' is missing" in said
    assert f"{where}: 1 evaluation was recorded before protocols" in said
    assert len(found.warnings) == 6


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], ["it was never evaluated"]),
        ([{"scores": {}}, {"scores": {}}], ["2 evaluations were recorded before protocols"]),
        (["{"], ["evaluations.jsonl, line 1 is skipped: it is not complete JSON"]),
    ],
)
def test_a_run_without_scores_names_the_command_that_makes_them(
    tmp_path: Path, lines: list[Any], words: list[str]
) -> None:
    run = write_run(tmp_path / "my run")
    write_lines(run / "evaluations.jsonl", lines)
    with pytest.raises(DataError) as error:
        collect([run])
    for word in [*words, f"run 'unpaired evaluate '{run}''"]:
        assert word in str(error.value), error.value


def test_folders_that_are_no_runs_are_named(tmp_path: Path) -> None:
    for read in (collect, lambda runs: training_frame(*runs)):
        with pytest.raises(DataError, match=r"nowhere: there is no such run folder"):
            read([tmp_path / "nowhere"])
    run = write_run(tmp_path / "run", scores=curve(0.0))
    (run / "run.yaml").unlink()
    with pytest.raises(DataError, match=r"run is not a run folder \(it has no run\.yaml\)"):
        training_tables([run])
    write_lines(run / "evaluations.jsonl", [evaluation({"ema": {KID: 1.0}})])
    (run / "run.yaml").write_text("method: [")
    with pytest.raises(ConfigError, match=r"run\.yaml"):
        collect([run])


EMOJI = {"name": "/data/emoji", "source_digest": "eeee5555eeee5555", "target_digest": "ffff6666ffff6666"}


@pytest.mark.parametrize("wanted", ["data/drawings", "drawings", "elsewhere/drawings", "aaaa11", "bbbb2222bbbb2222"])
def test_data_is_chosen_by_name_or_digest(tmp_path: Path, wanted: str) -> None:
    lines = [evaluation({"ema": {KID: 30.0}}), evaluation({"ema": {KID: 99.0}}, data=EMOJI)]
    run = write_run(tmp_path / "run", *lines)
    assert value(collect([run]), "QS-Attn", FULL_KID)["mean"] == 99.0
    assert value(collect([run], wanted), "QS-Attn", FULL_KID)["mean"] == 30.0


@pytest.mark.parametrize("wanted", ["horses", "aaaa", "eeee6"])
def test_data_that_nobody_scored_is_an_error_that_lists_the_others(tmp_path: Path, wanted: str) -> None:
    run = write_run(tmp_path / "run", evaluation({"ema": {KID: 30.0}}), evaluation({"ema": {KID: 1.0}}, data=EMOJI))
    with pytest.raises(DataError) as error:
        collect([run], wanted)
    for word in (f"not evaluated on '{wanted}'", "data/drawings (source aaaa1111", "emoji", f"{run} {wanted}'"):
        assert word in str(error.value), error.value


def test_a_name_of_several_image_sets_is_ambiguous(tmp_path: Path) -> None:
    other = {**EMOJI, "name": "other/drawings"}
    run = write_run(tmp_path / "run", evaluation({"ema": {KID: 30.0}}), evaluation({"ema": {KID: 1.0}}, data=other))
    with pytest.raises(ConfigError, match=r"--data drawings fits several sets of images .*aaaa1111.*eeee5555"):
        collect([run], "drawings")


# ---------------------------------------------------------------------------------------------------------------------
# what is refused
# ---------------------------------------------------------------------------------------------------------------------
def test_runs_scored_on_different_images_are_refused_and_listed(tmp_path: Path) -> None:
    first = write_run(tmp_path / "first", evaluation({"ema": {KID: 30.0}}), evaluation({"ema": {KID: 1.0}}, data=EMOJI))
    second = write_run(tmp_path / "second", evaluation({"ema": {KID: 30.0}}), method="cut")
    with pytest.raises(ConfigError) as error:
        collect([first, second])
    for word in (f"/data/emoji (source eeee5555, target ffff6666): {first}", f"target bbbb2222): {second}", "--data"):
        assert word in str(error.value), error.value
    assert len(collect([first, second], "drawings").rows) == 2


def _edited(path: tuple[str, ...], value: Any) -> Record:
    line = evaluation({"input": {KID: 90.0}, "ema": {KID: 30.0}})
    place: Any = line
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return line


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("seed",), 1, "the seed of the scores is 0 in {0}, 1 in {1}"),
        (("data", "image_size"), 256, "image_size is 64 in {0}, 256 in {1}"),
        (
            ("networks", "lite0", "digest"),
            "0123456789abcdef",
            "the digest of the network lite0 is 'cccc3333cccc3333' in {0}, '0123456789abcdef' in {1}",
        ),
        (
            ("scores", "ema", FULL_KID, "protocol"),
            "other words",
            "the protocol of kid_lite0_x1e3 is 'kernel distance on Lite0' in {0}, {1}, 'other words' in {1}",
        ),
        (("scores", "input", FULL_KID, "protocol"), "other words", "the protocol of kid_lite0_x1e3 is"),
        (("scores", "ema", FULL_KID, "unit"), "", "the unit of kid_lite0_x1e3 is 'x 1e-3' in"),
        (("scores", "ema", FULL_KID, "better"), "higher", "what is better in kid_lite0_x1e3 is 'lower' in"),
        (
            ("scores", "ema"),
            named([score(KID, 30.0, (199, 200))]),
            "the full name of kid_lite0_x1e3 is 'kid_lite0_x1e3_200v200' in {0}, 'kid_lite0_x1e3_199v200' in {1}",
        ),
    ],
)
def test_scores_that_mean_different_things_are_refused(
    tmp_path: Path, path: tuple[str, ...], value: Any, words: str
) -> None:
    runs = [
        write_run(tmp_path / "first", evaluation({"input": {KID: 90.0}, "ema": {KID: 30.0}})),
        write_run(tmp_path / "second", _edited(path, value), method="cut"),
    ]
    with pytest.raises(ConfigError) as error:
        collect(runs)
    assert words.format(*runs) in str(error.value), error.value
    assert "unpaired evaluate RUN DATA" in str(error.value)


def test_what_earlier_versions_said_of_the_interval_is_no_difference(tmp_path: Path) -> None:
    """The bootstrap over images became Student's interval; values are as they were."""
    line = evaluation({"input": {PSNR: 10.0}, "ema": {PSNR: 20.0}})
    older = json.loads(
        json.dumps(line).replace("signal-to-noise ratio", "signal-to-noise ratio, interval by bootstrap over images")
    )
    found = collect([write_run(tmp_path / "now", line), write_run(tmp_path / "then", older, method="cut")])
    assert [column.protocol for column in found.columns] == ["peak signal-to-noise ratio"]


def test_all_differences_are_told_at_once(tmp_path: Path) -> None:
    lines = [evaluation({"ema": {KID: 1.0}}, seed=n, data={"image_size": 64 * n}) for n in (1, 2)]
    runs = [write_run(tmp_path / f"run{n}", line, seed=n) for n, line in enumerate(lines)]
    with pytest.raises(ConfigError, match=r"image_size is .*; the seed of the scores is "):
        collect(runs)


def test_references_that_differ_are_shown_once_with_a_warning(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / f"run{n}", evaluation({"input": {KID: value, SWD: 5.0}, "ema": {KID: 30.0}}), seed=n)
        for n, value in enumerate((90.0, 90.001, 91.0))
    ]
    found = collect(runs)
    assert value(found, "input (untranslated)", FULL_KID, "")["mean"] == 90.0
    assert found.warnings == (
        f"input (untranslated): {FULL_KID} is 90 in {runs[0]} but {FULL_KID} is 91 in {runs[2]}; the first is shown",
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_damaged_record_ends_in_anything_but_a_clear_error(tmp_path: Path, data: st.DataObject) -> None:
    line = evaluation({"input": {KID: 90.0}, "ema": {KID: 30.0}, "best": {KID: 29.0}})
    place: Any = line
    while True:
        key = data.draw(st.sampled_from(sorted(place)))
        if not isinstance(place[key], dict) or not place[key] or data.draw(st.booleans()):
            place[key] = data.draw(JSON)
            break
        place = place[key]
    run = tmp_path / "run"
    if not run.exists():
        write_run(run)
    write_lines(run / "evaluations.jsonl", [line])
    try:
        found = collect([run])
    except DataError:
        return
    for write in (to_markdown, to_csv, to_latex, to_json):
        assert write(found)


# ---------------------------------------------------------------------------------------------------------------------
# numbers
# ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("values", "printed"),
    [
        ([{"value": 30.0}, {"value": 32.0}], "31.0 ± 1.4"),  # two figures of the deviation over seeds
        ([{"value": 30.0}, {"value": 30.2}], "30.10 ± 0.14"),
        ([{"value": 500.0}, {"value": 560.0}], "530 ± 42"),
        ([{"value": 0.43, "interval": [0.42, 0.44]}], "0.430 [0.420, 0.440]"),  # else of the interval over images
        ([{"value": 30.0, "interval": [28.04, 34.9], "spread": 1.0}], "30.0 [28.0, 34.9]"),
        ([{"value": 0.43, "spread": 0.02}], "0.430 (0.020)"),
        ([{"value": 31.25}], "31.2"),  # without any, three figures of the value
        ([{"value": 0.3514}], "0.351"),
        ([{"value": 1234.4}], "1234"),
        ([{"value": 1e-9}], "0.0000"),
        ([{"value": 0.0}, {"value": 0.0}], "0.0 ± 0.0"),
        ([{"value": -0.001}, {"value": 0.001}], "0.0000 ± 0.0014"),
        ([{"value": "inf"}], "∞"),
        ([{"value": "inf"}, {"value": "inf"}, {"value": None}], "∞ 2 of 3"),
    ],
)
def test_digits_show_two_figures_of_the_uncertainty(tmp_path: Path, values: list[dict[str, Any]], printed: str) -> None:
    runs = []
    for seed, parts in enumerate(values):
        line = evaluation({"ema": {KID: 1.0}})
        line["scores"]["ema"][FULL_KID] |= parts
        runs.append(write_run(tmp_path / f"run{seed}", line, seed=seed))
    assert str(cell(collect(runs), "QS-Attn", FULL_KID)) == printed


def test_neither_references_nor_chosen_weights_are_ranked(tmp_path: Path) -> None:
    found = {("QS-Attn, similarity scaled", "ema", FULL_KID), ("CUT", "last", FULL_PSNR)}
    assert best(collect(two_methods(tmp_path))) == found


def test_values_that_print_alike_are_all_best_and_where_all_do_none_is(tmp_path: Path) -> None:
    rows = {"ema": {KID: 30.01, PSNR: 12.0}, "last": {KID: 30.02, PSNR: 12.0}}
    runs = [write_run(tmp_path / "a", evaluation(rows)), write_run(tmp_path / "b", evaluation({"ema": {KID: 35.0}}),
                                                                  method="cut")]  # fmt: skip
    assert best(collect(runs)) == {("QS-Attn", "ema", FULL_KID), ("QS-Attn", "last", FULL_KID)}


# ---------------------------------------------------------------------------------------------------------------------
# LaTeX
# ---------------------------------------------------------------------------------------------------------------------
def test_latex_with_many_scores_is_stacked(tmp_path: Path) -> None:
    text = to_latex(collect([write_run(tmp_path / "run", evaluation({"ema": dict.fromkeys(METRICS, 12.5)}))]))
    tabulars = re.findall(r"\\begin\{tabular\}\{@\{\}ll(r+)@\{\}\}", text)
    assert len(tabulars) > 1
    assert sum(map(len, tabulars)) == len(METRICS)
    for lines in re.findall(r"\\toprule(.*?)\\bottomrule", text, re.DOTALL):
        counts = {len(re.findall(r"(?<!\\)&", part)) for part in lines.split(" \\\\\n")}
        assert len(counts - {0}) == 1, lines  # every row has as many cells


@pytest.mark.parametrize(
    ("words", "source"),
    [
        ("50 % of a_b & c#1 $x", r"50 \% of a\_\allowbreak{}b \& c\#1 \$x"),
        ("[1ex] *a {x} \\y", r"{[}1ex{]} {*}a \{x\} \textbackslash{}y"),
        (
            "~ ^ < > | `",
            r"\textasciitilde{} \textasciicircum{} \textless{} \textgreater{} \textbar{} \textasciigrave{}",
        ),
        ("± ∞ → ° † …", r"$\pm$ $\infty$ $\rightarrow$ $^{\circ}$ $\dagger$ \ldots{}"),
        ("a--b ''c'' ,, \"q\"", "a-{}-b '{}'c'{}' ,{}, {''}q{''}"),  # characters that fonts would join
        ("e\u0301  ü\n\x07\u200bß", "é ü ß"),  # composed, on one line, without what cannot be printed
    ],
)
def test_text_is_escaped_for_latex(words: str, source: str) -> None:
    assert escape_latex(words) == source


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on this machine")
def test_latex_compiles_whatever_the_names_are(tmp_path: Path) -> None:
    """The strings are those with which TeX can be tripped: options after a row's end, comments, joined characters."""
    labels = ["[1ex] *a", "50 % & more_#1 $x$ ~^ {}", "\\input{x} '' -- ,, \"q\" <b> | `c`", "é ü ß ± ∞ → 12 °"]
    runs = []
    for n, _ in enumerate(labels):
        line = evaluation({**FLOOR, "ema": {KID: 30.0 + n, PSNR: math.inf}, "best": {KID: -1.0 - n}},
                          data={"name": "my_data & [more]"})  # fmt: skip
        runs.append(write_run(tmp_path / f"run{n}", line, model={"num_queries": n + 1}))
    table = to_latex(collect(runs, names=labels))
    document = f"\\documentclass{{article}}\\usepackage{{booktabs}}\n\\begin{{document}}\n{table}\\end{{document}}\n"
    (tmp_path / "page.tex").write_text(document, encoding="utf-8")
    answer = subprocess.run(
        ["pdflatex", "-draftmode", "-interaction=nonstopmode", "-halt-on-error", "page.tex"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False, errors="replace",
    )  # fmt: skip
    assert answer.returncode == 0, answer.stdout[-2000:]


# ---------------------------------------------------------------------------------------------------------------------
# over training
# ---------------------------------------------------------------------------------------------------------------------
def curve(shift: float) -> list[Record]:
    """Scores after 100, 200 and 300 images; EMA is best in the end, last in the middle."""
    return [
        training_line(seen, weights, {KID: kid + shift, PSNR: 10.0})
        for seen, kids in ((100, (60.0, 50.0)), (200, (40.0, 39.0)), (300, (30.0, 45.0)))
        for weights, kid in zip(("ema", "last"), kids, strict=True)
    ]


def test_training_scores_are_sorted_and_the_later_of_two_lines_counts(tmp_path: Path) -> None:
    again = training_line(200, "ema", {KID: 41.0, PSNR: None})
    run = write_run(tmp_path / "run", scores=[*reversed(curve(0.0)), again])
    with (run / "scores.jsonl").open("a") as file:
        file.write('{"images_seen": 400, "weigh')
    said: list[str] = []
    found = training_frame(run, said.append)
    kid = found[found["name"] == KID]
    assert [*zip(kid["images_seen"], kid["weights"], kid["value"], strict=True)] == [
        (100, "ema", 60.0), (100, "last", 50.0), (200, "ema", 41.0), (200, "last", 39.0), (300, "ema", 30.0),
        (300, "last", 45.0),
    ]  # fmt: skip
    assert said == [
        f"{run / 'scores.jsonl'}, line 8 is skipped: it is not complete JSON, as if writing it had been interrupted"
    ]


def test_a_run_without_training_scores(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"run has no scores over training.*--score-every 0"):
        training_frame(write_run(tmp_path / "run"))


def test_seeds_share_a_table_over_training_which_marks_best_and_chosen(tmp_path: Path) -> None:
    best = {"images_seen": 300, "weights": "ema", "score": "kid_lite0_x1e3_100v100"}
    runs = [write_run(tmp_path / f"run{seed}", seed=seed, scores=curve(2.0 * seed), best=best) for seed in (0, 1)]
    runs.append(write_run(tmp_path / "cut", method="cut", scores=curve(0.0)[:2]))
    ours, theirs = training_tables(runs)
    kid = "kid_lite0_x1e3_100v100"
    assert (ours.label, ours.runs, ours.images) == ("QS-Attn", (str(runs[0]), str(runs[1])), (100, 200, 300))
    assert ours.values.loc[(300, "ema", kid), "sd"] == pytest.approx(math.sqrt(2))
    assert ours.chosen == {(300, "ema", kid): 2}
    assert [str(cells[0]) for cells in ours.cells()] == ["61.0 ± 1.4", "41.0 ± 1.4", "31.0 ± 1.4 †2"]
    assert (theirs.label, theirs.images, theirs.chosen) == ("CUT", (100,), {})
    lines = list(csv.DictReader(io.StringIO(training_csv([ours, theirs]))))
    assert len(lines) == 12 + 4
    assert [line["images_seen"] for line in lines if line["best"] == "yes"] == ["300", "100"]


def test_scores_over_training_with_other_protocols_are_refused(tmp_path: Path) -> None:
    other = training_line(100, "ema", {KID: 1.0})
    other["scores"] = named([score(KID, 1.0, (50, 50))])
    runs = [write_run(tmp_path / f"run{n}", seed=n, scores=s) for n, s in enumerate((curve(0.0), [other]))]
    with pytest.raises(ConfigError, match=r"100v100' in .*run0, 'kid_lite0_x1e3_50v50' in .*run1"):
        training_tables(runs)


def test_a_broken_note_of_the_best_weights_is_reported(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", scores=curve(0.0), best={"images_seen": 300})
    (table,) = training_tables([run])
    assert table.warnings == (f"{run / 'weights' / 'best.json'} is skipped: 'weights' is missing",)


def test_what_evaluation_writes_is_what_is_read() -> None:
    assert EvaluationRecord.__annotations__["format"] == f"Literal[{evaluation_module.FORMAT}]"
