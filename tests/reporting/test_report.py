"""The report of runs: the right images, translations and points; a page that fits; figures; clear refusals."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from recorded_runs import KID, evaluation, training_line, write_lines
from tiny import tiny_run, write_images
from unpaired import cli
from unpaired.config import load_yaml, save_yaml
from unpaired.data import DatasetConfig, UnpairedFiles, load_for_protocol, tensor_to_image
from unpaired.data.folders import find_partners
from unpaired.errors import ConfigError, DataError, UserError
from unpaired.inference import Translator
from unpaired.reporting.page import html_page
from unpaired.reporting.pictures import Gallery, make_gallery, over_training
from unpaired.reporting.report import (
    loss_charts,
    score_charts,
    score_sections,
    speed_chart,
    write_figures,
    write_report,
)
from unpaired.reporting.run_folders import choose_images, held_out_images, read_runs
from unpaired.training import RunConfig, train


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, a QS-Attn run and a CUT run of six images each."""
    root = tmp_path_factory.mktemp("report")
    for split, count, seed in (("trainA", 5, 1), ("trainB", 4, 2), ("testA", 5, 3), ("testB", 5, 4)):
        write_images(root / "data" / split, count, seed=seed)
    for method in ("qs_attn", "cut"):
        train(tiny_run(root / "data", method, sample_every=2), root / method, quiet=True)
    return root


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> list[Path]:
    """Copies that a test may change."""
    return [Path(shutil.copytree(trained / name, tmp_path / name)) for name in ("qs_attn", "cut")]


def images_of(trained: Path) -> tuple[Path, ...]:
    return tuple(sorted((trained / "data" / "testA").iterdir()))


def change_settings(run: Path, **dataset: object) -> None:
    """Give a run other settings of its data set, as if it had been trained with them."""
    mapping = load_yaml(run / "run.yaml")
    mapping["dataset"] |= dataset
    save_yaml(run / "run.yaml", mapping)


# ---------------------------------------------------------------------------------------------------------------------
# what is read
# ---------------------------------------------------------------------------------------------------------------------
def test_runs_are_called_after_their_method_and_after_their_folder_where_that_is_not_enough(
    runs: list[Path], tmp_path: Path
) -> None:
    assert [run.name for run in read_runs(runs)] == ["QS-Attn", "CUT"]
    again = Path(shutil.copytree(runs[0], tmp_path / "other"))
    assert [run.name for run in read_runs([runs[0], again])] == ["qs_attn", "other"]
    twin = Path(shutil.copytree(runs[0], tmp_path / "more" / "other"))
    assert [run.name for run in read_runs([again, twin])] == [f"{tmp_path.name}/other", "more/other"]
    assert [run.name for run in read_runs(runs, ["a", "b"])] == ["a", "b"]


def test_folders_that_are_no_runs_and_names_that_do_not_fit_are_refused(runs: list[Path], tmp_path: Path) -> None:
    for paths, names, words in (
        ([], (), "name at least one run"),
        ([tmp_path], (), f"{tmp_path} is not a run folder: it holds no run.yaml"),
        ([tmp_path / "absent"], (), "there is no such folder"),
        ([runs[0], runs[0].parent / "." / "qs_attn"], (), "is given twice"),
        (runs, ("a",), "1 given for 2 runs"),
        (runs, ("a", "a"), "two runs have the same name"),
    ):
        with pytest.raises(ConfigError, match=re.escape(words)):
            read_runs(paths, names)


def test_a_damaged_log_is_read_as_far_as_it_goes(runs: list[Path]) -> None:
    with (runs[0] / "log.jsonl").open("a") as file:
        file.write('[1]\n{"images_seen": 7, "terms": {"adv')
    (run,) = read_runs(runs[:1])
    assert [record["images_seen"] for record in run.log] == [1, 2, 3, 4, 5, 6]
    (runs[0] / "log.jsonl").unlink()
    (run,) = read_runs(runs[:1])
    assert (run.log, loss_charts([run]), speed_chart([run])) == ([], {}, {})


def datasets(runs: list[Path]) -> dict[str, DatasetConfig]:
    return {run.name: run.config.dataset for run in read_runs(runs)}


def test_images_are_those_held_out_by_the_runs_unless_others_are_given(runs: list[Path], trained: Path) -> None:
    found, words = held_out_images(datasets(runs))
    assert words == f"{trained / 'data'} AtoB"
    assert found.source == images_of(trained)
    assert found.target == tuple(sorted((trained / "data" / "testB").iterdir()))
    for run in runs:
        change_settings(run, direction="BtoA")
    assert held_out_images(datasets(runs))[0] == found.swapped()
    assert held_out_images(datasets(runs), direction="AtoB")[0] == found
    places = trained / "data" / "testB", trained / "data" / "testA"
    assert held_out_images({}, None, *places) == (found.swapped(), f"{places[0]} -> {places[1]}")


def test_runs_that_differ_in_their_images_need_an_option(runs: list[Path], trained: Path) -> None:
    (trained / "empty").mkdir(exist_ok=True)
    cases: list[tuple[dict[str, Any], type[Exception], str, dict[str, Any]]] = [
        ({"direction": "BtoA"}, ConfigError, "direction: the runs differ (QS-Attn: AtoB; CUT: BtoA); choose with", {}),
        ({"folder": "/nowhere", "direction": "AtoB"}, ConfigError, "data: the runs differ", {}),
        ({}, DataError, "there are no held-out images", {"data": trained / "empty"}),
        ({}, ConfigError, "direction: applies to DATA", {"source": trained, "target": trained, "direction": "AtoB"}),
    ]
    for changes, error, words, given in cases:
        change_settings(runs[1], **changes)
        with pytest.raises(error, match=re.escape(words)):
            held_out_images(datasets(runs), **given)
    assert held_out_images(datasets(runs), trained / "data")[0].source == images_of(trained)
    with pytest.raises(DataError, match="trained on /nowhere, which is not there now; give DATA"):
        held_out_images(datasets(runs[1:]))
    change_settings(runs[1], folder=None, source="/there", target="/too")
    with pytest.raises(ConfigError, match=r"data: the runs differ \(.*CUT: /there\); choose with DATA"):
        held_out_images(datasets(runs))
    with pytest.raises(ConfigError, match="names a folder with testA and testB; give --data"):
        held_out_images(datasets(runs[1:]), option="--data")


def test_images_are_evenly_spaced_or_picked_by_name() -> None:
    files = UnpairedFiles(tuple(Path(f"{number:02d}.png") for number in range(10)), ())
    assert [path.stem for path in choose_images(files, 4)] == ["00", "02", "05", "07"]
    assert choose_images(files, 99) == files.source
    assert [path.stem for path in choose_images(files, 1, ["07", "03.png", "07"])] == ["07", "03"]
    with pytest.raises(DataError, match=r"no held-out image '3' \(did you mean"):
        choose_images(files, 1, ["3"])
    with pytest.raises(ConfigError, match="show must be at least 1, not 0"):
        choose_images(files, 0)


def test_truth_is_the_file_of_the_same_stem_when_all_have_one() -> None:
    source = (Path("s/a.png"), Path("s/b.png"))
    pairs = (Path("t/b.jpg"), Path("t/a.jpg"), Path("t/c.jpg"))
    assert find_partners(source, pairs) == {source[0]: Path("t/a.jpg"), source[1]: Path("t/b.jpg")}
    assert find_partners(source, pairs, "no") == {}
    half = (Path("t/a.jpg"),)
    assert find_partners(source, half) == find_partners(source, ()) == {}
    with pytest.raises(DataError, match=r"1 of 2 have none \(b\.png\)"):
        find_partners(source, half, "yes")
    twice = (Path("t/a.jpg"), Path("t/a.png"), Path("t/b.png"))
    assert find_partners(source, twice) == {}
    with pytest.raises(DataError, match="same name"):
        find_partners(source, twice, "yes")


# ---------------------------------------------------------------------------------------------------------------------
# pictures
# ---------------------------------------------------------------------------------------------------------------------
def test_columns_hold_what_each_run_makes_and_points_are_those_of_its_encoder(trained: Path) -> None:
    found = read_runs([trained / "qs_attn", trained / "cut"])
    chosen = images_of(trained)[:2]
    told: list[tuple[int, int]] = []
    files, _ = held_out_images(datasets([run.path for run in found]))
    gallery = make_gallery(
        found, chosen, find_partners(files.source, files.target), device="cpu",
        progress=lambda *at: told.append(at),
    )  # fmt: skip
    assert list(gallery.columns) == ["input", "QS-Attn", "CUT", "truth"]
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    for run in found:
        translator = Translator.from_pretrained(run.path, device="cpu")
        source = load_for_protocol(chosen[1], RunConfig.load(run.path / "run.yaml").data)
        expected = tensor_to_image(translator.translate(source))
        np.testing.assert_array_equal(np.asarray(gallery.columns[run.name][1]), np.asarray(expected))
        panel = next(panel for panel in gallery.panels if (panel.image, panel.tap) == ("image1", "block5"))
        view = next(view for view in panel.views if view.name == run.name)
        seen = translator.significance(source, "block5")
        np.testing.assert_array_equal(view.indices, seen.indices.numpy())
        np.testing.assert_array_equal(view.entropy, seen.entropy.numpy())
    truth = load_for_protocol(
        trained / "data" / "testB" / "image1.png", RunConfig.load(found[0].path / "run.yaml").data
    )
    np.testing.assert_array_equal(np.asarray(gallery.columns["truth"][1]), np.asarray(tensor_to_image(truth)))
    notes = {view.name: view.note for view in gallery.panels[0].views}
    assert notes["QS-Attn"].startswith("selects by entropy")
    assert notes["CUT"].startswith("sampled at random in training")


def test_taps_are_the_ones_that_select_unless_others_are_named(trained: Path) -> None:
    found, chosen = read_runs([trained / "qs_attn", trained / "cut"]), images_of(trained)[:1]
    assert make_gallery(found, chosen, {}, device="cpu").taps == ("block1", "block5")
    assert make_gallery(found[1:], chosen, {}, device="cpu").taps == ("block1", "block5")
    gallery = make_gallery(found[1:], chosen, {}, taps=["down2"], device="cpu")
    assert [(panel.tap, panel.views[0].entropy.shape) for panel in gallery.panels] == [("down2", (16, 16))]
    assert make_gallery(found, chosen, {}, taps=[], device="cpu").panels == []
    with pytest.raises(ConfigError, match=r"qs_attn: this model has no tap 'block99'.*choose others with --taps"):
        make_gallery(found, chosen, {}, taps=["block99"], device="cpu")


def test_samples_over_training_go_from_the_first_to_the_last(runs: list[Path]) -> None:
    (run,) = read_runs(runs[:1])
    strip, short, live = (
        over_training(run),
        over_training(run, most_times=2, most_rows=1),
        over_training(run, weights="last"),
    )
    assert strip is not None
    assert short is not None
    assert live is not None
    assert (strip.times, strip.heads) == ([2, 4, 6], ["input", "2", "4", "6"])
    assert [len(row) for row in strip.rows] == [4, 4, 4]
    assert (short.times, len(short.rows)) == ([2, 6], 1)
    assert live.rows[0][-1].tobytes() != strip.rows[0][-1].tobytes()
    assert live.rows[0][0].tobytes() == strip.rows[0][0].tobytes()
    # a grid of another kind makes all of them be shown whole, and broken files are left out
    Image.new("RGB", (300, 200), "red").save(runs[0] / "samples" / "000000005.png")
    (runs[0] / "samples" / "000000003.png").write_bytes(b"\x89PNG\r\n\x1a\n cut short")
    strip = over_training(run)
    assert strip is not None
    assert (strip.times, strip.has_input, len(strip.rows)) == ([2, 4, 5, 6], False, 1)
    # a run of somebody else may link to any picture of this machine
    Image.new("RGB", (300, 200), "red").save(runs[0].parent / "own.png")
    (runs[0] / "samples" / "000000007.png").symlink_to(runs[0].parent / "own.png")
    (runs[0] / "samples" / "000000008.png").mkdir()
    assert [time for time, _ in run.samples()] == [2, 3, 4, 5, 6]
    shutil.rmtree(runs[0] / "samples")
    assert over_training(run) is None


# ---------------------------------------------------------------------------------------------------------------------
# curves and scores
# ---------------------------------------------------------------------------------------------------------------------
def test_one_run_has_a_chart_per_group_and_several_have_one_per_term(trained: Path) -> None:
    found = read_runs([trained / "qs_attn", trained / "cut"])
    assert list(loss_charts(found[:1])) == ["Adversarial losses", "Content losses"]
    charts = loss_charts(found)
    assert set(charts) == {"discriminator", "adversarial", "contrastive", "identity"}
    for svg in charts.values():
        ElementTree.fromstring(svg)
        assert len(set(re.findall(r"#(?:3d85c6|e0791f)", svg))) == 2


def with_scores(run: Path, value: float, best_at: int = 4) -> None:
    write_lines(run / "evaluations.jsonl", [evaluation({"input": {KID: 90.0}, "ema": {KID: value}})])
    times = [training_line(seen, kind, {KID: value + seen}) for seen in (2, 4, 6) for kind in ("ema", "last")]
    write_lines(run / "scores.jsonl", times)
    best = {"images_seen": best_at, "weights": "ema", "score": f"{KID}_100v100", "value": value + best_at}
    (run / "weights" / "best.json").write_text(json.dumps(best))


def test_scores_come_from_the_records_and_their_absence_is_told(runs: list[Path]) -> None:
    with_scores(runs[0], 30.0)
    html = html_page("t", score_sections(read_runs(runs)))
    assert re.findall(r"<h2>(.*?)</h2>", html) == ["Scores", "Not scored", "Scores over training"]
    assert 'data-value="30.0">30.0<' in html
    assert f"Not scored yet: CUT; run: unpaired evaluate {runs[1].name}" in html
    (chart,) = score_charts(read_runs(runs)).values()  # one run was scored, and several show their averaged weights
    assert ["average (EMA)" in chart, "QS-Attn" in chart, "CUT" in chart] == [False, True, False]
    (alone,) = score_charts(read_runs(runs[:1])).values()
    assert "average (EMA)" in alone


def test_scores_that_cannot_be_compared_stand_apart(runs: list[Path]) -> None:
    for run, digest in zip(runs, ("1" * 16, "2" * 16), strict=True):
        record = evaluation({"ema": {KID: 30.0}}, data={"source_digest": digest})
        write_lines(run / "evaluations.jsonl", [record])
    html = html_page("t", score_sections(read_runs(runs)))
    assert "There is no common table" in html
    assert re.findall(r"<h2>(.*?)</h2>", html) == ["Scores", "Scores of QS-Attn", "Scores of CUT"]


# ---------------------------------------------------------------------------------------------------------------------
# page and figures
# ---------------------------------------------------------------------------------------------------------------------
def stored(html: str) -> list[Image.Image]:
    return [
        Image.open(io.BytesIO(base64.b64decode(data))) for data in re.findall(r"data:image/\w+;base64,([^\"]+)", html)
    ]


def test_a_page_has_all_parts_and_needs_nothing_else(runs: list[Path], trained: Path, tmp_path: Path) -> None:
    with_scores(runs[0], 30.0)
    found = read_runs(runs)
    gallery = make_gallery(found, images_of(trained)[:2], {}, device="cpu")
    page = write_report(
        tmp_path / "new" / "r.html", found, gallery, images="2 of 5 <images>", command="unpaired report 'a b'"
    )
    html = page.path.read_text(encoding="utf-8")
    assert page.size == len(html.encode()) < 2_000_000
    assert page.reduction == ""
    titles = re.findall(r"<h2>(.*?)</h2>", html)
    assert titles == [
        "Before and after", "Translations side by side", "Scores", "Not scored", "Scores over training",
        "Samples over training", "What is significant", "Training", "Runs", "Reproduce",
    ]  # fmt: skip
    assert "2 of 5 &lt;images&gt;" in html
    assert "unpaired report &#39;a b&#39;" in html
    assert f"unpaired train --config {runs[0].name}/run.yaml" in html
    assert str(tmp_path) not in html
    assert str(trained) not in html
    assert 'data-script="viewer"' in html
    assert "model.<wbr>" not in html
    assert ">model.attention_<wbr>taps<" in html  # a setting in which the runs differ
    assert ">model.base_<wbr>channels<" not in html
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", html)
    for image in stored(html):
        image.load()
    # a single run shows the settings that are not the defaults
    html = write_report(tmp_path / "s.html", found[1:], replace(gallery, panels=[]), images="1").path.read_text()
    assert '<th scope="row">model.base_<wbr>channels</th><td>4</td>' in html
    assert "model.temperature" not in html
    assert "What is significant" not in html


def with_noise(gallery: Gallery) -> Gallery:
    """The same with pictures of 256 pixels that compress worst."""
    rng = np.random.default_rng(0)
    noise = {
        head: [Image.fromarray(rng.integers(0, 256, (256, 256, 3), dtype=np.uint8)) for _ in pictures]
        for head, pictures in gallery.columns.items()
    }
    panels = [
        replace(panel, views=[replace(view, picture=noise["input"][0]) for view in panel.views])
        for panel in gallery.panels
    ]
    return replace(gallery, columns=noise, panels=panels)


def test_pictures_are_made_smaller_until_the_page_fits(trained: Path, tmp_path: Path) -> None:
    found = read_runs([trained / "qs_attn", trained / "cut"])
    gallery = with_noise(make_gallery(found, images_of(trained)[:2], {}, taps=["block5"], device="cpu"))
    whole = write_report(tmp_path / "a.html", found, gallery, images="2 of 5")
    assert whole.reduction == ""
    smaller = write_report(tmp_path / "b.html", found, gallery, images="2 of 5", limit=whole.size // 2)
    assert smaller.size <= whole.size // 2
    assert re.match(r"To keep the page under [\d.]+ MB, pictures have at most \d+ pixels a side\.", smaller.reduction)
    html = smaller.path.read_text(encoding="utf-8")
    assert smaller.reduction in html
    assert max(max(image.size) for image in stored(html)) < 256
    fewer = write_report(tmp_path / "c.html", found, gallery, images="2 of 5", limit=whole.size // 20)
    assert "of the 2 images are shown" in fewer.reduction
    assert fewer.size < smaller.size


def test_figures_are_whole_and_named_after_their_runs(runs: list[Path], trained: Path, tmp_path: Path) -> None:
    with_scores(runs[0], 30.0)
    found = read_runs(runs, ["QS-Attn: 1/2", "CUT"])
    gallery = make_gallery(found, images_of(trained)[:2], {}, device="cpu")
    written = write_figures(tmp_path / "figures", found, gallery)
    names = {path.name for path in written}
    sheets = ["figure_samples", "figure_training", "figure_significance_QS-Attn_1_2", "figure_significance_CUT"]
    charts = [*(f"loss_{term}" for term in ("adversarial", "contrastive", "discriminator", "identity")),
              f"score_{KID}_100v100", "speed"]  # fmt: skip
    assert names == {f"{sheet}.{kind}" for sheet in sheets for kind in ("png", "pdf")} | {
        f"figure_{chart}.svg" for chart in charts
    }
    assert names == {path.name for path in (tmp_path / "figures").iterdir()}
    for path in written:
        if path.suffix == ".png":
            with Image.open(path) as image:
                image.load()
        elif path.suffix == ".svg":
            assert "#202124" in path.read_text()
            assert "currentColor" not in path.read_text()
            ElementTree.parse(path)
        else:
            assert path.read_bytes().startswith(b"%PDF-")
    samples = Image.open(tmp_path / "figures" / "figure_samples.png")
    assert samples.width == 3 * 224 + 2 * 9  # 32 pixels a side, enlarged seven times, and gaps
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the figure"):
        write_figures(tmp_path / "file", found, gallery)


# ---------------------------------------------------------------------------------------------------------------------
# the command
# ---------------------------------------------------------------------------------------------------------------------
def test_the_command_writes_page_and_figures(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report.html"
    places = [str(trained / name) for name in ("qs_attn", "cut", "data")]
    options = ["--show", "2", "--out", str(out), "--device", "cpu", "--figures", str(tmp_path / "figures")]
    assert cli.main(["report", *places, *options]) == 0
    said = capsys.readouterr().out
    assert f"{out.resolve()}: " in said
    assert "MB, needs nothing else" in said
    assert "figure_samples.pdf" in said
    html = out.read_text(encoding="utf-8")
    assert "2 of 5 held-out images of data/testA, evenly spaced by name" in html
    assert "Not scored yet" in html
    assert (tmp_path / "figures" / "figure_samples.png").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--taps", "block77"], "this model has no tap 'block77'"),
        (["--weights", "best"], "best"),
        (["--pick", "nobody"], "there is no held-out image 'nobody'"),
        (["--show", "0"], "show must be at least 1"),
        (["--out", "FOLDER"], "is a folder; name a file, such as"),
        (["--figures", "FILE"], "is a file; name a folder"),
        (["--device", "abacus"], "'abacus' is not a device"),
        (["--source", "FOLDER/absent"], "there is no such file or folder"),
    ],
)
def test_the_command_refuses(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], words: str
) -> None:
    (tmp_path / "file").write_text("")
    places = {"FOLDER": str(tmp_path), "FILE": str(tmp_path / "file"), "FOLDER/absent": str(tmp_path / "absent")}
    arguments = ["report", str(trained / "cut"), "--out", str(tmp_path / "r.html"), "--device", "cpu"]
    assert cli.main([*arguments, *(places.get(word, word) for word in more)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert words in said
    assert not (tmp_path / "r.html").exists()


def test_sources_alone_may_be_given_and_a_corrupt_one_is_named(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path / "photos", 2)
    arguments = ["--source", str(tmp_path / "photos"), "--out", str(tmp_path / "r.html"), "--device", "cpu"]
    assert cli.main(["report", str(trained / "cut"), *arguments]) == 0
    (tmp_path / "photos" / "image1.png").write_bytes(b"no picture")
    assert cli.main(["report", str(trained / "cut"), *arguments]) == 2
    assert f"{tmp_path / 'photos' / 'image1.png'}: the content is text" in capsys.readouterr().err
