"""The options of a command: parsed by tyro, and whatever is wrong with them said in one line."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import operator
import re
import shutil
import sys
import textwrap
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, TextIO, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro
from tyro.conf import OmitArgPrefixes, arg
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from unpaired.errors import ConfigError, nearest

T = TypeVar("T")
RayAddress = Annotated[
    str | None,
    PrimitiveConstructorSpec(
        nargs=(0, 1),
        metavar="[ADDRESS]",
        instance_from_str=lambda words: None if words == [_UNSET] else words[0] if words else "",
        is_instance=lambda value: value is None or isinstance(value, str),
        str_from_instance=lambda value: [_UNSET] if value is None else [value],
    ),
]
"""An option with or without an address: None where it is not given."""
_UNSET = "unset"
_NUMBERS = {
    "invalid literal for int() with base 10: ": "a whole number",
    "could not convert string to float: ": "a number",
}
"""How Python says that text is no number -> what was expected."""
registry = ConstructorRegistry()
_in_progress: set[type] = set()


class _Wrapped:
    """A stream that breaks the paragraphs of help, which tyro writes as one line each, at the terminal's width.

    An example stays one line, so that it can be copied.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._width = stream, shutil.get_terminal_size().columns

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        prose = re.compile(r"(?!Example: )['`\w].*", re.MULTILINE)
        fill = functools.partial(textwrap.fill, width=self._width, break_on_hyphens=False, break_long_words=False)
        return self._stream.write(prose.sub(lambda line: fill(line[0]), re.sub(r"\n{3,}", "\n\n", text)))


class OptionGroup:
    """Options that help shows under a title of their own; a subclass per group."""

    spec: ClassVar[StructConstructorSpec]


@registry.struct_rule
def _grouped(info: StructTypeInfo) -> StructConstructorSpec | None:
    """Options of a dataclass as tyro reads them; those in its ``option_groups`` (title -> names) in groups of help."""
    if isinstance(info.type, type) and issubclass(info.type, OptionGroup):
        return info.type.spec
    if not dataclasses.is_dataclass(info.type) or info.type in _in_progress:
        return None
    _in_progress.add(info.type)
    try:
        spec = ConstructorRegistry.get_struct_spec(info)
    finally:
        _in_progress.remove(info.type)
    if not isinstance(spec, StructConstructorSpec):
        return None
    fields = {field.name: _described(field) for field in spec.fields}
    groups = getattr(info.type, "option_groups", {})
    for title, names in groups.items():
        own = StructConstructorSpec(dict, tuple(fields[name] for name in names))
        fields[names[0]] = StructFieldSpec(title, type(title, (OptionGroup,), {"spec": own}), tyro.MISSING, "")
        for name in names[1:]:
            del fields[name]

    def build(**given: Any) -> Any:
        for title in groups:
            given |= given.pop(title, {})
        return spec.instantiate(**given)

    build.__doc__ = info.type.__doc__  # the head of help
    return StructConstructorSpec(build, tuple(fields.values()))


def _described(field: StructFieldSpec) -> StructFieldSpec:
    """The option with its help as one paragraph, where tyro keeps line breaks, and words for a tuple's default."""

    def text() -> str | None:
        found = field.helptext() if callable(field.helptext) else field.helptext
        return found and " ".join(found.split())

    kind: Any = field.type
    plain = get_args(kind)[0] if hasattr(kind, "__metadata__") else kind
    if get_origin(plain) is tuple and field.default == ():
        kind = Annotated[kind, arg(help_behavior_hint="(default: none)")]
    elif get_origin(plain) is tuple and not isinstance(field.default, tuple):
        kind = Annotated[kind, arg(help_behavior_hint="(required)")]
    return dataclasses.replace(field, type=kind, helptext=text)


@registry.primitive_rule
def _may_be_unset(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """An option of ``X | None`` takes an X; help shows it without a default, and ``unset`` puts None back."""
    if info.type_origin not in (Union, types.UnionType) or type(None) not in get_args(info.type):
        return None
    others = tuple(one for one in get_args(info.type) if one is not type(None))
    inner = ConstructorRegistry.get_primitive_spec(
        PrimitiveTypeInfo.make(functools.reduce(operator.or_, others), info.markers)
    )
    if not isinstance(inner, PrimitiveConstructorSpec):
        return None
    return dataclasses.replace(
        inner,
        choices=None,
        metavar=inner.metavar,
        instance_from_str=lambda words: None if words == [_UNSET] else inner.instance_from_str(_chosen(words, inner)),
        is_instance=lambda value: value is None or inner.is_instance(value),
        str_from_instance=lambda value: [_UNSET] if value is None else inner.str_from_instance(value),
    )


def _chosen(words: list[str], spec: PrimitiveConstructorSpec[Any]) -> list[str]:
    if spec.choices and not set(words) <= set(spec.choices):
        raise ValueError(f"'{' '.join(words)}' is not one of {', '.join(spec.choices)}")
    return words


def parse(
    kind: type[T], argv: Sequence[str], command: str, elsewhere: Mapping[str, str] | None = None, **more: Any
) -> T:
    """The options that ``argv`` gives.

    Args:
        kind: A dataclass of options.
        argv: The words after the command.
        command: Its name, for messages.
        elsewhere: Options that exist, but not here -> why not.
        more: Further arguments of ``tyro.cli``.

    Raises:
        ConfigError: An option is unknown or lacks something, or a value is none of its kind.
        SystemExit: Help was asked for, and printed.
    """
    known = dict(option_names(kind))
    for word in argv:
        name = word.lstrip("-").partition("=")[0].replace("_", "-")
        if not re.match(r"--?[A-Za-z]", word) or name in known or word in ("-h", "--help"):
            continue
        if name in (elsewhere or {}):
            raise ConfigError(f"--{name}: {(elsewhere or {})[name]}")
        raise ConfigError(
            f"there is no option {word.partition('=')[0]}{_meant(name, list(known))}; see {command} --help"
        )
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(_Wrapped(sys.stdout)), registry:
            return tyro.cli(kind, args=list(argv), prog=command, config=(OmitArgPrefixes,), **more)
    except SystemExit as end:
        if end.code in (0, None):
            raise
        sentence = _sentence(said.getvalue()).removeprefix(f"{kind.__name__}: ")
        raise ConfigError(f"{sentence}; see {command} --help") from None


def option_names(kind: Any) -> Iterator[tuple[str, Any]]:
    """Name of each option of a dataclass, and of those in it, as a person writes it, and its type."""
    for field in dataclasses.fields(kind):
        annotation = get_type_hints(kind, include_extras=True)[field.name]
        markers = getattr(annotation, "__metadata__", ())
        plain = get_args(annotation)[0] if markers else annotation
        if dataclasses.is_dataclass(plain):
            yield from option_names(plain)
        elif tyro.conf.Positional not in markers:
            name = field.name.replace("_", "-")
            yield name, plain
            if plain is bool:
                yield f"no-{name}", plain


def _meant(name: str, known: Sequence[str]) -> str:
    """``lr`` is ``learning-rate``, ``metod`` is ``method``."""
    initials = {"".join(part[0] for part in each.split("-")): each for each in reversed(known)}
    found = initials.get(name.replace("-", ""))
    return f" (did you mean --{found}?)" if found else nearest(name, known).replace("'", "--", 1).replace("'", "")


def _sentence(box: str) -> str:
    """What tyro prints in a box, drawn with lines or, where the terminal has none, with blanks, as one line."""
    plain = re.sub(r"[│╭╰╮╯]|\x1b\[[0-9;]*m", " ", box).replace("─", "-")
    title, *parts = re.split(r"^[ -]*-{5,}[ -]*$", re.sub(r"^ *-+ (.*?) -+ *$", r" \1", plain, count=1), flags=re.M)
    if not title.strip("\n").partition("\n")[2].strip():  # drawn with blanks: a rule below the title
        title, parts = f"{title}\n{parts[0]}", parts[1:]
    head, _, text = title.partition("\n")
    if "Missing from" in text:
        return f"missing: {', '.join(re.findall(r'^ {6}([^ ].*?) *$', text, re.MULTILINE))}"
    text = " ".join(text.split()).partition(" Got errors: ")[0] or head.strip()
    text = re.sub(r"no type matching (.+?) could be instantiated from \[(.+)\]", r"\2 is not \1", text)
    for theirs, ours in _NUMBERS.items():
        text = re.sub(f"{re.escape(theirs)}('[^']*')", rf"\1 is not {ours}", text)
    return text.removeprefix("Error parsing ").replace("Unrecognized options: ", "too many words: ").rstrip(".")
