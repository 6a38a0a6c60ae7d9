"""The public names, and the page that shows them: its examples run in order, and it names every name."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import unpaired
from doc_pages import DOCS, run_examples
from tiny import tiny_run
from unpaired.data import DataConfig, DatasetConfig, DomainFiles, UnpairedFiles, pair_by_name
from unpaired.data.check import check_set
from unpaired.evaluation import append_record, best_record, evaluate_made
from unpaired.reporting.tables import collect
from unpaired.run_folder import find_runs, run_status

PAGE = DOCS / "api.md"


def test_the_examples_of_the_page_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _, (train, translate, significance, score, operation, bundle, errors) = run_examples(PAGE)
    assert train == "6 True"
    assert translate == "True"
    assert (tmp_path / "translated.png").is_file()
    assert significance == "torch.Size([16, 16]) torch.Size([16])"
    assert [line.split()[0] for line in score.splitlines()] == ["input", "real", "ema", "last"]
    assert all(name in score.splitlines()[2] for name in ("swd_progan_x1e3", "paired_l1_pm1"))
    assert operation.splitlines()[0] == "torch.Size([2, 128]) torch.Size([2, 128, 64]) torch.Size([2, 128, 64])"
    assert "README.md" in bundle
    assert "runs/nothing-here/weights is not a trained run" in errors


def test_the_page_lists_exactly_the_public_names() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(rows) == set(unpaired.__all__) - {"__version__"}
    assert len(rows) == len(set(rows))
    assert all(getattr(unpaired, name).__doc__ for name in rows)


ROOMS = (
    "unpaired", "unpaired.data", "unpaired.evaluation", "unpaired.inference", "unpaired.inference.hub",
    "unpaired.training", "unpaired.importing", "unpaired.run_folder", "unpaired.reporting.tables",
    "unpaired.data.check", "unpaired.data.prepare",
)  # fmt: skip
MADE_HERE = {"Origin", "Bundle", "Snapshot", "Report", "PublishedGenerator", "EmbeddedDataset", "SampleStream",
             "Callback"}  # fmt: skip
"""Objects that the package makes and people only read, or whose functions it calls itself."""
OF_A_RUN = {"first_digest", "images_seen", "images_in_weights", "seconds_per_image", "load_record", "sibling",
            "read_published", "locked", "is_unfinished_start", "append_line", "cut_lines", "read_sessions"}  # fmt: skip
"""Functions of the package's own."""


def functions() -> Iterator[Any]:
    """Every public function of the rooms above, and the methods of their classes."""
    for room in ROOMS:
        module = importlib.import_module(room)
        own = [name for name, each in vars(module).items() if getattr(each, "__module__", None) == room]
        for name in getattr(module, "__all__", [name for name in own if not name.startswith("_")]):
            found = getattr(module, name)
            members = vars(found).items() if inspect.isclass(found) else [("", found)]
            for member, function in members:
                function = getattr(function, "__func__", function)
                public = not member.startswith("_") or member == "__init__"
                if inspect.isfunction(function) and public and name not in MADE_HERE | OF_A_RUN:
                    yield pytest.param(function, id=f"{room}.{name}{'.' * bool(member)}{member}")


@pytest.mark.parametrize("function", list(functions()))
def test_text_is_a_path_wherever_a_path_is_taken(function: Any) -> None:
    for each in inspect.signature(function).parameters.values():
        words = str(each.annotation)
        converted = words in ("tuple[Path, ...]", "tuple[tuple[Path, ...], ...]")  # by __post_init__
        found = each.name == "skip" or words in ("Sequence[Sequence[Path]]", "Iterable[Path]")  # by the package
        assert "Path" not in words or "FilePath" in words or "str" in words or converted or found, each


def test_text_works_as_a_path_and_objects_show_themselves_in_one_line(dataset: Path, tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    config = tiny_run(str(dataset), images=1, checkpoint_every=1, sample_every=9)  # type: ignore[arg-type]
    assert config.dataset == DatasetConfig(folder=dataset)
    assert unpaired.train(config, run, quiet=True).finished
    assert unpaired.RunConfig.load(f"{run}/run.yaml").dataset == config.dataset
    held_out = {name: sorted(map(str, (dataset / name).iterdir())) for name in ("testA", "testB")}
    files = UnpairedFiles(tuple(held_out["testA"]), tuple(held_out["testB"]))  # type: ignore[arg-type]
    assert len(pair_by_name(*held_out.values())) == 3
    options: dict[str, Any] = {"names": ("paired_l1_pm1",), "intervals": False}
    evaluation = unpaired.evaluate_run(run, files, device="cpu", **options)
    append_record(run, evaluation, data="here", images_seen=1)
    assert best_record(run) == {}
    made = evaluate_made(str(dataset / "testA"), files, DataConfig(image_size=32, load_size="image_size"), **options)
    assert collect([run]).rows
    assert find_runs(str(tmp_path)) == [Path(run)]
    assert run_status(run).state == "finished"
    assert check_set(str(dataset), lambda *words: None).folder == dataset

    frame = evaluation.frame()
    assert frame.loc["ema", "paired_l1_pm1_3v3"] == evaluation.scores["ema"]["paired_l1_pm1"].value
    assert "average (EMA)" in evaluation._repr_html_()
    several = DomainFiles(("a", "b"), (tuple(held_out["testA"]), tuple(held_out["testB"])))  # type: ignore[arg-type]
    for each in (
        files,
        several,
        evaluation,
        made,
        unpaired.embedded_dataset(),
        unpaired.Translator.from_pretrained(run),
    ):
        assert len(repr(each)) < 300, each


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, unpaired; assert not {'torch', 'huggingface_hub', 'PIL'} & set(sys.modules), sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Translater'"):
        _ = unpaired.Translater
