"""Configurations: strict both ways, with messages that name the file, the key and what was expected."""

from __future__ import annotations

import dataclasses
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unpaired.config import from_dict, load_yaml, save_yaml, to_dict
from unpaired.data import DataConfig
from unpaired.errors import ConfigError
from unpaired.methods.hneg_src import HnegSRCConfig


@dataclass(frozen=True)
class Adam:
    rate: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)


@dataclass(frozen=True)
class Sgd:
    rate: float = 0.1
    momentum: float | None = None


@dataclass(frozen=True)
class Inner:
    layers: tuple[int, ...] = (0, 4, 8)
    mode: Literal["global", "local", "on"] = "global"
    flip: bool = True
    places: dict[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.layers) > 5:
            raise ConfigError("layers holds more than 5 entries")


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner = Inner()
    optimizer: Adam | Sgd = Adam()
    maybe: Inner | None = None
    path: Path | None = None
    count: int = 1
    rate: float = 1.0
    size: int | Literal["auto"] = "auto"
    either: int | float | str = 1
    words: list[str] = field(default_factory=list)
    steps: tuple[Adam, ...] = ()
    derived: int = field(init=False, default=7)


# Everything that YAML can carry as text; surrogates cannot be encoded in UTF-8.
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
floats = st.floats(allow_nan=False)
paths = texts.filter(lambda text: "\0" not in text).map(Path)
adams = st.builds(Adam, rate=floats, betas=st.tuples(floats, floats))
inners = st.builds(
    Inner,
    layers=st.lists(st.integers(), max_size=5).map(tuple),
    mode=st.sampled_from(["global", "local", "on"]),
    flip=st.booleans(),
    places=st.dictionaries(texts, paths, max_size=3),
)
outers = st.builds(
    Outer,
    name=texts,
    inner=inners,
    optimizer=st.one_of(adams, st.builds(Sgd, rate=floats, momentum=st.none() | floats)),
    maybe=st.none() | inners,
    path=st.none() | paths,
    count=st.integers(),
    rate=floats,
    size=st.integers() | st.just("auto"),
    either=st.integers() | floats | texts,
    words=st.lists(texts, max_size=3),
    steps=st.lists(adams, max_size=2).map(tuple),
)


def only_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(type(key) is str and only_plain(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(only_plain, value))
    return value is None or type(value) in (bool, int, float, str)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(outers)
def test_round_trip_dictionary_and_yaml(tmp_path_factory: pytest.TempPathFactory, config: Outer) -> None:
    plain = to_dict(config)
    assert only_plain(plain)
    assert from_dict(Outer, plain) == config
    path = tmp_path_factory.getbasetemp() / "round_trip.yaml"
    save_yaml(path, config)
    again = from_dict(Outer, load_yaml(path))
    assert again == config
    assert repr(again) == repr(config)  # == does not see 1 against 1.0 or True


def test_data_config_round_trip(tmp_path: Path) -> None:
    config = DataConfig(image_size=64, load_size=72, background=(0, 1, 2), flip="none", resize="crop_only")
    save_yaml(tmp_path / "run.yaml", config)
    assert from_dict(DataConfig, load_yaml(tmp_path / "run.yaml")) == config


def test_absent_keys_take_defaults() -> None:
    assert from_dict(Outer, {"name": "a"}) == Outer("a")
    assert "derived" not in to_dict(Outer("a"))


def read(tmp_path: Path, text: str, cls: type = Outer) -> Any:
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return from_dict(cls, load_yaml(path), where=str(path))


@pytest.mark.parametrize(
    ("text", "value"), [("2e-4", 2e-4), ("1E5", 1e5), ("3", 3.0), (".5", 0.5), ("-1.5e+3", -1500.0)]
)
def test_numbers_that_yaml_1_1_takes_for_text(tmp_path: Path, text: str, value: float) -> None:
    rate = read(tmp_path, f"name: a\nrate: {text}").rate
    assert type(rate) is float
    assert rate == value


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("name: a\nrat: 1", ["run.yaml", "'rat'", "did you mean 'rate'?", "known here: name, inner"]),
        ("name: a\ninner: {flipp: true}", ["'inner.flipp'", "did you mean 'flip'?"]),
        ("name: a\nsteps: [{}, {rat: 1}]", ["'steps.1.rat'", "did you mean 'rate'?"]),
        ("name: a\n1: x", ["unknown setting '1'"]),
        ("count: 1", ["'name' is missing", "text"]),
        ("name: a\ncount: 1.5", ["'count' is 1.5", "expected a whole number"]),
        ("name: a\ncount: 1e3", ["'count' is '1e3'", "expected a whole number"]),
        ("name: a\ncount: true", ["'count' is true", "expected a whole number"]),
        ("name: a\nrate: true", ["'rate' is true", "expected a number"]),
        ("name: a\nrate: fast", ["'rate' is 'fast'", "expected a number"]),
        ("name: a\nrate: nan", ["'rate' is 'nan'", "expected a number"]),
        ("name: a\nrate: 1" + 400 * "0", ["'rate' is 1000", "...", "expected a number"]),
        ("name: a\ninner: {flip: 1}", ["'inner.flip' is 1", "expected true or false"]),
        ("name: a\ninner: {flip: 'yes'}", ["'inner.flip' is 'yes'", "expected true or false"]),
        ("name: a\ninner: {mode: globl}", ["'inner.mode' is 'globl'", "'global', 'local', 'on'", "mean 'global'?"]),
        ("name: a\ninner: {mode: on}", ["'inner.mode' is true", "put it in quotes"]),
        ("name: 2024-01-31", ["'name' is", "expected text", "reads it as date: put it in quotes"]),
        ("name: 12", ["'name' is 12", "expected text", "put it in quotes"]),
        ("name: null", ["'name' is null", "expected text"]),
        ("name: a\ninner: 3", ["'inner' is 3", "expected named settings"]),
        ("name: a\ninner: [1]", ["'inner' is [1]", "expected named settings"]),
        ("name: a\ninner: {layers: [1, x]}", ["'inner.layers.1' is 'x'", "expected a whole number"]),
        ("name: a\ninner: {layers: 3}", ["'inner.layers' is 3", "a list (each a whole number)"]),
        ("name: a\ninner: {places: {home: 3}}", ["'inner.places.home' is 3", "expected a path"]),
        ("name: a\nsteps: [{betas: [1]}]", ["'steps.0.betas' is [1]", "a list of 2 (a number, a number)"]),
        ("name: a\nsize: big", ["'size' is 'big'", "a whole number or one of 'auto'"]),
        ("name: a\npath: 3", ["'path' is 3", "a path (text) or null"]),
        ("name: a\noptimizer: {rate: 1}", ["'optimizer.type' is null", "expected one of Adam, Sgd"]),
        ("name: a\noptimizer: {type: Adan}", ["'optimizer.type' is 'Adan'", "did you mean 'Adam'?"]),
        ("name: a\noptimizer: {type: Sgd, moment: 1}", ["'optimizer.moment'", "did you mean 'momentum'?"]),
        ("name: a\ninner: {layers: [1, 2, 3, 4, 5, 6]}", ["run.yaml", "in 'inner'", "layers holds more than 5"]),
    ],
)
def test_wrong_settings(tmp_path: Path, text: str, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (b"a: 1\nb: [1, 2\nc: 3\n", ["run.yaml: line 3", "not valid YAML"]),
        (b"a: 1\n\tb: 2\n", ["line 2", "not valid YAML"]),
        (b"a: 1\nb: 2\na: 3\n", ["line 3", "'a' is given twice"]),
        (b"x:\n  a: 1\n  a: 3\n", ["line 3", "'a' is given twice"]),
        (b"a: !!python/object:os.system x\n", ["line 1", "not valid YAML"]),
        (b"a: 2024-13-45\n", ["not valid YAML"]),
        (b"a: \xff\n", ["not UTF-8", "byte 3"]),
        (b"a: \x00\n", ["not valid YAML"]),
        (b"- 1\n- 2\n", ["must hold named settings", "[1, 2]"]),
        (b"[" * 5000, ["not valid YAML"]),
        (b"? [a]\n: 1\n", ["not valid YAML"]),
        (b"a: *b\n", ["line 1", "not valid YAML"]),
    ],
)
def test_malformed_files(tmp_path: Path, text: bytes, parts: list[str]) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(text)
    with pytest.raises(ConfigError) as caught:
        load_yaml(path)
    for part in parts:
        assert part in str(caught.value)


def test_empty_file_missing_file_and_folder(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("# nothing\n")
    assert load_yaml(tmp_path / "run.yaml") == {}
    with pytest.raises(ConfigError, match=r"runn\.yaml: there is no such file \(did you mean 'run\.yaml'\?\)"):
        load_yaml(tmp_path / "runn.yaml")
    with pytest.raises(ConfigError, match="no such file"):
        load_yaml(tmp_path / "no" / "run.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_yaml(tmp_path)


def test_recursive_alias_is_an_error_not_a_hang(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'name' is"):
        read(tmp_path, "name: &a [*a]")


def test_save_is_atomic_and_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "run.yaml"
    save_yaml(path, Outer("old"))
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(ConfigError, match=r"run\.yaml: cannot be written: No space left on device"):
        save_yaml(path, Outer("new"))
    assert load_yaml(path)["name"] == "old"
    assert os.listdir(path.parent) == ["run.yaml"]


def test_programmers_errors() -> None:
    @dataclass(frozen=True)
    class Special(Adam):
        pass

    with pytest.raises(TypeError, match="expects a dataclass instance"):
        to_dict({"a": 1})
    with pytest.raises(TypeError, match="expects a dataclass, got"):
        from_dict(dict, {})
    with pytest.raises(TypeError, match="Special does not fit"):
        to_dict(Outer("a", optimizer=Special()))
    with pytest.raises(TypeError, match="no plain form"):
        to_dict(Outer("a", either=b"x"))  # type: ignore[arg-type]
    unsupported = dataclasses.make_dataclass("Unsupported", [("x", set)])
    with pytest.raises(TypeError, match="do not support"):
        from_dict(unsupported, {"x": 1})


def test_settings_of_earlier_versions_are_passed_over_and_no_others() -> None:
    known = to_dict(HnegSRCConfig())
    assert from_dict(HnegSRCConfig, {**known, "curriculum_images": 533_600}) == HnegSRCConfig()
    assert "RETIRED" not in known
    with pytest.raises(ConfigError, match="unknown setting 'curriculum_image'"):
        from_dict(HnegSRCConfig, {**known, "curriculum_image": 533_600})
