"""Do the tests notice wrong code? Change one thing of a module, run the tests that reach it, count who notices.

    pip install coverage
    python benchmarks/mutation.py --sample 20                       # 20 mutants of every module in TESTS' rooms
    python benchmarks/mutation.py losses/patch_nce.py --sample 40

A tool of our own, since mutmut leaves out decorated functions, properties and default values, and cosmic-ray starts a
Python per mutant, which with torch takes longer than the tests. This process imports what the tests need but nothing of
ours; each mutant is a fork of it in which the changed module takes the place of its file. A first fork runs the tests
unchanged and notes which lines each reaches; a mutant is held against those that reach its line, fastest first, until
one fails. Killed: a test failed, the import failed or time ran out. Survived: none did. Unreached: no test gets there.
Changed are operators, comparisons, numbers, truth values, conditions, arguments, returned values, slices, reductions,
calls without arguments (left out, such as ``.detach()``) and whole statements; docstrings, annotations, imports,
assertions and messages are not. Outcomes are appended to runs/mutation.jsonl, and a mutant of an unchanged file and
unchanged tests is not run again.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import tyro

ROOT = Path(__file__).parents[1]
SOURCES, STATE = ROOT / "src" / "unpaired", ROOT / "runs" / "mutation.jsonl"
TESTS: dict[str, tuple[str, ...]] = {
    "losses": ("tests/losses", "tests/methods/test_golden_functions.py"),
    "methods": ("tests/methods",),
    "networks": ("tests/networks",),
    "ops/backends/reference.py": ("tests/ops",),
    "ops/query_selection.py": ("tests/ops",),
    "engine/step.py": ("tests/engine/test_step.py", "tests/methods"),
    "engine/ema.py": ("tests/engine/test_ema.py",),
    "data/transforms.py": ("tests/data/test_crops.py", "tests/data/test_transforms.py", "tests/data/test_sizes.py"),
}
"""Room or file -> what its modules are held against."""
FOREIGN = ("torch", "torchvision", "timm", "numpy", "scipy", "pandas", "PIL.Image", "matplotlib.pyplot", "pydantic",
           "pytest", "hypothesis", "lightning_fabric", "safetensors.torch", "yaml", "torch._dynamo")  # fmt: skip
SLOWEST, LONGEST = 6.0, 12.0
"""CPU seconds of one test, and of all tests that one mutant is held against."""

OTHER: dict[type, tuple[type, ...]] = {
    ast.Add: (ast.Sub,), ast.Sub: (ast.Add,), ast.Mult: (ast.Div,), ast.Div: (ast.Mult,), ast.FloorDiv: (ast.Mult,),
    ast.Mod: (ast.Mult,), ast.Pow: (ast.Mult,), ast.BitAnd: (ast.BitOr,), ast.BitOr: (ast.BitAnd,),
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.In: (ast.NotIn,), ast.NotIn: (ast.In,), ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,), ast.And: (ast.Or,), ast.Or: (ast.And,),
}  # fmt: skip
OPPOSITES = {"min": "max", "max": "min", "amin": "amax", "amax": "amin", "any": "all", "all": "any", "mean": "sum",
             "sum": "mean", "log": "exp", "exp": "log"}  # fmt: skip
SYMMETRIC = {"transpose", "min", "max", "maximum", "minimum", "logaddexp", "isinstance"}
VIEWS = {"items", "keys", "values", "named_parameters", "parameters"}
SILENT = {"strict", "non_blocking", "set_to_none", "pin_memory"}
"""Arguments without influence on any value."""
CONTEXTS = {"no_grad", "set_grad_enabled", "autocast", "only"}
KEPT = {"dataclass", "settings", "property", "contextmanager", "abstractmethod", "cache", "overload", "register"}

Change = tuple[str, Callable[[], ast.AST | None]]
"""A description, and what to do: change the node in place (None), or return what to put in its place."""


def mutants(source: str) -> Iterator[tuple[int, int, str, Callable[[], ast.Module]]]:
    """First line, last line, change, and how to make it, of every mutant of a module in the order of its text."""
    nodes = list(ast.walk(ast.parse(source)))
    skipped = {id(below) for node in nodes for child in _left_alone(node) for below in ast.walk(child)}
    places = [n for n, node in enumerate(nodes) if isinstance(node, ast.expr | ast.stmt) and id(node) not in skipped]
    places.sort(key=lambda place: (nodes[place].lineno, nodes[place].col_offset, place))  # type: ignore[attr-defined]
    for place in places:
        node: Any = nodes[place]
        for number, (change, _) in enumerate(_changes(copy.deepcopy(node))):

            def make(place: int = place, number: int = number) -> ast.Module:
                tree = ast.parse(source)
                old = list(ast.walk(tree))[place]
                new = list(_changes(old))[number][1]()
                return ast.fix_missing_locations(_Replace(old, new).visit(tree) if new is not None else tree)

            yield node.lineno, node.end_lineno, f"{change} in {_text(node)}", make


class _Replace(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        return ast.copy_location(self.new, node) if node is self.old else self.generic_visit(node)


def _left_alone(node: ast.AST) -> Iterator[ast.AST]:
    """Parts of a node in which nothing is changed."""
    children: list[ast.AST | None] = []
    match node:
        case ast.FunctionDef():
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            children = [node.returns, *node.decorator_list, *(each.annotation for each in arguments)]
        case ast.ClassDef():
            children = [*node.decorator_list]
        case ast.AnnAssign():
            children = [node.annotation] if node.value else [node]
        case ast.Raise():
            children = [node.exc, node.cause]
        case ast.Assert() | ast.Import() | ast.ImportFrom() | ast.JoinedStr() | ast.Expr(value=ast.Constant()):
            children = [node]
        case ast.Subscript(value=ast.Name(id="Literal" | "Callable" | "dict" | "tuple" | "list" | "type")):
            children = [node]
        case ast.Call():
            children = [k for k in node.keywords if k.arg in SILENT]
    yield from (child for child in children if child is not None)


def _changes(node: Any) -> Iterator[Change]:
    def put(field: str, value: object, owner: Any = node) -> Callable[[], None]:
        return lambda: setattr(owner, field, value)

    match node:
        case ast.Constant(value=bool() as value):
            yield f"{value} -> {not value}", put("value", not value)
        case ast.Constant(value=int() | float() as value):
            for other in {value + 1, value * 2 or 1} if value != float("inf") else ():
                yield f"{value} -> {other}", put("value", other)
        case ast.BinOp() | ast.AugAssign() | ast.BoolOp():
            for other in OTHER.get(type(node.op), ()):
                yield f"{_name(node.op)} -> {other.__name__}", put("op", other())
        case ast.Compare():
            for place, operator in enumerate(node.ops):
                for other in OTHER[type(operator)]:
                    ops = [*node.ops[:place], other(), *node.ops[place + 1 :]]
                    yield f"{_name(operator)} -> {other.__name__}", put("ops", ops)
        case ast.UnaryOp(op=ast.USub() | ast.Not() | ast.Invert()):
            yield f"without {_name(node.op)}", lambda: node.operand
        case ast.IfExp() | ast.If():
            yield f"condition {_text(node.test)} negated", put("test", ast.UnaryOp(ast.Not(), node.test))
        case ast.Slice():
            for field in ("lower", "upper", "step"):
                if getattr(node, field) is not None:
                    yield f"without {field}", put(field, None)
        case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
            for loop in node.generators:
                if loop.ifs:
                    yield "condition left out", put("ifs", [], loop)
        case ast.Call():
            yield from _call_changes(node, put)
        case ast.Return(value=ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            yield "return None", put("value", ast.Constant(None))
        case ast.Assign(targets=[ast.Tuple(elts=[_, _]) as pair]):
            yield "targets exchanged", put("elts", pair.elts[::-1], pair)
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]) | ast.Expr(value=ast.Call()) | ast.Raise():
            yield "deleted", ast.Pass
        case ast.Continue():
            yield "break", ast.Break
        case ast.Break():
            yield "continue", ast.Continue
        case ast.With() if any(_called(item.context_expr) in CONTEXTS for item in node.items):
            nothing: Any = ast.parse("__import__('contextlib').nullcontext()", mode="eval").body
            kept = [item for item in node.items if _called(item.context_expr) not in CONTEXTS]
            yield "without its context", put("items", kept or [ast.withitem(nothing)])
        case ast.FunctionDef():
            for each in node.decorator_list:
                if _called(each) not in KEPT:
                    rest = [other for other in node.decorator_list if other is not each]
                    yield f"without @{_text(each)}", put("decorator_list", rest)


def _call_changes(node: Any, put: Callable[..., Callable[[], None]]) -> Iterator[Change]:
    name, method, args = _called(node), isinstance(node.func, ast.Attribute), node.args
    if name in OPPOSITES:
        yield f"{name} -> {OPPOSITES[name]}", put("attr" if method else "id", OPPOSITES[name], node.func)
    if method and not (args or node.keywords or name in VIEWS):
        receiver = node.func.value
        if _called(receiver) not in ("torch", "F", "nn", "self", "super"):
            yield f"without .{name}()", lambda: receiver
    for place in range(len(args) - 1):
        if name not in SYMMETRIC:
            yield (
                f"arguments {place + 1} and {place + 2} exchanged",
                put("args", [*args[:place], args[place + 1], args[place], *args[place + 2 :]]),
            )
    if len(args) > 1:
        yield "last argument left out", put("args", args[:-1])
    for keyword in node.keywords:
        if keyword.arg not in (None, *SILENT):
            yield f"{keyword.arg}= left out", put("keywords", [k for k in node.keywords if k is not keyword])


def _called(node: Any) -> str:
    """Last part of the name that an expression names or calls: ``torch.no_grad()`` -> ``no_grad``."""
    node = node.func if isinstance(node, ast.Call) else node
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _name(node: ast.AST) -> str:
    return type(node).__name__


def _text(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 80 else f"{text[:55]} ... {text[-20:]}"


class _Watch:
    """A plugin of pytest: CPU seconds of each test, the lines that it reaches, and which fails first."""

    def __init__(self, coverage: Any = None) -> None:
        self.coverage, self.failed, self.seconds = coverage, "", dict[str, float]()

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.failed = self.failed or (report.nodeid if report.failed else "")

    def pytest_runtest_logstart(self, nodeid: str, location: object) -> None:
        self.seconds[nodeid] = -time.process_time()
        if self.coverage:
            self.coverage.switch_context(nodeid)

    def pytest_runtest_logfinish(self, nodeid: str, location: object) -> None:
        self.seconds[nodeid] += time.process_time()
        if self.coverage:
            self.coverage.switch_context("")


def _pytest(watch: _Watch, *arguments: str) -> int:
    import pytest

    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        fixed = ["-q", "-p", "no:cacheprovider", "-p", "no:unraisableexception", f"--basetemp={folder}/tests"]
        return int(pytest.main([*fixed, "-m", "not gpu and not slow", *arguments], plugins=[watch]))


def forked(work: Callable[[], Any], cpu_seconds: float) -> Any:
    """What ``work`` returns in a fork of this process; None if it crashes or takes longer."""
    with tempfile.NamedTemporaryFile(prefix="mutation-") as answer:
        child = os.fork()
        if child == 0:
            silence = os.open(os.environ.get("MUTATION_LOG", os.devnull), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
            resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time() + cpu_seconds) + 1,) * 2)
            signal.alarm(int(40 * cpu_seconds) + 60)  # a test that sleeps
            with suppress(BaseException):
                Path(answer.name).write_text(json.dumps(work()), encoding="utf-8")
            os._exit(0)
        os.waitpid(child, 0)
        text = Path(answer.name).read_text(encoding="utf-8")
    return json.loads(text) if text else None


def survey(module: str, tests: tuple[str, ...]) -> tuple[dict[str, list[int]], dict[str, float]]:
    """Run the tests unchanged: test -> lines of the module that it reaches, and its CPU seconds."""

    def work() -> list[Any]:
        import coverage

        measured = coverage.Coverage(data_file=None, include=[str(SOURCES / module)])
        watch = _Watch(measured)
        with measured.collect():
            status = _pytest(watch, *tests)
        reached: dict[str, list[int]] = {}
        for line, names in measured.get_data().contexts_by_lineno(str(SOURCES / module)).items():
            for name in names:
                reached.setdefault(name, []).append(line)
        return [watch.failed or (str(status) if status else ""), reached, watch.seconds]

    found = forked(work, 3600)
    if found is None or found[0]:
        raise SystemExit(f"the tests do not pass unchanged: {found and found[0]}")
    return found[1], found[2]


def hold(module: str, tree: ast.Module, tests: list[str], cpu_seconds: float) -> str:
    """The test that fails with this module; empty if none does."""
    name = ".".join(("unpaired", *Path(module).with_suffix("").parts)).removesuffix(".__init__")

    class Changed(importlib.abc.MetaPathFinder, importlib.machinery.SourceFileLoader):  # type: ignore[misc]
        def find_spec(self, fullname: str, path: object = None, target: object = None) -> Any:
            found = importlib.util.spec_from_file_location(fullname, SOURCES / module, loader=self)
            return found if fullname == name else None

        def get_code(self, fullname: str) -> Any:
            return compile(tree, str(SOURCES / module), "exec")

    def work() -> list[Any]:
        watch = _Watch()
        sys.meta_path.insert(0, Changed(name, str(SOURCES / module)))
        return [_pytest(watch, "-x", *tests), watch.failed]

    found = forked(work, cpu_seconds)
    return "crash or time" if found is None else found[1] or ("import" if found[0] else "")


def run(
    module: str, tests: tuple[str, ...], sample: int | None, seed: int, known: dict[str, dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Outcomes of the mutants of one module."""
    source = (SOURCES / module).read_text(encoding="utf-8")
    files = sorted(file for test in tests for file in ([ROOT / test] if test.endswith(".py") else
                                                       (ROOT / test).rglob("*.py")))  # fmt: skip
    digest = hashlib.sha256(b"".join([source.encode(), *(file.read_bytes() for file in files)])).hexdigest()[:12]
    every = list(mutants(source))
    chosen = list(range(len(every)))
    random.Random(f"{seed}:{module}").shuffle(chosen)
    due = [number for number in sorted(chosen[:sample]) if f"{module}:{digest}:{number}" not in known]
    if due:
        reached, seconds = survey(module, tests)
    for number in due:
        first, last, change, make = every[number]
        span, picked, spent = set(range(first, last + 1)), [], 0.0
        reaching = [test for test, lines in reached.items() if test and span & set(lines)]
        # What is imported before the first test reaches no test by name.
        candidates = reaching or ([*reached] if span & set(reached.get("", ())) else [])
        for test in sorted((each for each in candidates if each), key=lambda each: seconds[each]):
            spent += seconds[test]
            if seconds[test] > SLOWEST or spent > LONGEST:
                break
            picked.append(test)
        by = hold(module, make(), picked, 20 + 5 * sum(seconds[test] for test in picked)) if picked else ""
        outcome = "killed" if by else "survived" if picked else "unreached"
        yield {"key": f"{module}:{digest}:{number}", "module": module, "line": first, "change": change,
               "outcome": outcome, "by": by}  # fmt: skip


def main(modules: Annotated[tuple[str, ...], tyro.conf.Positional] = (), sample: int | None = 20, seed: int = 0,
         state: Path = STATE, tests: tuple[str, ...] = ()) -> None:  # fmt: skip
    """Run mutants, print those that survive, and count.

    Args:
        modules: Files under src/unpaired; none means all in the rooms of TESTS.
        sample: Mutants per module.
        seed: Of the sample.
        state: File that the outcomes are appended to.
        tests: What the modules are held against instead of TESTS.
    """
    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]
    files = [str(path.relative_to(SOURCES)) for path in sorted(SOURCES.rglob("*.py"))]
    modules = modules or tuple(f for f in files if f.startswith(tuple(TESTS)) and not f.endswith("__init__.py"))
    for name in FOREIGN:
        with suppress(ImportError):
            importlib.import_module(name)
    lines = state.read_text(encoding="utf-8").splitlines() if state.exists() else []
    known = {each["key"]: each for each in map(json.loads, lines)}
    state.parent.mkdir(parents=True, exist_ok=True)
    for module in modules:
        where = tests or next(paths for room, paths in TESTS.items() if module.startswith(room))
        for found in run(module, where, sample, seed, known):
            known[found["key"]] = found
            with state.open("a", encoding="utf-8") as file:
                file.write(json.dumps(found) + "\n")
            if found["outcome"] != "killed":
                print(f"{found['outcome']} {module}:{found['line']}: {found['change']}", flush=True)
        outcomes = [each["outcome"] for each in known.values() if each["module"] == module]
        print(f"{module}: {outcomes.count('killed')} of {len(outcomes)} noticed", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
