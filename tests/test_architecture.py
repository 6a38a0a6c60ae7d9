"""The house rules of docs/architecture.md, read off the source itself."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import unpaired
from unpaired.cli import COMMANDS
from unpaired.config import load_yaml, save_yaml
from unpaired.methods import METHODS
from unpaired.run_config import DatasetConfig, RunConfig

ROOT = Path(unpaired.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))

LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "files", "environment"),  # the ground: no other file of ours
    ("config", "plugins", "cluster"),
    ("length", "ops", "data", "grids"),
    ("run_folder",),
    ("networks", "losses", "web"),
    ("methods",),
    ("engine",),
    ("inference",),
    ("run_config", "loggers"),
    ("session",),
    ("evaluation",),
    ("recipes", "training"),
    ("importing",),
    ("reporting",),
    ("benchmarking",),
    ("study", "studio"),
    ("cli",),
    ("__main__",),
)
"""Rooms from the bottom up. A room imports only from lower layers, so rooms beside each other never meet."""
HEIGHT = {room: layer for layer, rooms in enumerate(LAYERS) for room in rooms}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports(path: Path, *, of_types: bool = True) -> Iterator[tuple[str, int]]:
    """Modules of this package that a file imports anywhere, without the leading ``unpaired.``, and the line.

    Args:
        path: The file.
        of_types: With those under ``if TYPE_CHECKING``, which never run.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if not of_types:
        tree.body = [
            node for node in tree.body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
        ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            package, _, rest = name.partition(".")
            if package == "unpaired" and rest.split(".")[0] in HEIGHT:
                yield rest, node.lineno


def test_every_room_has_a_layer() -> None:
    rooms = {module_name(path).split(".")[0] for path in SOURCES} - {""}
    assert rooms == set(HEIGHT), "a new room: give it a layer in LAYERS and in docs/architecture.md"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: module_name(path) or "unpaired")
def test_imports_only_point_down(path: Path) -> None:
    room = module_name(path).split(".")[0]
    if not room:
        pytest.skip("unpaired/__init__.py names its public objects and imports them on first use")
    for target, line in imports(path):
        other = target.split(".")[0]
        assert other == room or HEIGHT[other] < HEIGHT[room], f"{path}:{line}: '{room}' must not import '{other}'"


def test_no_cycle_inside_a_room() -> None:
    known = {module_name(path): path for path in SOURCES}
    edges = {name: set[str]() for name in known}
    for name, path in known.items():
        for target, _ in imports(path, of_types=False):
            imported = target if target in known else target.rpartition(".")[0]
            if imported in known and imported != name and known[imported].name != "__init__.py":
                edges[name].add(imported)
    finished: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"cycle: {' -> '.join((*trail, name))}"
        if name not in finished:
            for other in edges[name]:
                visit(other, (*trail, name))
            finished.add(name)

    for name in edges:
        visit(name, ())


def test_the_engine_never_names_a_method() -> None:
    for path in (ROOT / "engine").glob("*.py"):
        for target, line in imports(path):
            if target.split(".")[0] == "methods":
                assert target.startswith("methods.base."), f"{path}:{line}: only unpaired.methods.base"
        words = set(re.findall(r"\w+", path.read_text(encoding="utf-8")))
        names = {"METHODS", *METHODS, *(row.__name__ for row in METHODS.values())}
        assert not (words & names) - {"cut"}, path  # 'cut' is a word, too


@pytest.mark.parametrize("room", ["losses", "evaluation/metrics", "ops"])
def test_these_never_see_a_configuration(room: str) -> None:
    for path in (ROOT / room).glob("*.py"):
        assert not [target for target, _ in imports(path) if target.split(".")[0] == "config"], path


def test_no_message_advises_deleting_a_file() -> None:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise | ast.Return):
                words = " ".join(str(x.value) for x in ast.walk(node) if isinstance(x, ast.Constant))
                assert not re.search(
                    r"\b(delete|erase)\b (it|them|the (file|folder|run))|remove the (file|folder)", words
                ), path


def test_commands_that_are_printed_can_be_copied() -> None:
    """What is put into a command is quoted, unless it cannot hold a blank."""
    command = re.compile(rf"\bunpaired ({'|'.join(COMMANDS)}) [^.;:']*$")
    plain = {"name", "which", "options.name", "repo_id", "option", "config.training.images", "config.training.seed",
             "' '.join(files)"}  # fmt: skip
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            before = ""
            for part in node.values if isinstance(node, ast.JoinedStr) else ():
                if isinstance(part, ast.Constant):
                    before += str(part.value)
                elif command.search(before):
                    value = ast.unparse(part.value)
                    assert value in plain or value.startswith("shlex."), f"{path}:{node.lineno}: {value} is not quoted"


def test_nothing_is_left_half_done() -> None:
    for path in SOURCES:
        found = re.search(r"TODO|FIXME|XXX|NotImplementedError", path.read_text(encoding="utf-8"))
        assert not found, f"{path}: {found and found[0]}"


def test_importing_the_package_loads_nothing_heavy_or_optional() -> None:
    project = tomllib.loads((ROOT.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(x for extra in project["optional-dependencies"].values() for x in extra)]
    distributions = [re.split(r"[^\w.-]", requirement)[0] for requirement in wanted]
    renamed = {"pillow": "PIL", "pyyaml": "yaml", "types-PyYAML": "yaml"}
    modules = {renamed.get(name, name.replace("-", "_")) for name in distributions} | {"triton", "torchvision"}
    modules -= {"unpaired"}  # an extra may name others of ours
    code = "import sys, unpaired, unpaired.cli; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert "unpaired" in loaded
    assert not modules & loaded


def test_training_needs_no_optional_package() -> None:
    """Neither Triton nor anything of an extra is loaded by the layers that train and translate on a CPU."""
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['triton', 'torchvision', 'scipy', 'onnx', 'matplotlib']));"
        "import unpaired.recipes, unpaired.evaluation, unpaired.cli.demonstration, unpaired.cli.translation"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize("name", unpaired.__all__)
def test_public_names_exist(name: str) -> None:
    assert getattr(unpaired, name) is not None


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Trainer'"):
        _ = unpaired.Trainer


def check_run(config: RunConfig, folder: Path) -> None:
    assert config.method in METHODS
    assert type(config.model) is METHODS[config.method].Config
    assert RunConfig.from_mapping(config.to_mapping()) == config
    save_yaml(folder / "run.yaml", config.to_mapping())
    assert RunConfig.from_mapping(load_yaml(folder / "run.yaml")) == config
    assert RunConfig.load(folder / "run.yaml") == config


@pytest.mark.parametrize("name", METHODS)
def test_every_method_builds_a_run(name: str, tmp_path: Path) -> None:
    check_run(RunConfig(name, DatasetConfig(folder=tmp_path)), tmp_path)
    row = METHODS[name]
    assert row.title
    assert re.search(r"\b(19|20)\d\d\.$", row.citation), "a citation ends with its year"
