"""Mutants of a Python module: every small change of its code that tests ought to notice, in a fixed order.

What is changed: arithmetic, comparison and boolean operators; numbers and truth values; arguments (the last or a named
one left out, two neighbours exchanged); returned values; conditions; slices; the order of ``a, b = ...``; reductions,
by their opposites; method calls without arguments (left out, such as ``.detach()``); decorators and contexts of
autograd (left out); whole statements (deleted).

What is not: docstrings and other strings, annotations, imports, names of types, ``raise`` statements' inside (messages)
and assertions; arguments that only check or only speed up (:data:`SILENT_KEYWORDS`).
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass

SILENT_KEYWORDS = frozenset({"strict", "non_blocking", "set_to_none", "pin_memory"})
"""Arguments without influence on any value: ``zip(strict=True)`` checks, the others are about speed."""
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitAnd,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip
COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.In: (ast.NotIn,), ast.NotIn: (ast.In,), ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}  # fmt: skip
OPPOSITES = {
    "min": "max", "max": "min", "amin": "amax", "amax": "amin", "any": "all", "all": "any", "mean": "sum",
    "sum": "mean", "log": "exp", "exp": "log",
}  # fmt: skip
SYMMETRIC = frozenset({"transpose", "min", "max", "maximum", "minimum", "logaddexp"})
"""Functions whose first two arguments may be exchanged."""
PLAIN_VIEWS = frozenset({"items", "keys", "values", "named_parameters", "parameters"})
"""Methods without which a loop has nothing to go over: left in."""
AUTOGRAD_CONTEXTS = frozenset({"no_grad", "set_grad_enabled", "autocast", "only"})
KEPT_DECORATORS = frozenset({"dataclass", "property", "contextmanager", "abstractmethod", "cache", "overload"})


@dataclass(frozen=True)
class Mutant:
    """One change.

    Attributes:
        number: Position among all mutants of the module.
        line: Where the changed expression or statement begins, from 1.
        last_line: Where it ends.
        change: What, in words.
    """

    number: int
    line: int
    last_line: int
    change: str


def mutants(source: str) -> list[Mutant]:
    """Every mutant of a module, in the order of its text."""
    nodes = list(ast.walk(ast.parse(source)))
    described = [(nodes[place], change) for place, variant in _places(nodes)
                 for change, _ in [_changes(nodes[place])[variant]]]  # fmt: skip
    return [
        Mutant(number, node.lineno, node.end_lineno, change)  # type: ignore[attr-defined]
        for number, (node, change) in enumerate(described)
    ]


def mutated(source: str, number: int) -> ast.Module:
    """The module with the change of the mutant of that number."""
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    place, variant = _places(nodes)[number]
    replacement = _changes(nodes[place])[variant][1]()
    if replacement is not None:
        tree = _Replace(nodes[place], replacement).visit(tree)
    return ast.fix_missing_locations(tree)


def _places(nodes: list[ast.AST]) -> list[tuple[int, int]]:
    """(position in ``ast.walk``, number of the change there) of every mutant, in the order of the text."""
    excluded = {id(node) for node in _excluded(nodes)}
    places = [
        number
        for number, node in enumerate(nodes)
        if isinstance(node, ast.expr | ast.stmt) and id(node) not in excluded
    ]
    places.sort(key=lambda place: (nodes[place].lineno, nodes[place].col_offset, place))  # type: ignore[attr-defined]
    return [(place, variant) for place in places for variant in range(len(_changes(nodes[place])))]


class _Replace(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        if node is self.old:
            return ast.copy_location(self.new, node)
        return self.generic_visit(node)


def _excluded(nodes: list[ast.AST]) -> Iterator[ast.AST]:
    """Nodes, with everything below them, that are not changed."""
    for node in nodes:
        children: list[ast.AST | None] = []
        match node:
            case ast.FunctionDef():
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                decorators = [each for each in node.decorator_list if _called(each) in KEPT_DECORATORS]
                children = [node.returns, *decorators, *(argument.annotation for argument in arguments)]
            case ast.ClassDef():
                children = list(node.decorator_list)
            case ast.AnnAssign(value=None):
                children = [node]
            case ast.AnnAssign():
                children = [node.annotation]
            case ast.Raise():
                children = [node.exc, node.cause]
            case ast.Assert() | ast.Import() | ast.ImportFrom() | ast.JoinedStr():
                children = [node]
            case ast.Subscript(value=ast.Name(id="Literal" | "Callable" | "dict" | "tuple" | "list" | "type")):
                children = [node]
            case ast.Call(func=ast.Name(id="isinstance")):
                children = node.args[1:]
            case ast.Call():
                children = [k for k in node.keywords if k.arg in SILENT_KEYWORDS]
            case ast.Expr(value=ast.Constant(value=str())):
                children = [node]
        for child in children:
            if child is not None:
                yield from ast.walk(child)


_Change = tuple[str, Callable[[], ast.AST | None]]
"""A description, and what to do: change the node in place (None), or return what to put in its place."""


def _changes(node: ast.AST) -> list[_Change]:
    found: list[_Change] = []

    def put(change: str, new: Callable[[], ast.AST]) -> None:
        found.append((change, new))

    def put_field(owner: ast.AST, name: str, value: object, change: str) -> None:
        found.append((change, lambda: setattr(owner, name, value)))

    match node:
        case ast.Constant(value=bool(value)):
            put_field(node, "value", not value, f"{value} -> {not value}")
        case ast.Constant(value=int() | float() as value):
            put_field(node, "value", value + 1, f"{value} -> {value + 1}")
            if value not in (0, 1, float("inf")):
                put_field(node, "value", value * 2, f"{value} -> {value * 2}")
        case ast.BinOp() if type(node.op) in OPERATORS:
            new = OPERATORS[type(node.op)]
            put_field(node, "op", new(), f"{_name(node.op)} -> {new.__name__} in {_text(node)}")
        case ast.AugAssign() if type(node.op) in OPERATORS:
            new = OPERATORS[type(node.op)]
            put_field(node, "op", new(), f"{_name(node.op)} -> {new.__name__} in {_text(node)}")
        case ast.UnaryOp(op=ast.USub() | ast.Not() | ast.Invert()):
            put(f"{_text(node)} without {_name(node.op)}", lambda: node.operand)
        case ast.BoolOp():
            other = ast.And() if isinstance(node.op, ast.Or) else ast.Or()
            put_field(node, "op", other, f"{_name(node.op)} -> {_name(other)} in {_text(node)}")
        case ast.Compare():
            several = len(node.ops) > 1
            for place, operator in enumerate(node.ops):
                for each in COMPARISONS[type(operator)]:
                    where = f"comparison {place + 1} of {_text(node)}" if several else _text(node)
                    found.append(
                        (
                            f"{_name(operator)} -> {each.__name__} in {where}",
                            lambda place=place, each=each: node.ops.__setitem__(place, each()),
                        )
                    )
        case ast.IfExp():
            put_field(node, "test", _negated(node.test), f"condition negated in {_text(node)}")
        case ast.Slice():
            for name in ("lower", "upper", "step"):
                if getattr(node, name) is not None:
                    put_field(node, name, None, f"slice {_text(node)} without {name}")
        case ast.comprehension():
            pass
        case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
            for loop in node.generators:
                for place in range(len(loop.ifs)):
                    found.append((f"condition of the comprehension negated: {_text(loop.ifs[place])}",
                                  lambda loop=loop, place=place: loop.ifs.__setitem__(
                                      place, _negated(loop.ifs[place]))))  # fmt: skip
        case ast.Call():
            _call_changes(node, found)
        case ast.Return(value=ast.expr() as value) if not _is_none(value):
            put_field(node, "value", ast.Constant(None), f"return None, not {_text(value)}")
        case ast.If():
            put_field(node, "test", _negated(node.test), f"condition negated: {_text(node.test)}")
        case ast.Assign(targets=[ast.Tuple(elts=[_, _]) as pair]):
            put_field(pair, "elts", pair.elts[::-1], f"targets exchanged: {_text(pair)}")
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            put(f"deleted: {_text(node)}", ast.Pass)
        case ast.Expr(value=ast.Call()):
            put(f"deleted: {_text(node)}", ast.Pass)
        case ast.Raise():
            put(f"deleted: {_text(node)}", ast.Pass)
        case ast.Continue():
            put("continue -> break", ast.Break)
        case ast.Break():
            put("break -> continue", ast.Continue)
        case ast.With():
            kept = [item for item in node.items if _called(item.context_expr) not in AUTOGRAD_CONTEXTS]
            if len(kept) < len(node.items):
                left_out = ", ".join(_text(i.context_expr) for i in node.items if i not in kept)
                kept = kept or [ast.withitem(ast.parse("__import__('contextlib').nullcontext()").body[0].value)]  # type: ignore[attr-defined]
                put_field(node, "items", kept, f"with, without {left_out}")
        case ast.FunctionDef():
            for decorator in node.decorator_list:
                if _called(decorator) not in KEPT_DECORATORS:
                    rest = [each for each in node.decorator_list if each is not decorator]
                    put_field(node, "decorator_list", rest, f"{node.name} without @{_text(decorator)}")
    return found


def _call_changes(node: ast.Call, found: list[_Change]) -> None:
    name, written = _called(node), _text(node)
    if name in OPPOSITES:
        owner, field = (node.func, "attr") if isinstance(node.func, ast.Attribute) else (node.func, "id")
        found.append((f"{name} -> {OPPOSITES[name]} in {written}",
                      lambda: setattr(owner, field, OPPOSITES[name])))  # fmt: skip
    if isinstance(node.func, ast.Attribute) and not (node.args or node.keywords or name in PLAIN_VIEWS):
        receiver = node.func.value
        if (
            not (isinstance(receiver, ast.Name) and receiver.id in ("torch", "F", "nn", "self"))
            and _called(receiver) != "super"
        ):
            found.append((f"{written} without .{name}()", lambda: receiver))
    for place in range(len(node.args)):
        if place + 1 < len(node.args) and name not in SYMMETRIC:
            found.append((f"arguments {place + 1} and {place + 2} exchanged in {written}",
                          lambda place=place: _exchange(node.args, place)))  # fmt: skip
        if 0 < place == len(node.args) - 1:
            found.append((f"argument {place + 1} left out in {written}",
                          lambda place=place: node.args.__delitem__(place)))  # fmt: skip
    for keyword in list(node.keywords):
        if keyword.arg is not None and keyword.arg not in SILENT_KEYWORDS:
            found.append((f"{keyword.arg}= left out in {written}",
                          lambda keyword=keyword: node.keywords.remove(keyword)))  # fmt: skip


def _exchange(values: list[ast.expr], place: int) -> None:
    values[place], values[place + 1] = values[place + 1], values[place]


def _negated(test: ast.expr) -> ast.expr:
    return test.operand if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not) else ast.UnaryOp(
        ast.Not(), test
    )  # fmt: skip


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _called(node: ast.AST) -> str:
    """Last part of the name that an expression names or calls: ``torch.no_grad()`` -> ``no_grad``."""
    node = node.func if isinstance(node, ast.Call) else node
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _name(node: ast.AST) -> str:
    return type(node).__name__


def _text(node: ast.AST) -> str:
    """The code of a node on one line, shortened."""
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 90 else f"{text[:60]} ... {text[-25:]}"
