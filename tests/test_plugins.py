"""Plug-ins: a file that a person names is run, nothing else is, and a run without its plug-in says which it needs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import unpaired
from doc_pages import DOCS, blocks
from tiny import equal, tiny_run, trained, write_images
from unpaired import cli, plugins
from unpaired.config import load_yaml, save_yaml
from unpaired.errors import ConfigError, PluginWarning
from unpaired.evaluation import METRICS
from unpaired.inference import Translator
from unpaired.methods import METHODS
from unpaired.plugins import load_plugin, load_plugins
from unpaired.training import RunConfig, train

FILES = {text.splitlines()[0].removeprefix("# "): text for text in blocks(DOCS / "plugins.md", "python")}
Forget = Callable[[], None]
NETWORKS = {"generator": "my_networks:Residual", "discriminator": "my_networks:HalfSize"}


@pytest.fixture
def home(tmp_path: Path, forget_plugins: Forget, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the plug-ins of the page."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def smooth_run(dataset: Path, **changes: object) -> RunConfig:
    """A tiny run of the method of the page."""
    return tiny_run(dataset, "smooth", **changes)


def test_a_method_of_a_plug_in_resumes_to_the_bit_and_is_recorded(home: Path, dataset: Path) -> None:
    plugin = load_plugin("my_method.py")
    assert load_plugin(home / "my_method.py") == plugin
    assert train(smooth_run(dataset), "whole", quiet=True).finished
    assert not train(smooth_run(dataset, stop_after=3), "parts", quiet=True).finished
    assert train(smooth_run(dataset), "parts", quiet=True).finished
    assert equal(trained(Path("whole")), trained(Path("parts")))
    named = [{"name": "my_method.py", "sha256": plugin.sha256}]
    assert len(plugin.sha256) == 64
    assert load_yaml("parts/run.yaml")["plugins"] == named
    assert json.loads(Path("parts/weights/model.json").read_text())["plugins"] == named
    sessions = [json.loads(line) for line in Path("parts/sessions.jsonl").read_text().splitlines()]
    assert [session["plugins"] for session in sessions] == [named, named]
    assert RunConfig.load("parts/run.yaml") == smooth_run(dataset)
    train(tiny_run(dataset, images=1), "plain", quiet=True)  # loaded, but not used
    assert "plugins" not in load_yaml("plain/run.yaml")


COMMANDS = (
    ("train", "data", "--config", "{run}/run.yaml", "--out", "{run}"),
    ("translate", "{run}", "data/testA", "--out", "made"),
    ("evaluate", "{run}", "data"),
    ("report", "{run}", "--out", "report.html"),
    ("export", "{run}", "--out", "model.onnx"),
)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[0])
def test_without_its_plug_in_a_run_says_in_one_line_which_it_needs(
    command: tuple[str, ...], home: Path, dataset: Path, capsys: pytest.CaptureFixture[str], forget_plugins: Forget
) -> None:
    load_plugin("my_method.py")
    train(smooth_run(dataset, images=1), "run", quiet=True)
    forget_plugins()
    capsys.readouterr()
    assert cli.main([word.format(run="run") for word in command]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert "needs the plug-in my_method.py (sha256 " in said[-1]
    assert "--plugin my_method.py" in said[-1]
    assert len(said) == 1
    assert "my_method" not in sys.modules  # it lies in the working folder, and was not run


def test_the_card_of_a_model_names_its_plug_in(home: Path, dataset: Path, forget_plugins: Forget) -> None:
    plugin = load_plugin("my_method.py")
    train(smooth_run(dataset, images=1), "run", quiet=True)
    Translator.from_pretrained("run").bundle("card", "me/smooth")
    card = Path("card/README.md").read_text(encoding="utf-8")
    assert f"code that is not part of unpaired: `my_method.py` (SHA-256 {plugin.sha256[:16]}...)" in card
    assert "unpaired translate me/smooth photos --out translated --plugin my_method.py" in card
    shutil.copy("data/testA/image0.png", "input.png")
    forget_plugins()
    space: dict[str, Any] = {}
    exec(card.split("```python\n")[1].split("```")[0].replace("me/smooth", "run"), space)
    assert space["translated"].size == (40, 36)


def test_networks_of_a_plug_in(home: Path, dataset: Path, forget_plugins: Forget) -> None:
    with pytest.raises(ConfigError, match=r"generator: 'my_networks:Residual' is code .* add --plugin my_networks.py"):
        train(tiny_run(dataset, "cut", generator="my_networks:Residual"), "none", quiet=True)
    assert not Path("none").exists()
    load_plugin("my_networks.py")
    for kind, value in NETWORKS.items():
        for method in ("cut", "cyclegan"):
            run, config = Path(f"{method}_{kind}"), tiny_run(dataset, method, image_size=64, **{kind: value})
            assert not train(replace(config, training=replace(config.training, stop_after=3)), run, quiet=True).finished
            assert train(config, run, quiet=True).finished
            assert [one["name"] for one in load_yaml(run / "run.yaml")["plugins"]] == ["my_networks.py"]
            assert ("plugins" in json.loads((run / "weights/model.json").read_text())) == (kind == "generator")
    x = torch.rand(3, 40, 36) * 2 - 1
    assert Translator.from_pretrained("cut_generator").translate(x).shape == x.shape
    forget_plugins()
    assert Translator.from_pretrained("cut_discriminator").translate(x).shape == x.shape
    with pytest.raises(ConfigError, match=r"needs the plug-in my_networks\.py"):
        Translator.from_pretrained("cut_generator")


@pytest.mark.parametrize("value", ["os:system", "my_networks:Residual", "timm:resnet"])
def test_a_model_that_names_code_runs_none(value: str, home: Path, dataset: Path) -> None:
    train(tiny_run(dataset, "cut", images=1), "run", quiet=True)
    path = Path("run/weights/model.json")
    path.write_text(path.read_text().replace('"generator": "resnet"', f'"generator": "{value}"'))
    with pytest.raises(ConfigError, match=f"generator: '{value}' is code that is run only if you name it"):
        Translator.from_pretrained("run")
    assert "my_networks" not in sys.modules


def test_a_changed_plug_in_is_said_and_recorded(home: Path, dataset: Path, forget_plugins: Forget) -> None:
    before = load_plugin("my_method.py")
    train(smooth_run(dataset, stop_after=2), "run", quiet=True)
    forget_plugins()
    Path("my_method.py").write_text(f"{FILES['my_method.py']}\n# another\n")
    after = load_plugin("my_method.py")
    assert after.sha256 != before.sha256
    words = f"the plug-in my_method.py is not the one that .* {after.sha256[:12]}, recorded {before.sha256[:12]}"
    with pytest.warns(PluginWarning, match=words):
        train(smooth_run(dataset), "run", quiet=True)
    assert load_yaml("run/run.yaml")["plugins"] == [{"name": "my_method.py", "sha256": after.sha256}]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        RunConfig.load("run/run.yaml")
    forget_plugins()
    shutil.copy("my_method.py", "renamed.py")  # the same code by another name is the same plug-in
    load_plugin("renamed.py")
    assert RunConfig.load("run/run.yaml").method == "smooth"


def test_the_digest_is_of_all_the_code_of_a_plug_in(
    home: Path, forget_plugins: Forget, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file and what it imports from its folder, or a package: as a folder, and as an installed module."""
    (home / "beside").mkdir()
    (home / "beside" / "entry.py").write_text("from my_losses import WEIGHT\nfrom inside import more")
    (home / "beside" / "my_losses.py").write_text("import numpy\nWEIGHT = 1\ndef later():\n    import last")
    (home / "beside" / "last.py").write_text("")
    (home / "beside" / "unused.py").write_text("1 / 0")
    for package in (home / "beside" / "inside", home / "packaged"):
        package.mkdir()
        (package / "__init__.py").write_text("from . import more")
        (package / "more.py").write_text("")
    monkeypatch.syspath_prepend(str(home))
    places = {
        "beside/entry.py": ["entry.py", "my_losses.py", "last.py", "inside/__init__.py", "inside/more.py"],
        "./packaged": ["__init__.py", "more.py"],
        "packaged.more": ["__init__.py", "more.py"],
    }
    for place, files in places.items():
        digests = {load_plugin(place).sha256}
        for name in [*files, "../beside/unused.py"]:
            forget_plugins()
            path = home / ("beside" if "beside" in place else "packaged") / name
            before = path.read_text()
            path.write_text(f"{before}\n# changed")
            digests.add(load_plugin(place).sha256)
            path.write_text(before)
        forget_plugins()
        assert len(digests) == 1 + len(files), place


def test_a_package_by_the_command_line(home: Path, dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package = home / "elsewhere" / "mine"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from .method import Smooth")
    (package / "method.py").write_text(FILES["my_method.py"])
    train(tiny_run(dataset, images=1), "base", quiet=True)
    mapping = load_yaml("base/run.yaml") | {"method": "smooth"}
    save_yaml(Path("smooth.yaml"), mapping)
    words = ["--config", "smooth.yaml", "--out", "run", "--quiet", "--plugin", "elsewhere/mine"]
    assert cli.main(["train", *words]) == 0
    (recorded,) = load_yaml("run/run.yaml")["plugins"]
    assert recorded["name"] == "mine"
    assert cli.main(["info", "--plugin", "elsewhere/"]) == 2
    assert (
        "elsewhere: No such file or directory (a folder is a plug-in if it has an __init__.py)"
        in capsys.readouterr().err
    )


def test_a_kind_of_file_by_the_command_line(
    home: Path, forget_plugins: Forget, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trained, resumed, translated, evaluated and reported from files that nothing but the plug-in reads."""
    text = next(text for text in blocks(DOCS / "extending.md", "python") if "@file_kind" in text)
    (home / "pixmap.py").write_text(text.replace(".ppm", ".mine").replace("P6", "M6").replace('"PPM"', '"MINE"'))
    noise = np.random.default_rng(0)
    for split in ("trainA", "trainB", "testA", "testB"):
        (home / "drawn" / split).mkdir(parents=True)
        for number in range(3):
            pixels = noise.integers(0, 256, (36, 40, 3), np.uint8).tobytes()
            (home / "drawn" / split / f"{number}.mine").write_bytes(b"M6 40 36 255\n" + pixels)
    save_yaml(Path("tiny.yaml"), tiny_run(home / "drawn", num_workers=1).to_mapping())
    plugin = ["--plugin", "pixmap.py"]
    for command, words in {
        "first": ["train", "--config", "tiny.yaml", "--out", "run", "--quiet", "--stop-after", "2"],
        "resumed": ["train", "--config", "tiny.yaml", "--out", "run", "--quiet"],
        "translated": ["translate", "run", "drawn/testA", "--out", "made"],
        "evaluated": ["evaluate", "run", "drawn", "--metrics", "swd_progan_x1e3"],
        "reported": ["report", "run", "--out", "report.html"],
    }.items():
        forget_plugins()
        assert cli.main([*words, *plugin]) == 0, (command, capsys.readouterr())
    assert [path.read_bytes()[:2] for path in sorted(Path("made").iterdir())] == [b"M6"] * 3
    assert [one["name"] for one in load_yaml("run/run.yaml")["plugins"]] == ["pixmap.py"]
    write_images(home / "photos", 1)
    forget_plugins()
    assert cli.main(["translate", "run", "photos", "--out", "of_photos"]) == 0  # not needed for those
    for words, said in (
        (["train", "--config", "tiny.yaml", "--out", "run"], "run.yaml needs the plug-in pixmap.py"),
        (["train", "--config", "tiny.yaml", "--out", "new"], "a kind of your own needs --plugin FILE"),
    ):
        capsys.readouterr()
        assert cli.main(words) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert said in line


BROKEN = {
    "broken.py": ("import nothing_here", "line 1: ModuleNotFoundError: No module named 'nothing_here'"),
    "syntax.py": ("x = 1\ny = (", "line 2: SyntaxError: '(' was never closed"),
    "twice.py": (FILES["my_method.py"].replace('"smooth"', '"cut"'), "ValueError: two methods are called 'cut'"),
    "random.py": ("", "'random' is the name of another Python module; rename the file"),
    "torch.py": ("", "'torch' is the name of another Python module; rename the file"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_plug_in_that_cannot_be_loaded_is_one_line(name: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, words = BROKEN[name]
    (home / "sub").mkdir()
    (home / "sub" / name).write_text(text)
    known = dict(METHODS)
    assert cli.main(["info", "--plugin", f"sub/{name}"]) == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert said.startswith(f"error: plug-in {home / 'sub' / name}: ")
    assert words in said
    assert known == METHODS


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--plugin", "nothing.py"], "nothing.py: No such file or directory"),
        (
            ["--plugin=no_module"],
            "plug-in no_module: there is no such module; a file is named with its .py, a package by its folder",
        ),
        (["--plugin"], "--plugin needs a file"),
        (["--plugin="], "--plugin needs a file"),
    ],
)
def test_a_plug_in_that_is_not_there(
    words: list[str], said: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["info", *words]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("my_networks:Nothing", "my_networks has no 'Nothing'"),
        ("my_networks:F", "my_networks:F is not a class"),
        ("my_networks:HalfSize", "my_networks:HalfSize cannot be made: "),
        ("my_networks:Bare", "my_networks:Bare lacks translate_and_encode, encode, tap_channels"),
        (
            "lite",
            "generator must be 'resnet', 'light' or 'light_smooth' or module:Class, not 'lite' (did you mean 'light'",
        ),
    ],
)
def test_a_class_that_cannot_be_a_generator(value: str, said: str, home: Path, dataset: Path) -> None:
    bare = "class Bare(nn.Identity):\n    def __init__(self, *channels, **options):\n        super().__init__()\n"
    Path("my_networks.py").write_text(f"{FILES['my_networks.py']}\n\n{bare}")
    load_plugin("my_networks.py")
    with pytest.raises(ConfigError) as raised:
        train(tiny_run(dataset, "cut", generator=value), "run", quiet=True)
    assert said in str(raised.value)


def test_the_variable_and_installed_packages(
    home: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setenv(plugins.VARIABLE, os.pathsep.join(["my_method.py", "", str(home / "my_metric.py")]))
    load_plugins()
    assert "smooth" in METHODS
    assert "brightness_pm1" in METRICS

    package = home / "site" / "my_package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "methods.py").write_text(FILES["my_method.py"].replace('"smooth"', '"packaged"'))
    (package / "broken.py").write_text("1 / 0")
    about = home / "site" / "my_package-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my_package\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[unpaired.methods]\npackaged = my_package.methods\n[unpaired.metrics]\nbroken = my_package.broken\n"
    )
    monkeypatch.syspath_prepend(str(home / "site"))
    assert any(entry.module == "my_package.methods" for entry in metadata.entry_points(group="unpaired.methods"))
    plugins._load_installed.cache_clear()
    with pytest.warns(PluginWarning, match=r"plug-in my_package.broken: line 1: ZeroDivisionError.*; it is left out"):
        load_plugins()
    assert RunConfig("packaged", tiny_run(home).dataset).plugins[0].name == "my_package.methods"
    plugins._load_installed.cache_clear()


def test_a_new_process_loads_what_the_variable_names(home: Path) -> None:
    source = str(Path(unpaired.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": source, plugins.VARIABLE: "my_method.py"}
    code = "import unpaired; print(unpaired.METHODS['smooth'].title)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert answer.stdout.strip() == "Smooth QS-Attn"
