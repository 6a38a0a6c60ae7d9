"""Strict configurations: nested frozen dataclasses <-> plain dictionaries <-> YAML files.

A configuration is an ordinary dataclass whose annotations are the schema. Supported annotations: ``bool``, ``int``,
``float``, ``str``, ``Path``, ``Literal[...]``, ``tuple[...]``, ``list[T]``, ``dict[str, T]``, ``None``, unions of
these, and nested dataclasses. Nothing is guessed: an unknown key, a missing value or a value of another type is a
:class:`~unpaired.errors.ConfigError` that names the file, the dotted key and what was expected.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
import types
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from unpaired.errors import ConfigError, nearest
from unpaired.files import write_atomically

T = TypeVar("T")

TYPE_KEY = "type"  # names the class where an annotation allows several dataclasses

# YAML 1.1 reads 2e-4 (no dot) as text; people and this program mean the number.
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


class _MismatchError(Exception):
    """The value does not have the annotated type; the caller knows the key and words the message."""


# ---------------------------------------------------------------------------------------------------------------------
# dataclass -> plain dictionary
# ---------------------------------------------------------------------------------------------------------------------
def to_dict(config: Any) -> dict[str, Any]:
    """Return a configuration as dictionaries, lists, strings, numbers, booleans and ``None`` only.

    Args:
        config: An instance of a dataclass. Fields with ``init=False`` are left out.

    Returns:
        A new dictionary in field order; ``from_dict(type(config), to_dict(config)) == config``.

    Raises:
        TypeError: ``config`` is not a dataclass instance or holds a value that has no plain form.
    """
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise TypeError(f"to_dict expects a dataclass instance, got {config!r}")
    hints = _hints(type(config))
    return {f.name: _plain(getattr(config, f.name), hints[f.name]) for f in _init_fields(type(config))}


def _plain(value: Any, hint: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        choices = _dataclass_members(hint)
        named = {TYPE_KEY: type(value).__name__} if len(choices) > 1 else {}
        if choices and type(value) not in choices:
            raise TypeError(f"{type(value).__name__} does not fit the annotation {_describe(hint)}")
        return named | to_dict(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple | list):
        return [_plain(item, _item_hint(hint, position)) for position, item in enumerate(value)]
    if isinstance(value, Mapping):
        return {str(key): _plain(item, _item_hint(hint, -1)) for key, item in value.items()}
    raise TypeError(f"{value!r} of type {type(value).__name__} has no plain form")


def _item_hint(hint: Any, position: int) -> Any:
    """Return the annotation of one item inside a tuple, list or dict annotation (``Any`` when unclear)."""
    for member in _members(hint):
        arguments = get_args(member)
        if get_origin(member) is tuple and arguments:
            return arguments[0] if arguments[-1] is Ellipsis else arguments[min(position, len(arguments) - 1)]
        if get_origin(member) in (list, dict) and arguments:
            return arguments[-1]
    return Any


# ---------------------------------------------------------------------------------------------------------------------
# plain dictionary -> dataclass
# ---------------------------------------------------------------------------------------------------------------------
def from_dict(cls: type[T], mapping: Mapping[str, Any], where: str = "run.yaml") -> T:
    """Build a dataclass from plain values, strictly.

    An ``int`` is taken where a ``float`` is expected, and so is text that spells a number (``2e-4`` in YAML 1.1);
    a ``bool`` is never an ``int``. Absent keys take the field's default. Keys that the class names in ``RETIRED``,
    settings that earlier versions wrote, are passed over. Where an annotation allows several
    dataclasses, the key ``type`` names the class.

    Args:
        cls: The dataclass to build.
        mapping: What :func:`to_dict` or :func:`load_yaml` returned.
        where: The name of the file or source, for messages.

    Raises:
        ConfigError: A key is unknown or missing, a value has the wrong type, or ``__post_init__`` refused a value.
        TypeError: ``cls`` is not a dataclass or uses an annotation that this module does not support.
    """
    if not dataclasses.is_dataclass(cls):
        raise TypeError(f"from_dict expects a dataclass, got {cls!r}")
    return _build(cls, mapping, where, ())


def _build(cls: type[T], mapping: Any, where: str, path: tuple[str, ...]) -> T:
    if not isinstance(mapping, Mapping):
        name = f"'{'.'.join(path)}'" if path else "the file"
        raise ConfigError(f"{where}: {name} must hold named settings (key: value), but holds {_show(mapping)}")
    fields = {f.name: f for f in _init_fields(cls)}
    hints = _hints(cls)
    retired = getattr(cls, "RETIRED", ())
    for key in mapping:
        if key not in fields and key not in retired:
            dotted = ".".join((*path, str(key)))
            choices = ", ".join(fields) or "none"
            raise ConfigError(f"{where}: unknown setting '{dotted}'{nearest(str(key), fields)}; known here: {choices}")
    values: dict[str, Any] = {}
    for name, field in fields.items():
        field_path = (*path, name)
        if name in mapping:
            values[name] = _convert(hints[name], mapping[name], where, field_path)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{where}: '{'.'.join(field_path)}' is missing; give {_describe(hints[name])}")
    try:
        return cls(**values)
    except ConfigError as error:
        place = f"in '{'.'.join(path)}': " if path else ""
        raise ConfigError(f"{where}: {place}{error}") from error


def _convert(hint: Any, value: Any, where: str, path: tuple[str, ...]) -> Any:
    classes = _dataclass_members(hint)
    if classes and isinstance(value, Mapping):
        chosen, rest = _choose_class(classes, value, where, path)
        return _build(chosen, rest, where, path)
    try:
        return _match(hint, value, where, path)
    except _MismatchError:
        expected = _describe(hint)
        raise ConfigError(
            f"{where}: '{'.'.join(path)}' is {_show(value)}, expected {expected}{_advice(hint, value)}"
        ) from None


def _advice(hint: Any, value: Any) -> str:
    texts = [x for x in _literals(hint) if isinstance(x, str)]
    if isinstance(value, str):
        return nearest(value, texts)
    if (texts or str in _members(hint)) and not isinstance(value, Mapping | list | None):
        return f" (YAML reads it as {type(value).__name__}: put it in quotes)"
    return ""


def _choose_class(
    classes: list[type], value: Mapping[str, Any], where: str, path: tuple[str, ...]
) -> tuple[type, Mapping[str, Any]]:
    if len(classes) == 1:
        return classes[0], value
    named = {cls.__name__: cls for cls in classes}
    asked = value.get(TYPE_KEY)
    if asked not in named:
        raise ConfigError(
            f"{where}: '{'.'.join((*path, TYPE_KEY))}' is {_show(asked)}, expected one of {', '.join(named)}"
            + nearest(str(asked), named)
        )
    return named[asked], {key: item for key, item in value.items() if key != TYPE_KEY}


def _match(hint: Any, value: Any, where: str, path: tuple[str, ...]) -> Any:
    """Return ``value`` as the annotated type; the members of a union are tried exactly first, then with conversion."""
    inner: ConfigError | None = None
    for exact in (True, False):
        for member in _members(hint):
            try:
                return _match_one(member, value, exact, where, path)
            except _MismatchError:
                pass
            except ConfigError as error:  # the right container with a wrong item: another member may still fit
                inner = error
    raise inner or _MismatchError


def _match_one(hint: Any, value: Any, exact: bool, where: str, path: tuple[str, ...]) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if hint is None or hint is type(None):
        return _require(value is None, value)
    if hint is bool or hint is str:
        return _require(isinstance(value, hint), value)
    if hint is int:
        return _require(isinstance(value, int) and not isinstance(value, bool), value)
    if hint is float:
        return _match_float(value, exact)
    if hint is Path:
        return Path(_require((isinstance(value, str) and not exact) or isinstance(value, Path), value))
    if origin is Literal:
        # 1 == True == 1.0 in Python: the type must agree as well.
        return _require(any(value == x and type(value) is type(x) for x in arguments), value)
    if origin in (tuple, list):
        _require(isinstance(value, list | tuple), value)
        item_hints = _item_hints(origin, arguments, len(value))
        items = [
            _convert(item_hint, item, where, (*path, str(position)))
            for position, (item_hint, item) in enumerate(zip(item_hints, value, strict=True))
        ]
        return tuple(items) if origin is tuple else items
    if origin is dict:
        _require(isinstance(value, Mapping) and all(isinstance(key, str) for key in value), value)
        return {key: _convert(arguments[1], item, where, (*path, key)) for key, item in value.items()}
    if dataclasses.is_dataclass(hint):
        return _require(type(value) is hint, value)
    raise TypeError(f"'{'.'.join(path)}' has an annotation that configurations do not support: {hint!r}")


def _require(condition: bool, value: Any) -> Any:
    if not condition:
        raise _MismatchError
    return value


def _match_float(value: Any, exact: bool) -> float:
    if isinstance(value, float):
        return value
    if exact or isinstance(value, bool):
        raise _MismatchError
    if isinstance(value, int) or (isinstance(value, str) and _NUMBER.fullmatch(value)):
        with contextlib.suppress(OverflowError):
            number = float(value)
            return _require(math.isfinite(number), number)
    raise _MismatchError


def _item_hints(origin: Any, arguments: tuple[Any, ...], count: int) -> tuple[Any, ...]:
    if origin is list or arguments[-1] is Ellipsis:
        return (arguments[0],) * count
    if len(arguments) != count:
        raise _MismatchError
    return arguments


# ---------------------------------------------------------------------------------------------------------------------
# annotations
# ---------------------------------------------------------------------------------------------------------------------
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def _init_fields(cls: Any) -> list[dataclasses.Field[Any]]:
    return [f for f in dataclasses.fields(cls) if f.init]


def _members(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _dataclass_members(hint: Any) -> list[type]:
    return [member for member in _members(hint) if isinstance(member, type) and dataclasses.is_dataclass(member)]


def _literals(hint: Any) -> list[Any]:
    return [x for member in _members(hint) if get_origin(member) is Literal for x in get_args(member)]


def _describe(hint: Any) -> str:
    """Say in words what an annotation accepts."""
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path (text)"}
    described = []
    for member in _members(hint):
        origin, arguments = get_origin(member), get_args(member)
        if member is type(None):
            described.append("null")
        elif member in words:
            described.append(words[member])
        elif origin is Literal:
            described.append("one of " + ", ".join(map(repr, arguments)))
        elif origin is tuple and arguments[-1] is not Ellipsis:
            described.append(f"a list of {len(arguments)} ({', '.join(map(_describe, arguments))})")
        elif origin in (tuple, list):
            described.append(f"a list (each {_describe(arguments[0])})")
        else:
            described.append("named settings (key: value)")
    return " or ".join(dict.fromkeys(described))


def _show(value: Any) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


# ---------------------------------------------------------------------------------------------------------------------
# YAML files
# ---------------------------------------------------------------------------------------------------------------------
class _StrictLoader(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys in silence; here that is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # no setting has such a key; PyYAML or from_dict refuses it
            if key.value in seen:
                problem = f"the setting '{key.value}' is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """PyYAML writes Unicode's rare line breaks bare and reads them back as spaces; here they are escaped."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        style = '"' if any(sign in text for sign in "\x85\u2028\u2029\ufeff") else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _Dumper.represent_text)


def load_yaml(path: Path | str) -> dict[str, Any]:
    """Read a YAML file whose top level is named settings.

    Args:
        path: A UTF-8 file. An empty one gives an empty dictionary.

    Raises:
        ConfigError: The file is absent, unreadable, malformed (the message holds the line number) or not a mapping.
    """
    path = Path(path)
    try:
        loaded = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)  # a subclass of SafeLoader
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
    """Write a configuration as YAML; the file is either the old one or complete, never half written.

    Args:
        path: The file to write; its folder is made when absent.
        config: A dataclass instance, or plain values as :func:`to_dict` returns them.

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
