"""The pages say what the code does: examples run, commands parse, links lead somewhere, signatures and layers agree."""

from __future__ import annotations

import ast
import contextlib
import doctest
import importlib
import importlib.util
import inspect
import pkgutil
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import tyro

import unpaired.methods
from doc_pages import DOCS, ROOT, blocks, name_of
from tiny import tiny_run
from unpaired import cli
from unpaired.config import from_dict
from unpaired.data import DatasetConfig
from unpaired.inference import Translator
from unpaired.methods import METHODS
from unpaired.methods.base import register
from unpaired.methods.qs_attn import QSAttnConfig
from unpaired.ops import backends, query_selection
from unpaired.recipes import RECIPES, read_recipes, recipe
from unpaired.training import RunConfig, train

SOURCE = ROOT / "src" / "unpaired"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")])
MODULES = sorted(m.name for m in pkgutil.walk_packages(unpaired.__path__, "unpaired.") if m.name != "unpaired.__main__")


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def table(page: Path, header: str) -> list[list[str]]:
    """Cells of the table whose header row begins with ``header``."""
    text = page.read_text(encoding="utf-8")
    lines = text[text.index(header) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


# ---------------------------------------------------------------------------------------------------------------------
# links and names
# ---------------------------------------------------------------------------------------------------------------------
def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ +(.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_lead_to_a_file_and_its_heading(page: Path) -> None:
    text = re.sub(r"`[^`\n]*`", "", prose(page))
    links = re.findall(r"\]\(<?([^)\s>]+)", text) + re.findall(r"""(?:src|href)=["']([^"']+)""", text)
    broken = []
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("page", [p for p in PAGES if p.parent in (ROOT, DOCS)], ids=name_of)
def test_prose_wraps_at_120_columns(page: Path) -> None:
    """Tables, commands and pictures, which cannot be wrapped, are left out."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    long = [line for line in prose.splitlines() if len(line) > 120 and not line.startswith(("|", "!["))]
    assert not long


@pytest.mark.parametrize("page", [p for p in PAGES if p.parent == DOCS], ids=name_of)
def test_names_and_files_in_code_type_exist(page: Path) -> None:
    for word in re.findall(r"`([^`\n]+)`", prose(page)):
        if re.fullmatch(r"unpaired(\.\w+)+", word):
            resolve(word)
        elif re.fullmatch(r"[\w/.]+/\w+\.(py|md)", word):
            assert any((place / word).exists() for place in (ROOT, SOURCE)), word


def resolve(dotted: str) -> Any:
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        with contextlib.suppress(ModuleNotFoundError):
            found: Any = importlib.import_module(".".join(parts[:count]))
            for part in parts[count:]:
                found = getattr(found, part)
            return found
    raise AssertionError(dotted)


# ---------------------------------------------------------------------------------------------------------------------
# commands
# ---------------------------------------------------------------------------------------------------------------------
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_the_command_line_shows_every_command_whole() -> None:
    page = hooks().page()
    headings = re.findall(r"^## unpaired (\w*)", page, re.MULTILINE)
    assert set(cli.COMMANDS) <= set(headings)
    assert headings.count("train") == len(METHODS)
    for option in ("--num-queries", "--cycle-weight", "--precision", "--recipe"):
        assert option in page
    assert max(map(len, re.sub(r"^# .*?^## ", "", page, flags=re.M | re.S).splitlines())) <= hooks().WIDTH


def command_lines() -> Iterator[Any]:
    """Every ``unpaired ...`` in a shell block of a page, as a list of words."""
    for page in PAGES:
        for block in blocks(page, "bash", "sh", "shell", "console"):
            for line in block.replace("\\\n", " ").splitlines():
                for part in re.split(r"&&|\|\||;|\|", line.removeprefix("$ ")):
                    found = shlex.split(part, comments=True)
                    if found and re.fullmatch(r"(.*/)?unpaired", found[0]):
                        yield pytest.param(found[1:], id=f"{name_of(page)}: {' '.join(found)}")


class _Parsed(Exception):  # noqa: N818 - it ends the command where its work would begin
    pass


PLUGINS = DOCS / "plugins.md"


@pytest.fixture
def with_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget_plugins: None) -> None:
    """A working folder with the plug-ins of their page."""
    monkeypatch.chdir(tmp_path)
    for text in blocks(PLUGINS, "python"):
        (tmp_path / text.splitlines()[0].removeprefix("# ")).write_text(text, encoding="utf-8")


@pytest.mark.parametrize("arguments", list(command_lines()))
def test_commands_on_the_pages_parse(
    arguments: list[str],
    with_plugins: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = cli.with_plugins(arguments)
    if not arguments or arguments[0].startswith("-"):
        assert cli.main(arguments) == (0 if arguments else 2)
        return
    assert arguments[0] in cli.COMMANDS
    if "--config" in arguments:  # a run file that the page speaks of
        path = Path(arguments[arguments.index("--config") + 1])
        path.parent.mkdir(parents=True, exist_ok=True)
        method = arguments[arguments.index("--method") + 1] if "--method" in arguments else "qs_attn"
        path.write_text(f"method: {method}", encoding="utf-8")

    def parse_only(*args: Any, **options: Any) -> Any:
        raise _Parsed(original(*args, **options))

    def do_not_train(config: RunConfig, out: Path, **options: Any) -> None:
        raise _Parsed(config)

    original = tyro.cli
    command = importlib.import_module(cli.module_of(arguments[0]))
    if arguments[0] == "train":
        monkeypatch.setattr(command, "train", do_not_train)
        monkeypatch.setattr(command, "adapted", lambda name, config, *_: (config, []))
    else:
        monkeypatch.setattr(tyro, "cli", parse_only)
    with pytest.raises((_Parsed, SystemExit)) as ended:
        command.main(arguments[1:])
    if isinstance(ended.value, SystemExit):
        assert ended.value.code == 0, capsys.readouterr()  # --help


@pytest.mark.slow
def test_the_commands_of_the_page_of_plug_ins_run_in_order(
    with_plugins: None, dataset: Path, forget_plugins: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = (
        "--images 2 --image-size 64 --base-channels 4 --blocks 5 --num-queries 16 --projector-width 8 --num-workers 0"
    )
    for block in blocks(PLUGINS, "sh"):
        for line in block.splitlines():
            words = shlex.split(line)[1:]
            more = f"{tiny} --accelerator cpu --score-every 0".split() if words[0] == "train" else []
            with contextlib.suppress(SystemExit):  # --help
                assert cli.main([*words, *more]) == 0, line
            forget_plugins()  # each command is a process of its own
    said = capsys.readouterr().out
    assert "--variation-weight" in said
    assert "brightness" in said


# ---------------------------------------------------------------------------------------------------------------------
# examples
# ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["unpaired", *MODULES])
def test_doctests_of_the_modules_pass(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


EXTENSIONS = {
    Path(text.splitlines()[0].removeprefix("# src/unpaired/")): text
    for text in blocks(DOCS / "extending.md", "python", "yaml")
}
"""The files of the page, by their paths below src/unpaired."""


@pytest.fixture
def extended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package with the method of the page as one more file."""
    before = dict(METHODS)
    (tmp_path / "self_regularised.py").write_text(EXTENSIONS[Path("methods/self_regularised.py")], encoding="utf-8")
    monkeypatch.setattr(unpaired.methods, "__path__", [*unpaired.methods.__path__, str(tmp_path)])
    importlib.import_module("unpaired.methods.self_regularised")
    yield
    METHODS.clear()
    METHODS.update(before)
    del sys.modules["unpaired.methods.self_regularised"]


def test_each_extension_of_the_page_is_one_file() -> None:
    rows = table(DOCS / "extending.md", "| What |")
    assert {row[1] for row in rows} == {"1"}
    homes = [f"`src/unpaired/{path.parent}/`" for path in EXTENSIONS]
    assert sorted(homes) == sorted(row[2] for row in rows)
    assert not [path for path in EXTENSIONS if (SOURCE / path).exists()]


def test_the_method_of_the_page_trains_resumes_and_translates(extended: None, dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    tiny = tiny_run(dataset, "cut", images=4, checkpoint_every=1, score_every=2)
    model = METHODS["self_regularised"].Config(base_channels=4, blocks=5)
    config = replace(tiny, method="self_regularised", model=model)
    assert train(replace(config, training=replace(tiny.training, stop_after=2)), run, quiet=True).images_seen == 2
    assert train(config, run, quiet=True).finished
    x_CHW = torch.rand(3, 40, 36) * 2 - 1
    made = Translator.from_pretrained(run, device="cpu").translate(x_CHW)
    assert made.shape == x_CHW.shape
    assert made.isfinite().all()
    written = {path.name for path in run.iterdir()}
    listed = {row[0].strip("`") for row in table(DOCS / "architecture.md", "| File |") if "train" in row[1]}
    assert written == listed


def test_the_method_of_the_page_is_an_option_and_its_recipe_builds(
    extended: None, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "--regularisation-weight" in hooks().help_text(["train", "--method", "self_regularised"])
    file = dataset.parent / "self_regularised.yaml"
    file.write_text(EXTENSIONS[Path("recipes/self_regularised.yaml")], encoding="utf-8")
    for name, entry in read_recipes(file):
        monkeypatch.setitem(RECIPES, name, entry)
    config = recipe("self_regularised", dataset=DatasetConfig(folder=dataset))
    assert config.method == "self_regularised"
    assert RunConfig.from_mapping(config.to_mapping()) == config


def test_the_backend_of_the_page_selects_as_the_reference_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "double.py").write_text(EXTENSIONS[Path("ops/backends/double.py")], encoding="utf-8")
    monkeypatch.setattr(backends, "__path__", [*backends.__path__, str(tmp_path)])
    monkeypatch.setattr(query_selection, "BACKENDS", backends._find())
    del sys.modules["unpaired.ops.backends.double"]
    assert query_selection.backend_report()[-1] == ("double", True, [])
    maps = torch.randn(3, 1, 8, 6, 5)
    found, expected = (
        query_selection.query_selected_attention(maps[0], list(maps[1:]), 7, backend=name)
        for name in ("double", "reference")
    )
    assert torch.equal(found.indices, expected.indices)
    torch.testing.assert_close(found.targets, expected.targets)


def test_every_file_of_a_method_registers_it_and_no_list_names_it() -> None:
    files = {path.stem for path in (SOURCE / "methods").glob("*.py")}
    homes = {row.__module__.rpartition(".")[2] for row in METHODS.values()}
    assert homes <= files
    text = (SOURCE / "methods" / "__init__.py").read_text(encoding="utf-8")
    assert not [row.__name__ for row in METHODS.values() if row.__name__ in text]
    with pytest.raises(ValueError, match="two methods are called 'cut'"):
        register("cut")(METHODS["qs_attn"])


def test_every_method_has_a_row_on_the_page_of_methods() -> None:
    rows = table(DOCS / "methods.md", "| name |")
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    assert named == set(METHODS)
    for row in rows:
        for name, words in zip(re.findall(r"`(\w+)`", row[0]), re.split(", ", row[3]) * 2, strict=False):
            config = METHODS[name].Config
            method = METHODS[name](config(domains=("a", "b", "c")) if hasattr(config, "domains") else config())
            assert f"{sum(p.numel() for p in method.parameters()) / 1e6:.1f}" == words, name
            assert method.supports == {word for word in row[4].split(", ") if word}


def test_every_row_of_table_3_has_its_settings() -> None:
    rows = table(DOCS / "method.md", "| Row |")
    assert [row[0] for row in rows] == list("ABCDEFGH")
    settings = [dict(re.findall(r'`(\w+)="(\w+)"`', row[1])) for row in rows]
    made = [from_dict(QSAttnConfig, each) for each in settings]
    assert len({repr(config) for config in made}) == len(made)
    assert made[0] == QSAttnConfig()


# ---------------------------------------------------------------------------------------------------------------------
# architecture
# ---------------------------------------------------------------------------------------------------------------------
def layers() -> dict[str, int]:
    """Room or file in layer 1 to 6 -> its layer, as docs/architecture.md draws them."""
    (drawing,) = [text for text in blocks(DOCS / "architecture.md", "text") if text.startswith("6  ")]
    return {
        name.removesuffix(".py").rstrip("/"): int(line[0])
        for line in drawing.splitlines()
        for name in re.findall(r"\w+(?:\.py|/)(?=\s|$)", line.split("base.py")[0])
    }


def imports() -> Iterator[tuple[str, str]]:
    """(importing file below src/unpaired, imported module below ``unpaired.``) for every import in the package."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" if node.module == "unpaired" else node.module
                         for alias in node.names]  # fmt: skip
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            for name in names:
                if name.startswith("unpaired."):
                    yield str(path.relative_to(SOURCE)), name.removeprefix("unpaired.")


def room(name: str) -> str:
    return re.split(r"[/.]", name)[0]


def test_every_room_has_a_layer() -> None:
    rooms = {p.name.removesuffix(".py") for p in SOURCE.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert rooms - {"__init__"} == layers().keys()


def test_imports_point_down() -> None:
    layer, wrong = layers(), []
    for file, module in imports():
        here, there = room(file), room(module)
        if file == "__init__.py" or there not in layer or here == there:  # the front door imports on first use
            continue
        if layer[there] > layer[here] or layer[there] == layer[here] == 2:
            wrong.append(f"{file} imports unpaired.{module}")
    assert not wrong


def test_what_the_page_says_of_single_rooms() -> None:
    for file, module in imports():
        here, there = room(file), room(module)
        if here == "engine" and there == "methods":
            assert module == "methods.base", file
        if here == "losses":
            assert there in ("losses", "ops"), file


def test_signatures_on_the_page_are_those_of_the_source() -> None:
    for text in blocks(DOCS / "architecture.md", "python"):
        module = text.splitlines()[0].removeprefix("# ")
        source = inspect.getsource(importlib.import_module(module))
        compare(ast.parse(text), ast.parse(source), module)


def compare(stub: Any, source: Any, where: str) -> None:
    for part in stub.body:
        if isinstance(part, ast.FunctionDef):
            there = [header(x) for x in source.body if isinstance(x, ast.FunctionDef) and x.name == part.name]
            assert header(part) in there, f"{where}.{part.name}: {there}"
        elif isinstance(part, ast.ClassDef):
            (same,) = [x for x in source.body if isinstance(x, ast.ClassDef) and x.name == part.name]
            assert not part.bases or list(map(ast.unparse, part.bases)) == list(map(ast.unparse, same.bases))
            compare(part, same, f"{where}.{part.name}")
        elif isinstance(part, ast.AnnAssign):
            (same,) = [
                x for x in source.body
                if isinstance(x, ast.AnnAssign) and ast.unparse(x.target) == ast.unparse(part.target)
            ]  # fmt: skip
            if part.value is None and isinstance(source, ast.Module):
                same.value = None  # a table is named, not repeated
            assert ast.unparse(part) == ast.unparse(same), where
        else:
            raise AssertionError(f"{where}: {ast.unparse(part)}")


def header(function: ast.FunctionDef) -> str:
    returns = ast.unparse(function.returns) if function.returns else ""
    return f"({ast.unparse(function.args)}) -> {returns}"
