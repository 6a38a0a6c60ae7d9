"""Configurations: strict both ways, with messages that name the file, the key and what was expected."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import PositiveFloat

from limited import limited
from unpaired.config import Share, from_dict, load_yaml, save_yaml, settings, to_dict
from unpaired.data import DataConfig
from unpaired.engine.training_config import TrainingConfig
from unpaired.errors import ConfigError
from unpaired.methods import METHODS, OptimiserConfig
from unpaired.methods.hneg_src import HnegSRCConfig


@settings
class Adam:
    rate: PositiveFloat = 2e-4
    betas: tuple[Share, Share] = (0.5, 0.999)


@settings
class Inner:
    layers: tuple[int, ...] = (0, 4, 8)
    mode: Literal["global", "local", "on"] = "global"
    flip: bool = True
    places: dict[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.layers) > 5:
            raise ConfigError("layers holds more than 5 entries")


@settings
class Outer:
    name: str
    inner: Inner = Inner()
    maybe: Inner | None = None
    path: Path | None = None
    count: int = 1
    rate: float = 1.0
    size: int | Literal["auto"] = "auto"
    either: int | float | str = 1
    words: list[str] = field(default_factory=list)
    steps: tuple[Adam, ...] = ()


# Everything that YAML can carry as text; surrogates cannot be encoded in UTF-8.
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
floats = st.floats(allow_nan=False, allow_infinity=False)
shares = st.floats(0, 1)
paths = texts.filter(lambda text: "\0" not in text).map(Path)
adams = st.builds(Adam, rate=st.floats(1e-300, 1e300), betas=st.tuples(shares, shares))
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


@hypothesis_settings(max_examples=60, deadline=None, derandomize=True)
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
    ("text", "message"),
    [
        ("name: a\nrat: 1", "unknown setting 'rat' (did you mean 'rate'?); known here: name, inner, maybe"),
        ("name: a\ninner: {flipp: true}", "unknown setting 'inner.flipp' (did you mean 'flip'?)"),
        ("name: a\nmaybe: {flipp: true}", "unknown setting 'maybe.flipp' (did you mean 'flip'?)"),
        ("name: a\nsteps: [{}, {rat: 1}]", "unknown setting 'steps.1.rat' (did you mean 'rate'?)"),
        ("name: a\n1: x", "unknown setting '1'"),
        ("count: 1", "'name' is missing"),
        ("name: a\ncount: 1.5", "count must be a whole number, not 1.5"),
        ("name: a\ncount: 1e3", "count must be a whole number, not 1000.0"),
        ("name: a\ncount: true", "count must be a whole number, not true"),
        ("name: a\ncount: '1'", "count must be a whole number, not '1'"),
        ("name: a\nrate: true", "rate must be a number, not true"),
        ("name: a\nrate: fast", "rate must be a number, not 'fast'"),
        ("name: a\nrate: .nan", "rate must be a finite number, not nan"),
        ("name: a\nrate: 1" + 400 * "0", "rate must be"),
        ("name: a\ninner: {flip: 1}", "inner.flip must be true or false, not 1"),
        ("name: a\ninner: {flip: 'yes'}", "inner.flip must be true or false, not 'yes'"),
        ("name: a\ninner: {mode: globl}", "inner.mode must be 'global', 'local' or 'on', not 'globl' (did you mean"),
        ("name: a\ninner: {mode: on}", "'local' or 'on', not true (put text in quotes)"),
        ("name: 12", "name must be text, not 12 (put text in quotes)"),
        ("name: null", "name must be text, not null"),
        ("name: a\ninner: 3", "inner must be named settings (key: value), not 3"),
        ("name: a\ninner: [1]", "inner must be named settings (key: value), not [1]"),
        ("name: a\ninner: {layers: [1, x]}", "inner.layers.1 must be a whole number, not 'x'"),
        ("name: a\ninner: {layers: 3}", "inner.layers must be a list, not 3"),
        ("name: a\ninner: {places: {home: 3}}", "inner.places.home must be"),
        ("name: a\nsteps: [{betas: [1]}]", "'steps.0.betas.1' is missing"),
        ("name: a\nsteps: [{betas: [0.5, 2]}]", "steps.0.betas.1 must be at most 1, not 2"),
        ("name: a\nsteps: [{rate: 0}]", "steps.0.rate must be above 0, not 0"),
        ("name: a\nsize: big", "size must be a whole number or 'auto', not 'big'"),
        ("name: a\ninner: {layers: [1, 2, 3, 4, 5, 6]}", "in 'inner': layers holds more than 5"),
        ("name: &a [*a]", "run.yaml: "),
    ],
)
def test_wrong_settings(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'run.yaml'}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rate": 0}, "rate must be above 0, not 0"),
        ({"rate": float("inf")}, "rate must be a finite number, not inf"),
        ({"rate": True}, "rate must be a number, not true"),
        ({"rat": 1.0}, "unknown setting 'rat' (did you mean 'rate'?); known here: rate, betas"),
        ({"betas": [0.5, 0.9]}, "betas must be a list, not [0.5, 0.9]"),
        ({"betas": (0.5, 2.0)}, "betas.1 must be at most 1, not 2.0"),
    ],
)
def test_settings_made_or_replaced_in_python_are_checked_too(wrong: dict[str, Any], message: str) -> None:
    for make in (lambda: Adam(**wrong), lambda: replace(Adam(), **wrong)):
        with pytest.raises(ConfigError) as caught:
            make()
        assert str(caught.value) == message


def test_settings_given_by_position_are_named_in_the_message() -> None:
    assert Adam(1.0, (0.0, 0.9)) == Adam(rate=1.0, betas=(0.0, 0.9))
    with pytest.raises(ConfigError, match=r"^betas\.0 must be at most 1, not 3\.0$"):
        Adam(1.0, (3.0, 0.9))
    with pytest.raises(ConfigError):
        Adam(1.0, (0.0, 0.9), 3)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (b"a: 1\nb: [1, 2\nc: 3\n", ["run.yaml: line 3", "not valid YAML"]),
        (b"a: 1\n\tb: 2\n", ["line 2", "not valid YAML"]),
        (b"a: 1\nb: 2\na: 3\n", ["line 3", "'a' is given twice"]),
        (b"x:\n  a: 1\n  a: 3\n", ["line 3", "'a' is given twice"]),
        (b"a: !!python/object:os.system x\n", ["line 1", "not valid YAML"]),
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


def laughs(levels: int, level: str, first: str = "[ha, ha, ha, ha, ha, ha, ha, ha, ha]") -> str:
    """Anchors, each of which stands for the one before many times over."""
    lines = [f"a0: &a0 {first}"]
    lines += [f"a{n}: &a{n} " + level.replace("*", f"*a{n - 1}") for n in range(1, levels)]
    return "\n".join(lines)


LAUGHS = {
    "lists": laughs(9, "[*, *, *, *, *, *, *, *, *]"),
    "mappings": laughs(9, "{a: *, b: *, c: *, d: *, e: *, f: *, g: *, h: *, i: *}", "{a: 1}"),
    "merged": laughs(9, "{<<: [*, *, *, *, *, *, *, *, *]}", "{a: 1, b: 2}"),
    "text": f"a0: &a0 {'ha' * 50_000}\na1: [{'*a0, ' * 20_000}]",
}


@pytest.mark.parametrize("kind", ["lists", "mappings", "merged", "text"])
def test_aliases_do_not_stand_for_far_more_than_the_file_holds(kind: str, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(LAUGHS[kind])
    work = "from unpaired.config import load_yaml\n\ndef work(item):\n    return len(repr(load_yaml(item)))\n"
    ((said, grown),) = limited(work, [str(tmp_path / "run.yaml")], timeout=30)
    line = rf"line {'2' if kind == 'text' else '[5-9]'}: is not valid YAML: its aliases \(\*name\) stand for far more"
    assert re.match(rf"ConfigError: {tmp_path / 'run.yaml'}: {line}", said)
    assert grown < 30


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: *a}", "a: &a\n- b: [1, {c: *a}]"])
def test_no_alias_stands_for_what_holds_it(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"line \d: is not valid YAML: an alias \(\*name\) stands for something that"):
        load_yaml(tmp_path / "run.yaml")


def test_anchors_and_aliases_of_people_are_read(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        "base: &base {rate: 2e-4, betas: [0.5, 0.999]}\nsame: *base\nmore: {<<: *base, rate: 1}\n"
        "both: {<<: [*base, {seed: 3}]}\n" + "\n".join(f"run{n}: *base" for n in range(1000))
    )
    found = load_yaml(tmp_path / "run.yaml")
    assert found["same"] == found["run999"] == {"rate": 2e-4, "betas": [0.5, 0.999]}
    assert found["more"] == {"rate": 1, "betas": [0.5, 0.999]}
    assert found["both"] == {"rate": 2e-4, "betas": [0.5, 0.999], "seed": 3}
    shared = ["a", "b"]
    save_yaml(tmp_path / "twice.yaml", {"one": shared, "two": shared, "many": [{"of": shared}] * 100})
    assert "*id" in (tmp_path / "twice.yaml").read_text()
    assert load_yaml(tmp_path / "twice.yaml")["many"][99] == {"of": shared}


def test_a_long_file_without_aliases_is_read(tmp_path: Path) -> None:
    names = [f"folder/image{n}.png" for n in range(20_000)]
    (tmp_path / "run.yaml").write_text("names: [" + ",".join(names) + "]\nempty: [" + "[]," * 20_000 + "]")
    assert load_yaml(tmp_path / "run.yaml")["names"] == names


def test_dates_are_text(tmp_path: Path) -> None:
    assert read(tmp_path, "name: 2024-01-31").name == "2024-01-31"


def test_empty_file_missing_file_and_folder(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("# nothing\n")
    assert load_yaml(tmp_path / "run.yaml") == {}
    with pytest.raises(ConfigError, match=r"runn\.yaml: there is no such file \(did you mean 'run\.yaml'\?\)"):
        load_yaml(tmp_path / "runn.yaml")
    with pytest.raises(ConfigError, match="no such file"):
        load_yaml(tmp_path / "no" / "run.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_yaml(tmp_path)


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


def every_setting() -> Iterator[tuple[type, str, Any]]:
    for cls in dict.fromkeys([*(row.Config for row in METHODS.values()), OptimiserConfig, DataConfig, TrainingConfig]):
        for name, hint in get_type_hints(cls).items():
            if name in {each.name for each in fields(cls)}:
                yield cls, name, hint


@pytest.mark.parametrize(
    ("cls", "name", "hint"), [pytest.param(*x, id=f"{x[0].__name__}.{x[1]}") for x in every_setting()]
)
def test_every_setting_refuses_what_cannot_be(cls: Any, name: str, hint: Any) -> None:
    """A value of another type in any setting, and in any number NaN, infinity and (but for free ones) -1."""
    kinds = {str, Path, bool, int, float} & {hint, *get_args(hint)}
    wrong: list[Any] = [{"a": 1}, b"x"]
    wrong += [] if bool in kinds else [True]
    wrong += [float("nan"), float("inf")] if float in kinds else []
    wrong += [-1] if kinds & {int, float} and name not in ("value_range", "target_value_range", "fill_value") else []
    for value in wrong:
        with pytest.raises(ConfigError, match=rf"^{name}\b"):
            cls(**{name: value})


def test_only_classes_of_settings_are_taken() -> None:
    @dataclass(frozen=True)
    class Plain(Adam):
        momentum: float = 0.0

    for wrong in (lambda: to_dict({"a": 1}), lambda: from_dict(dict, {}), lambda: from_dict(Plain, {})):
        with pytest.raises(TypeError, match=r"decorate it with unpaired\.config\.settings"):
            wrong()


def test_settings_of_earlier_versions_are_passed_over_and_no_others() -> None:
    known = to_dict(HnegSRCConfig())
    assert from_dict(HnegSRCConfig, {**known, "curriculum_images": 533_600}) == HnegSRCConfig()
    assert "RETIRED" not in known
    with pytest.raises(ConfigError, match="unknown setting 'curriculum_image'"):
        from_dict(HnegSRCConfig, {**known, "curriculum_image": 533_600})
