"""``unpaired study``: making, opening, serving, counting; and what it refuses."""

from __future__ import annotations

import csv
import json
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import numpy as np
import pytest
from PIL import Image
from served_study import METHODS, Served

from tiny import tiny_run, write_images
from unpaired.cli.study import main
from unpaired.config import save_yaml
from unpaired.data import UnpairedFiles, list_images, read_image
from unpaired.errors import BackendError, ConfigError, DataError, UserError
from unpaired.inference import Translator
from unpaired.run_config import DatasetConfig, RunConfig
from unpaired.study.prepare import Contender, Plan, make_study
from unpaired.study.records import DATABASE, QUESTIONS
from unpaired.study.results import evaluate_study, markdown, results_csv, votes_csv
from unpaired.study.store import Store
from unpaired.training import describe, train

Capture = pytest.CaptureFixture[str]


def study(*words: object) -> int:
    return main([str(word) for word in words])


@pytest.fixture
def making(made: Path) -> list[object]:
    """The words that make a study of two folders."""
    return [made / "ours", made / "cut", "--source", made / "source", "--target", made / "target", "--no-serve"]


# ---------------------------------------------------------------------------------------------------------------------
# making
# ---------------------------------------------------------------------------------------------------------------------
def test_a_study_of_folders(making: list[object], made: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "new" / "study"
    assert study(*making, "--out", out, "--show", 9, "--examples", 1, "--names", "Ours (a)", "CUT") == 0
    assert "6 images (all that there are; 9 were asked for), 2 methods" in capsys.readouterr().out
    store = Store(out)
    assert [method.name for method in store.study.methods] == ["Ours (a)", "CUT"]
    image = store.study.images[2]
    for method, folder in enumerate(("ours", "cut")):
        path = store.picture(image.translations[method])
        assert path is not None
        assert read_image(path).tobytes() == read_image(made / folder / image.name).tobytes()
    assert sorted(path.name for path in out.iterdir()) == ["images", DATABASE], "nothing else is left in the folder"
    assert [path.name for path in out.parent.iterdir()] == ["study"], "nor beside it"


def test_a_study_of_runs(dataset: Path, tmp_path: Path, capsys: Capture) -> None:
    """Runs name the data and the direction, translate with the weights asked for, and tell where pictures came from."""
    runs = []
    for seed in (1, 2):
        config = tiny_run(dataset, seed=seed)
        train(config, tmp_path / f"run{seed}", quiet=True)
        runs.append(tmp_path / f"run{seed}")
    assert study(*runs, "--out", tmp_path / "study", "--show", 2, "--size", 24, "--weights", "last", "--no-serve") == 0
    store = Store(tmp_path / "study")
    image = store.study.images[1]
    source = read_image(dataset / "testA" / image.name)
    scaled = source.resize((round(40 * 24 / 36), 24), Image.Resampling.BICUBIC)
    expected = Translator.from_pretrained(runs[0], weights="last").translate(scaled)
    path = store.picture(image.translations[0])
    assert path is not None
    assert np.abs(np.asarray(read_image(path), int) - np.asarray(expected, int)).max() <= 1
    assert "last weights" in store.study.methods[0].origin
    assert str(runs[0]) in store.study.methods[0].origin


def test_the_same_command_again_opens_what_it_made(making: list[object], tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "study"
    study(*making, "--out", out, "--show", 3)
    before = Store(out).study
    Store(out).enter("Ada")
    assert study(*making, "--out", out, "--show", 3) == 0
    assert Store(out).study == before
    assert len(Store(out).raters()) == 1
    with pytest.raises(ConfigError, match=r"holds another study \(images was 3, now 4\); choose another --out"):
        study(*making, "--out", out, "--show", 4)


def test_images_are_those_that_every_folder_has(made: Path, plan: Callable[..., Plan], tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for number in (5, 2):
        Image.open(made / "cut" / f"image{number}.png").save(few / f"image{number}.webp", lossless=True)
    ours = plan().contenders[0]
    assert make_study(plan(contenders=[ours, Contender("few", few)]), tmp_path / "study") == 2
    names = [image.name for image in Store(tmp_path / "study").study.images.values()]
    assert names == ["image2.png", "image5.png"]


AWKWARD = {
    "names of two folders": (["a/x.png", "b/x.png", "b/y.png"], ["a/x.png", "b/x.png", "b/y.png"]),
    "names of folders, too": (["a/c/x.png", "b/c/x.png"], ["a/c/x.png", "b/c/x.png"]),
    "another suffix": (["a/x.png", "b/x.bmp"], ["x.png", "x.bmp"]),
    "another case": (["a/x.png", "b/X.png"], ["X.png", "x.png"]),
    "bytes that are not UTF-8": (["a/caf\udce9.png", "a/caf\udcff.png"], [r"caf\udce9.png", r"caf\udcff.png"]),
    "folders that are not UTF-8": (["\udce9/x.png", "\udcff/x.png"], [r"\udce9/x.png", r"\udcff/x.png"]),
    "control characters": (["a/x\x1b[2J\n.png", "a/\u202ex.png"], [r"x\x1b[2J\n.png", r"\u202ex.png"]),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two trained runs, in a folder whose name is not UTF-8."""
    root = tmp_path_factory.mktemp("runs")
    for seed, split in enumerate(("trainA", "trainB")):
        write_images(root / "data" / split, 2, seed=seed)
    runs = [root / "\udce9" / f"run{seed}" for seed in (1, 2)]
    for seed, run in enumerate(runs):
        train(tiny_run(root / "data", seed=seed, images=2), run, quiet=True)
    return runs


@pytest.mark.parametrize("case", AWKWARD)
def test_images_of_any_name_can_be_asked_about(runs: list[Path], tmp_path: Path, case: str) -> None:
    files, names = AWKWARD[case]
    for file in files:
        path = tmp_path / "in" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 32), (len(file), 9, 9)).save(path, path.suffix[1:])
    pattern = tmp_path / "in" / "**" / "*.*"
    out = tmp_path / "\udce9"
    assert study(*runs, "--source", pattern, "--target", pattern, "--out", out, "--no-serve", "--size", 32) == 0
    assert sorted(image.name for image in Store(out).study.images.values()) == sorted(names)
    assert study(*runs, "--source", pattern, "--target", pattern, "--out", out, "--no-serve", "--size", 32) == 0


def refused_before_translating(plan: Plan, out: Path) -> str:
    """What is said of a plan that cannot be made, before any method was asked for an image."""
    said: list[str] = []
    with pytest.raises(DataError) as raised:
        make_study(plan, out, lambda words, done, total: said.append(words))
    assert said == []
    assert not out.exists()
    return str(raised.value)


def test_what_is_wrong_with_names_and_examples_is_said_before_translating(
    runs: list[Path], plan: Callable[..., Plan], made: Path, tmp_path: Path
) -> None:
    contenders = [Contender(run.name, run) for run in runs]
    source, target = (tuple(list_images(made / name)) for name in ("source", "target"))
    twice = plan(contenders=contenders, files=UnpairedFiles((*source, source[0]), target))
    assert refused_before_translating(twice, tmp_path / "out").startswith(f"{source[0]}: is given twice")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG")
    examples = plan(contenders=contenders, files=UnpairedFiles(source, (broken,)), examples=1)
    assert str(broken) in refused_before_translating(examples, tmp_path / "out")


def test_examples_are_not_the_answers(plan: Callable[..., Plan], tmp_path: Path) -> None:
    """The target files are called like the sources (pairs): the two that are not asked about are shown."""
    make_study(plan(images=4, examples=2), tmp_path / "study")
    with sqlite3.connect(tmp_path / "study" / DATABASE) as connection:
        shown = [row[0] for row in connection.execute("SELECT name FROM target_examples ORDER BY name")]
    assert shown == ["image2.png", "image5.png"]


def test_names_of_pictures_say_nothing(plan: Callable[..., Plan], tmp_path: Path) -> None:
    """Not even to somebody who has the images: the same study made twice has no name in common."""
    for name in ("one", "two"):
        make_study(plan(), tmp_path / name)
    one, two = ({path.name for path in (tmp_path / name / "images").iterdir()} for name in ("one", "two"))
    assert len(one) == len(two) == 4 * 4 + 2
    assert not one & two


def test_an_interrupted_study_leaves_nothing(plan: Callable[..., Plan], tmp_path: Path) -> None:
    def interrupt(words: str, done: int, total: int) -> None:
        if "cut" in words and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_study(plan(), tmp_path / "study", interrupt)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        (["OURS", "CUT", "--source", "SOURCE", "--target", "TARGET"], ConfigError, "--out is missing"),
        (["OURS", "--out", "OUT"], ConfigError, "compares 2 to 9 methods, not 1"),
        (["OURS"], ConfigError, "ours holds no study, and a new study compares at least two"),
        ([], ConfigError, "no RUN was given"),
        (["OURS"] * 10 + ["--out", "OUT"], ConfigError, "2 to 9 methods, not 10"),
        (["OURS", "CUT", "--out", "OUT"], ConfigError, "no run names a folder with testA and testB; give --data"),
        (["OURS", "CUT", "--out", "OUT", "--data", "MADE"], DataError, "no held-out images"),
        (["OURS", "CUT", "--out", "OUT", "--source", "SOURCE"], ConfigError, "--target is missing"),
        (["OURS", "NONE", "--out", "OUT"], DataError, "none: there is no such folder"),
        (["OURS", "CUT", "--out", "MADE", "--source", "SOURCE", "--target", "TARGET"], ConfigError, "holds no study"),
        (["OURS", "OURS", "--out", "OUT"], ConfigError, "two methods would be called 'ours'"),
        (["OURS", "CUT", "--out", "OUT", "--names", "a"], ConfigError, "names: 1 given for 2 methods"),
        (["OURS", "CUT", "--out", "OUT", "--names", "a", "b\n"], ConfigError, "printable"),
        (["OURS", "CUT", "--out", "OUT", "--show", "0"], ConfigError, "show must be at least 1"),
        (["OURS", "CUT", "--out", "OUT", "--size", "big"], ConfigError, "size is 'big'"),
        (["OURS", "EMPTY", "--out", "OUT", "--source", "SOURCE", "--target", "TARGET"], DataError, "folder is empty"),
        (["OURS", "OTHER", "--out", "OUT", "--source", "SOURCE", "--target", "TARGET"], DataError,
         "none of its 1 images is named like one of the 6 source images"),
        (["OURS", "SHAPE", "--out", "OUT", "--source", "SOURCE", "--target", "TARGET"], DataError, "another shape"),
        (["OURS", "COPY", "--out", "OUT", "--source", "SOURCE", "--target", "TARGET"], ConfigError, "the same images"),
        (["OURS", "BROKEN", "--out", "OUT", "--source", "SOURCE", "--target", "TARGET"], DataError, "image0.png"),
        (["OURS", "CUT", "--out", "OUT", "--source", "SOURCE", "--target", "TARGET", "--direction", "BtoA"],
         ConfigError, "direction: applies to --data"),
    ],
)  # fmt: skip
def test_studies_that_cannot_be_made(
    made: Path, tmp_path: Path, words: list[str], error: type[UserError], said: str
) -> None:
    for name in ("ours", "cut", "source", "target"):
        (tmp_path / name).symlink_to(made / name)
    (tmp_path / "empty").mkdir()
    write_images(tmp_path / "shape", 6, size=(40, 40))
    Image.new("RGB", (40, 32)).save(write_images(tmp_path / "other", 0) / "another.png")
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in (made / "ours").iterdir():
        read_image(path).save(copy / path.name, compress_level=0)
    (write_images(tmp_path / "broken", 6, size=(40, 32)) / "image0.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    known = ["ours", "cut", "source", "target", "out", "none", "empty", "shape", "other", "copy", "broken"]
    places = {name.upper(): tmp_path / name for name in known}
    with pytest.raises(error) as raised:
        study(*(places.get(word, tmp_path if word == "MADE" else word) for word in words), "--no-serve")
    assert said in str(raised.value)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


def test_runs_that_disagree_are_asked_about(dataset: Path, tmp_path: Path) -> None:
    for name, direction in (("there", "AtoB"), ("back", "BtoA")):
        config = RunConfig("cut", DatasetConfig(folder=dataset, direction=direction))  # type: ignore[arg-type]
        (tmp_path / name / "weights").mkdir(parents=True)
        save_yaml(tmp_path / name / "run.yaml", config.to_mapping())
        (tmp_path / name / "weights" / "model.json").write_text(json.dumps(describe(config)))
    with pytest.raises(ConfigError, match=r"direction: the runs differ \(there: AtoB; back: BtoA\); choose with --"):
        study(tmp_path / "there", tmp_path / "back", "--out", tmp_path / "study", "--no-serve")


def test_an_opened_study_takes_no_options_of_making(store: Store, made: Path) -> None:
    for words in (["--show", 7], ["--names", "a", "b"], ["--weights", "last"], ["--seed", 3]):
        with pytest.raises(ConfigError, match=r"exists and cannot be changed"):
            study(store.folder, *words, "--no-serve")
    with pytest.raises(ConfigError, match="is a study; open it alone"):
        study(made / "ours", store.folder, "--out", made / "x", "--no-serve")


# ---------------------------------------------------------------------------------------------------------------------
# results
# ---------------------------------------------------------------------------------------------------------------------
@pytest.fixture
def voted(store: Store) -> Store:
    """Seven raters; on Q the first method always wins, on T nobody does, on C one vote is missing."""
    for number in range(7):
        rater, _ = store.enter(f"rater {number}")
        for image in store.study.images:
            for question, method in (("Q", 0), ("T", (number + image) % 3), ("C", 1)):
                if (number, image, question) != (6, 3, "C"):
                    store.vote(rater.id, image, question, method, [2, 0, 1])
    return store


def test_the_table_is_table_2(voted: Store, capsys: Capture) -> None:
    assert study(voted.folder, "--table") == 0
    said = capsys.readouterr().out
    assert "User study: 4 images, 7 raters (6 finished), 83 votes" in said
    lines = {line.split()[1]: line for line in said.splitlines() if "(%)" in line}
    assert list(lines) == list(QUESTIONS)
    assert lines["Q"].split("│")[3].strip().startswith("100.0 [")
    assert "27" in lines["C"]
    assert "Q: ours against cut (28 : 0)" in said
    assert "chosen equally often (from the left, Q: 0, 100, 0 %; C: 0, 0, 100 %)" in " ".join(said.split())


def test_numbers_agree_in_every_form(voted: Store, capsys: Capture) -> None:
    results = evaluate_study(voted)
    rows = list(csv.DictReader(results_csv(results).splitlines()))
    assert [(row["question"], row["method"]) for row in rows] == [(q, m) for q in QUESTIONS for m in METHODS]
    assert [int(row["votes"]) for row in rows] == [28, 0, 0, 10, 9, 9, 0, 27, 0]
    for row, share in zip(rows, [one for question in results.questions for one in question.shares], strict=True):
        assert float(row["share"]) == share.share
        assert share.clustered is not None
        assert (float(row["clustered_low"]), float(row["wilson_high"])) == (share.clustered[0], share.wilson[1])
    assert rows[0]["p_best_holm_clustered"] == ""
    assert float(rows[1]["p_best_holm_raters"]) == pytest.approx(2 / 2**7 * 2)  # Holm: the third pair has no votes
    assert float(rows[3]["p_equal_clustered"]) > 0.5
    assert markdown(results) == markdown(evaluate_study(voted)), "the same votes, the same numbers"
    assert study(voted.folder, "--table", "--format", "markdown") == 0
    said = capsys.readouterr().out
    assert said == markdown(results)
    assert "| Q (%), image quality | 28 | **100.0 [" in said
    assert all(line.count("|") in (0, 5, 6) for line in said.splitlines())
    assert study(voted.folder, "--table", "--format", "csv") == 0
    assert capsys.readouterr().out == results_csv(results)


def test_every_vote_is_exported(voted: Store, tmp_path: Path, capsys: Capture) -> None:
    rater = voted.raters()[0]
    voted.vote(rater.id, 0, "Q", 2, [2, 0, 1])
    assert study(voted.folder, "--export", tmp_path / "new" / "votes.csv") == 0
    assert "83 votes written" in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "new" / "votes.csv").read_text().splitlines()))
    assert len(rows) == 83
    assert rows[-1] | {"time": ""} == {
        "time": "", "rater": "rater 0", "image": "image0.png", "question": "Q", "method": "cyclegan", "position": "1",
        "shown": "cyclegan | ours | cut", "changed": "1",
    }  # fmt: skip
    assert sorted(row["time"] for row in rows) == [row["time"] for row in rows]
    assert all(row["time"].endswith("+00:00") for row in rows)


def test_a_study_without_votes(store: Store, capsys: Capture) -> None:
    assert study(store.folder, "--table", "--format", "text") == 0
    assert "nobody has voted yet" in capsys.readouterr().out
    results = evaluate_study(store)
    assert "nobody has voted yet" in markdown(results)
    assert len(results_csv(results).splitlines()) == 10
    assert votes_csv([]) == "time,rater,image,question,method,position,shown,changed\n"


# ---------------------------------------------------------------------------------------------------------------------
# serving
# ---------------------------------------------------------------------------------------------------------------------
def vote_once(server: Served, rater: dict[str, Any], question: str) -> int:
    item = rater["items"][0]
    choice = {"source": item["source"], "question": question, "choice": item["choices"][0]}
    return server.ask("api/vote", {"rater": rater["id"], **choice})["votes"]


def test_served_killed_served_again_exported_and_ended(
    served: Callable[..., Served], store: Store, tmp_path: Path, capsys: Capture
) -> None:
    first = served()
    assert first.said[0] == f"{store.folder}: 4 images, 3 methods, 0 raters (0 finished), 0 votes\n"
    assert first.address.startswith("http://127.0.0.1:")
    ada = first.ask("api/enter", {"name": "Ada", "resume": False})["rater"]
    assert vote_once(first, ada, "Q") == 1
    assert vote_once(first, ada, "T") == 2
    assert first.end(signal.SIGKILL)[0] == -signal.SIGKILL
    second = served()
    assert "1 rater (0 finished), 2 votes" in second.said[0]
    second.cookie = first.cookie
    rater = second.ask("api/study")["rater"]
    assert (rater["votes"], rater["items"][0]["choices"]) == (2, ada["items"][0]["choices"])
    assert vote_once(second, ada, "C") == 3
    assert study(store.folder, "--export", tmp_path / "votes.csv", "--table") == 0, "while it is being served"
    assert len((tmp_path / "votes.csv").read_text().splitlines()) == 4
    started = time.monotonic()
    code, out, err = second.end()
    assert (code, err) == (0, "")
    assert "ended with 1 rater (0 finished), 3 votes; results: unpaired study" in out
    assert time.monotonic() - started < 5
    assert [path.name for path in sorted(store.folder.iterdir())] == ["images", DATABASE], "the journal is folded in"


def test_a_missing_picture_is_named_in_the_terminal(served: Callable[..., Served], store: Store) -> None:
    server = served()
    file = next(iter(store.by_file))
    (store.folder / "images" / f"{file}.png").unlink()
    with pytest.raises(HTTPError, match="503") as raised:
        server.ask(f"picture/{file}")
    assert str(store.folder).encode() not in raised.value.read()
    code, _, err = server.end()
    assert code == 0
    assert f"GET /picture/{file}: {store.folder / 'images' / file}.png: is missing" in err


def test_other_machines_only_with_a_warning(served: Callable[..., Served]) -> None:
    server = served("--host", "0.0.0.0")
    server.address = f"http://127.0.0.1:{server.port}/"
    assert server.ask("api/study")["images"] == 4
    code, _, err = server.end()
    assert code == 0
    assert err.startswith("warning: bound to 0.0.0.0, so other machines can reach this study, without password")


def test_a_port_in_use_and_addresses_that_are_none(served: Callable[..., Served], store: Store) -> None:
    port = served().address.rstrip("/").rpartition(":")[2]
    with pytest.raises(ConfigError, match=rf"port {port} is in use on 127.0.0.1; use another --port"):
        study(store.folder, "--port", port)
    for host, words in (("203.0.113.7", "cannot listen on 203.0.113.7"), ("no host", "is not an address of this")):
        with pytest.raises(ConfigError, match=words):
            study(store.folder, "--host", host, "--port", 0)
    with pytest.raises(ConfigError, match="port must be at most 65535, not 70000"):
        study(store.folder, "--port", 70000)


def test_without_the_optional_packages(store: Store, making: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(BackendError, match=r"needs the package 'uvicorn'.*pip install \"unpaired\[study\]\""):
        study(store.folder)
    out = store.folder.parent / "other"
    with pytest.raises(BackendError):
        study(*making[:-1], "--out", out)
    assert not out.exists(), "said before anything is translated"
    assert study(store.folder, "--table") == 0, "results need nothing of the page"
    monkeypatch.setitem(sys.modules, "scipy", None)
    for name in ("results", "statistics"):
        monkeypatch.delitem(sys.modules, f"unpaired.study.{name}")
        monkeypatch.delattr(f"unpaired.study.{name}")
    with pytest.raises(BackendError, match=r"need the package 'scipy'.*pip install \"unpaired\[study\]\""):
        study(store.folder, "--table")
