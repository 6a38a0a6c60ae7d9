"""Settings: frozen dataclasses validated by pydantic, converted to and from plain dictionaries and YAML files.

A class of settings is decorated with :func:`settings`; its annotations are the schema, including bounds (``Count``,
``Share``, ``Literal[...]``), which every number has. Types are strict: ``true`` is not a number, and unknown keys are
errors. Every error is a one-line :class:`~unpaired.errors.ConfigError` with the file, the dotted key, the value and
what was expected.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Callable, Hashable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform, get_args, get_type_hints

import pydantic.dataclasses
import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from unpaired.errors import ConfigError, nearest
from unpaired.files import contents, write_atomically

T = TypeVar("T")
stored = pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(strict=True))
"""Decorator of dataclasses for what is read from a stored line or file; :func:`checked` builds them and ignores other
fields."""

InferencePrecision = Literal["32", "bf16", "auto"]
"""Arithmetic of a translation: float32, bf16 in the networks, or whichever is faster on this machine."""
Share = Annotated[float, Field(ge=0, le=1)]
"""A float in [0, 1]."""
Amount = Annotated[float, Field(ge=0, le=1e9)]
"""A weight of a loss term and the like, in [0, 1e9]."""
Positive = Annotated[float, Field(gt=0, le=1e9)]
"""A temperature, a rate and the like, in (0, 1e9]."""
Value = Annotated[float, Field(ge=-3.5e38, le=3.5e38)]
"""A value of a pixel: whatever float32 holds."""
Count = Annotated[int, Field(ge=1, le=10**9)]
"""A number of images or steps, 1 to 1e9."""
CountOrZero = Annotated[int, Field(ge=0, le=10**9)]
"""The same from 0 on."""
BatchSize = Annotated[int, Field(ge=1, le=2**16)]
"""Images at a time, 1 to 65,536."""
Side = Annotated[int, Field(ge=1, le=2**14)]
"""A side of an image in pixels, 1 to 16,384."""
Width = Annotated[int, Field(ge=1, le=4096)]
"""Channels of a layer, 1 to 4,096."""
Depth = Annotated[int, Field(ge=1, le=64)]
"""A number of blocks, 1 to 64."""
Levels = Annotated[int, Field(ge=1, le=8)]
"""How often something is halved, 1 to 8."""
Threads = Annotated[int, Field(ge=1, le=1024)]
"""Threads or processes, 1 to 1,024."""
Gib = Annotated[float, Field(gt=0, le=2**20)]
"""Memory in GiB, above 0."""
Port = Annotated[int, Field(ge=0, le=65535)]
"""A port, 0 to 65,535; 0 takes any free one."""
FilePath = Annotated[Path, Field(strict=False)]
"""A path; text is one."""
Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""An integer in [0, 2**63)."""

_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
_MARKS = {byte: byte + 0x1B00 for byte in range(0xDC80, 0xDD00)}
"""Bytes of names that are not UTF-8, as Python's text has them -> characters that JSON can hold."""
_ALIASES, _SMALL = 10, 2**16
"""How many times the characters of a YAML file, or of this many, its aliases may stand for."""
_WORDS = {
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a finite number": "a finite number",
    "a valid boolean": "true or false",
    "a valid string": "text",
    "a valid tuple": "a list",
    "a valid array": "a list",
    "an object": "named settings (key: value)",
    "a valid dictionary": "named settings (key: value)",
    "an instance of Path": "a path (text)",
    "None": "null",
    r"String should match pattern '^[A-Za-z_][\w.]*:[A-Za-z_]\w*$'": "module:Class",
}
"""Pydantic's words -> words for YAML."""
_BOUNDS = {"greater than or equal to": "at least", "less than or equal to": "at most", "greater than": "above",
           "less than": "below"}  # fmt: skip


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def settings(cls: type[T]) -> type[T]:
    """Make a frozen dataclass that validates types and bounds, also in ``dataclasses.replace``.

    ``__post_init__`` may check combinations of values and raise ``ConfigError``. ``RETIRED``, a tuple of names, lists
    settings of earlier versions, which are ignored in files.

    Raises:
        ConfigError: On instantiation with an invalid value.
    """
    made: Any = pydantic.dataclasses.dataclass(cls, frozen=True, config=_STRICT)
    checked = made.__init__

    @functools.wraps(checked)
    def init(self: Any, *values: Any, **named: Any) -> None:
        given = {field.name: value for field, value in zip(dataclasses.fields(made), values, strict=False)} | named
        try:
            checked(self, *values[len(dataclasses.fields(made)) :], **given)
        except ValidationError as error:
            raise ConfigError(_sentence(error, made, given)) from None

    made.__init__ = init
    return made


def to_dict(config: Any) -> dict[str, Any]:
    """Settings as plain dictionaries, lists, strings, numbers, booleans and ``None``.

    Returns:
        A new dictionary in field order; ``from_dict(type(config), to_dict(config)) == config``.
    """
    return _adapter(type(config)).dump_python(config, mode="json")


def from_dict(cls: type[T], mapping: Mapping[str, Any], where: str = "run.yaml") -> T:
    """Build settings from plain values, strictly; missing keys have their defaults.

    Args:
        cls: A class decorated with :func:`settings`.
        mapping: As returned by :func:`to_dict` or :func:`load_yaml`.
        where: Name of the file or source, for messages.

    Raises:
        ConfigError: A key is unknown or missing, or a value is invalid.
    """
    if not isinstance(mapping, Mapping):
        raise ConfigError(f"{where}: must hold named settings (key: value), but holds {_show(mapping)}")
    adapter = _adapter(cls)
    given = {str(key): value for key, value in mapping.items() if key not in getattr(cls, "RETIRED", ())}
    try:
        made: T = validated(adapter, given)
        return made
    except ValidationError as error:
        raise ConfigError(f"{where}: {_sentence(error, cls, given)}") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: holds a value that cannot be a setting: {error}") from error


def validated(adapter: TypeAdapter, plain: Any, default: Callable[[Any], Any] | None = None) -> Any:
    """Build what pydantic describes from plain values as if they were JSON; else strict types take no list for a tuple.

    Raises:
        ValidationError: They do not fit.
    """
    text = json.dumps(plain, ensure_ascii=False, default=default)
    marked = text.translate(_MARKS)
    made = adapter.validate_json(marked, strict=True)
    return _unmarked(made) if text != marked else made


def checked(kind: type[T], entry: Any) -> T:
    """Make a record (:data:`stored`, or any annotation) of the values of a file.

    Raises:
        ValueError: They do not fit; one sentence about the first that does not.
    """
    try:
        made: T = validated(TypeAdapter(kind), entry, default=str)
        return made
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        if not place:
            raise ValueError(first["msg"].removeprefix("Value error, ")) from None
        if first["type"] == "missing":
            raise ValueError(f"'{place}' is missing") from None
        raise ValueError(f"'{place}' is {first['input']!r:.60}; {first['msg'].lower()}") from None


def _unmarked(value: Any) -> Any:
    """The same with the bytes of names in the place of their marks."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            object.__setattr__(value, field.name, _unmarked(getattr(value, field.name)))
        return value
    if isinstance(value, str | Path):
        return type(value)(str(value).translate({mark: byte for byte, mark in _MARKS.items()}))
    if isinstance(value, dict):
        return {_unmarked(key): _unmarked(inner) for key, inner in value.items()}
    return type(value)(map(_unmarked, value)) if isinstance(value, tuple | list) else value


def _adapter(cls: Any) -> Any:
    if "__pydantic_validator__" not in vars(cls):
        raise TypeError(f"{cls!r} is not a class of settings; decorate it with unpaired.config.settings")
    return TypeAdapter(cls)


def _sentence(error: ValidationError, cls: type, given: Any) -> str:
    """The error that lies deepest in one line; a union reports one error for each of its members."""
    found = sorted(error.errors(include_url=False), key=lambda each: -len(_place(each, given)[0]))
    path, value = _place(found[0], given)
    dotted, kind = ".".join(map(str, path)), found[0]["type"]
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        known = _names(cls, path[:-1])
        return f"unknown setting '{dotted}'{nearest(str(path[-1]), known)}; known here: {', '.join(known)}"
    if kind == "missing":
        return f"'{dotted}' is missing"
    if kind == "value_error":
        return (f"in '{dotted}': " if dotted else "") + str(found[0]["ctx"]["error"])
    same = [each for each in found if _place(each, given)[0] == path]
    same = [each for each in same if each["type"].startswith(("greater", "less"))] or same
    expected = []
    for words in (each["msg"].removeprefix("Input should be ") for each in same):
        for theirs, ours in _BOUNDS.items():
            words = words.replace(theirs, ours)
        expected.append(_WORDS.get(words, words))
    choices = re.findall(r"'([^']*)'", " ".join(expected))
    advice = ""
    if isinstance(value, str):
        advice = nearest(value, choices)
    elif isinstance(value, bool | int | float) and (choices or "text" in expected):
        advice = " (put text in quotes)"
    return f"{dotted} must be {' or '.join(dict.fromkeys(expected))}, not {_show(value)}{advice}"


def _place(problem: Any, given: Any) -> tuple[tuple[str | int, ...], Any]:
    """Path to the invalid value, without the names of union members, and the value."""
    path: tuple[str | int, ...] = ()
    for part in problem["loc"]:
        if (isinstance(given, Mapping) and part in given) or (
            isinstance(given, list | tuple) and isinstance(part, int) and part < len(given)
        ):
            given, path = given[part], (*path, part)
    if problem["type"] == "missing":
        path = (*path, problem["loc"][-1])
    return path, given


def _names(cls: Any, path: tuple[str | int, ...]) -> list[str]:
    """Names of the settings below a path."""
    for part in path:
        if part in (hints := get_type_hints(cls)):  # else a key of a dictionary or an index
            cls = next(_classes(hints[part]))
    return [field.name for field in dataclasses.fields(cls)]


def _classes(hint: Any) -> Iterator[Any]:
    """Classes of settings in an annotation."""
    if dataclasses.is_dataclass(hint):
        yield hint
    for inner in get_args(hint):
        yield from _classes(inner)


def _show(value: Any) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


class _StrictLoader(yaml.SafeLoader):
    """Rejects duplicate keys, of which PyYAML silently keeps the last; reads dates as text."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in found if not tag.endswith(":timestamp")]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # refused by PyYAML or from_dict
            if key.value in seen:
                problem = f"the setting '{key.value}' is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str) -> Any:
    """What a YAML document holds, read strictly; None where it is empty.

    Raises:
        yaml.YAMLError: It is malformed, or its aliases stand for far more than the text holds.
        RecursionError: It is nested too deep.
    """
    loader = _StrictLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {}, _ALIASES * max(len(text), _SMALL))
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _count(node: yaml.Node, known: dict[yaml.Node, int], most: int) -> int:
    """Characters and parts of a node, with what its aliases stand for.

    Raises:
        yaml.YAMLError: They are more than ``most``, or it holds itself.
    """
    if known.setdefault(node, -1) == -1:
        parts: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            parts = node.value
        if any(known.get(part) == -1 for part in parts):
            problem = "an alias (*name) stands for something that holds it; write the values themselves"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        own = len(node.value) if isinstance(node, yaml.ScalarNode) else 0
        known[node] = 1 + own + sum(_count(part, known, most) for part in parts)
        if known[node] > most:
            problem = "its aliases (*name) stand for far more than the file holds; write the values themselves"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
    return known[node]


class _Dumper(yaml.SafeDumper):
    """Escapes Unicode's rare line breaks, which PyYAML writes unescaped and reads back as spaces."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        style = '"' if any(sign in text for sign in "\x85\u2028\u2029\ufeff") else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _Dumper.represent_text)
for _class in (_StrictLoader, _Dumper):  # YAML 1.1 reads 2e-4 (no dot) as text; here it is a number
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
    )


def load_yaml(path: Path | str) -> dict[str, Any]:
    """Read a YAML file whose top level is named settings.

    Args:
        path: A UTF-8 file. An empty one gives an empty dictionary.

    Raises:
        ConfigError: The file is missing, unreadable, malformed (the message has the line number) or not a mapping.
    """
    path = Path(path)
    try:
        loaded = parse_yaml(contents(path).decode())
    except FileNotFoundError:
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise ConfigError(f"{path}: there is no such file{nearest(path.name, siblings)}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text (byte {error.start}): save it as UTF-8") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f" line {mark.line + 1}:" if mark else ""
        problem = error.problem or error.context or "malformed"
        raise ConfigError(f"{path}:{line} is not valid YAML: {problem}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"{path}: is not valid YAML: {error}") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path}: must hold named settings (key: value), but holds {_show(loaded)}")
    return loaded


def save_yaml(path: Path | str, config: Any) -> None:
    """Write settings as YAML, atomically.

    Args:
        path: The file to write; its folder is created if missing.
        config: A class of settings, or plain values as returned by :func:`to_dict`.

    Raises:
        ConfigError: The file cannot be written.
    """
    path = Path(path)
    plain = to_dict(config) if dataclasses.is_dataclass(config) else config
    text = yaml.dump(plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text.encode())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from error
