"""Do the tests notice wrong code? A mutation run: change one thing of a module, run its tests, count who notices.

    python benchmarks/mutation.py run --sample 80              # every module of MODULES, 80 mutants each
    python benchmarks/mutation.py run engine/ema.py --again    # one module, all mutants, those that survived once more
    python benchmarks/mutation.py report --out benchmarks/results/mutation_202611

A tool of our own, since mutmut 3.8 leaves out decorated functions, properties and default values (``EMA.update``, all
settings) and cosmic-ray starts a Python per mutant, which with torch takes longer than the tests. ``mutants.py`` says
what is changed. This process imports what the tests need but nothing of ours; each mutant is a fork of it in which the
changed module takes the place of its file. A first fork runs all tests once and notes which lines each reaches and
how long it takes; a mutant is then held against the tests that reach its lines, fastest first, until one
fails. Outcomes: killed (a test failed or the module could not be imported), timed out (also noticed), survived,
unreached (survived: no test gets there). Samples are drawn with a seed. Results are
appended to ``--state`` one by one, so that a run goes on where it was stopped; those of a file that has changed do not
count.
"""

from __future__ import annotations

import ast
import gc
import hashlib
import importlib.util
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, FrameType
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional

from mutants import Mutant, mutants, mutated

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src" / "unpaired"
STATE = ROOT / "runs" / "mutation.jsonl"
SHARED_TESTS = (
    "tests/methods/test_learning_directions.py", "tests/methods/test_methods.py", "tests/methods/test_settings.py",
)  # fmt: skip
"""Tests of all methods."""
LOSS_TESTS = ("tests/losses/test_precision_and_defaults.py", "tests/methods/test_golden_functions.py")
MODULES: dict[str, tuple[str, ...]] = {
    "engine/step.py": ("tests/engine/test_step.py", *SHARED_TESTS),
    "engine/ema.py": ("tests/engine/test_ema.py",),
    "ops/backends/reference.py": ("tests/ops/test_reference.py", "tests/ops/test_query_selection.py"),
    "ops/query_selection.py": ("tests/ops/test_reference.py", "tests/ops/test_query_selection.py"),
    "losses/patch_nce.py": ("tests/losses/test_losses.py", *LOSS_TESTS),
    "losses/semantic_relation.py": ("tests/losses/test_semantic_relation.py", *LOSS_TESTS),
    "losses/adversarial.py": ("tests/losses/test_adversarial.py", *LOSS_TESTS),
    "losses/modulated_nce.py": ("tests/losses/test_modulated_nce.py", *LOSS_TESTS),
    "losses/self_similarity.py": ("tests/losses/test_self_similarity.py", *LOSS_TESTS),
    "data/transforms.py": ("tests/data/test_crops.py", "tests/data/test_transforms.py", "tests/data/test_sizes.py"),
    "methods/adversarial.py": SHARED_TESTS,
    "methods/base.py": ("tests/methods/test_base.py", *SHARED_TESTS),
    "methods/contrast.py": SHARED_TESTS,
    "methods/cut.py": SHARED_TESTS,
    "methods/cyclegan.py": ("tests/methods/test_two_way.py", *SHARED_TESTS),
    "methods/cyclegan_qs_attn.py": ("tests/methods/test_two_way.py", *SHARED_TESTS),
    "methods/dclgan.py": ("tests/methods/test_two_way.py", *SHARED_TESTS),
    "methods/dclgan_qs_attn.py": ("tests/methods/test_two_way.py", *SHARED_TESTS),
    "methods/enco.py": ("tests/methods/test_enco_and_santa.py", *SHARED_TESTS),
    "methods/fsesim.py": ("tests/methods/test_self_similarity_methods.py", *SHARED_TESTS),
    "methods/hneg_src.py": ("tests/methods/test_modulated_methods.py", *SHARED_TESTS),
    "methods/image_pool.py": ("tests/methods/test_image_pool.py", "tests/methods/test_two_way.py"),
    "methods/monce.py": ("tests/methods/test_modulated_methods.py", *SHARED_TESTS),
    "methods/multi_domain_qs_attn.py": ("tests/methods/test_multi_domain.py", *SHARED_TESTS),
    "methods/munit.py": ("tests/methods/test_munit_method.py", *SHARED_TESTS),
    "methods/one_way.py": SHARED_TESTS,
    "methods/qs_attn.py": SHARED_TESTS,
    "methods/query_selection.py": SHARED_TESTS,
    "methods/recolouring.py": ("tests/methods/test_self_similarity_methods.py",),
    "methods/santa.py": ("tests/methods/test_enco_and_santa.py", *SHARED_TESTS),
    "methods/sincut.py": SHARED_TESTS,
    "methods/two_way.py": ("tests/methods/test_two_way.py", *SHARED_TESTS),
}
"""What is mutated -> the test files that it is held against."""
GOLDEN = "tests/methods/test_golden_steps.py"
Outcome = Literal["killed", "timed out", "survived", "unreached"]


@dataclass(frozen=True)
class Record:
    """What became of one mutant. ``by`` is the test that noticed."""

    module: str
    digest: str
    number: int
    line: int
    change: str
    code: str
    outcome: Outcome
    seconds: float
    by: str = ""


@dataclass(frozen=True)
class Run:
    """Run mutants and note which survive.

    Attributes:
        modules: Files under src/unpaired; none means all of MODULES.
        sample: Mutants per module; unset runs all.
        seed: Of the sample.
        state: File that the results are appended to.
        again: Run those that survived once more, after tests were added.
        slowest: Tests that take longer, in seconds of CPU time, are left out.
        longest: Seconds of tests that one mutant is held against at most.
    """

    modules: Positional[tuple[str, ...]] = ()
    sample: int | None = None
    seed: int = 0
    state: Path = STATE
    again: bool = False
    slowest: float = 6.0
    longest: float = 12.0


@dataclass(frozen=True)
class Report:
    """Write what is known of every module, with the survivors.

    Attributes:
        out: Path without ending; .json and .md are written. Reasons ("reason" of a survivor) already there are kept.
        state: File with the results.
    """

    out: Path
    state: Path = STATE


# In the fork -----------------------------------------------------------------------------------------------------


class _Changed(SourceFileLoader):
    """Loads one module from a changed syntax tree, any other from its file."""

    def __init__(self, fullname: str, path: str, tree: ast.Module) -> None:
        super().__init__(fullname, path)
        self.tree = tree

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.tree, self.path, "exec")


class _Finder:
    """Finds the changed module before anything else does."""

    def __init__(self, name: str, path: Path, tree: ast.Module) -> None:
        self.name, self.path, self.tree = name, path, tree

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        loader = _Changed(fullname, str(self.path), self.tree)
        return importlib.util.spec_from_file_location(fullname, self.path, loader=loader)


class _Watch:
    """A plugin of pytest: which lines of some files each test reaches, its CPU seconds, and which test fails first."""

    def __init__(self, files: Sequence[Path] = ()) -> None:
        self.lines: dict[str, dict[str, set[int]]] = {str(file): {} for file in files}
        self.seconds: dict[str, float] = {}
        self.failed = ""

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid

    def pytest_runtest_logstart(self, nodeid: str, location: object) -> None:
        def enter(frame: FrameType, event: str, argument: object) -> Any:
            of_file = self.lines.get(frame.f_code.co_filename)
            if of_file is None:
                return None
            reached = of_file.setdefault(nodeid, set())

            def local(frame: FrameType, event: str, argument: object) -> Any:
                reached.add(frame.f_lineno)
                return local

            return local(frame, event, argument)

        self.seconds[nodeid] = -time.process_time()
        if self.lines:
            sys.settrace(enter)

    def pytest_runtest_logfinish(self, nodeid: str, location: object) -> None:
        sys.settrace(None)
        self.seconds[nodeid] += time.process_time()


def _pytest(watch: _Watch, targets: list[str], *options: str) -> int:
    import pytest

    temporary = tempfile.mkdtemp(prefix="mutation-")
    try:
        fixed = [
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:unraisableexception",
            "--basetemp",
            temporary,
            "-m",
            "not gpu and not slow",
        ]
        return int(pytest.main([*fixed, *options, *targets], plugins=[watch]))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _forked(work: Callable[[], Any], limit_s: float, *, last: bool = True) -> tuple[Any, str]:
    """Run ``work`` in a fork of this process: (what it returned or None, how it ended: ok, crashed or timed out).

    The limit is on CPU time, so that other work on the machine makes nothing time out; real time has thirty times that.
    On a machine that others use, mutants come last.
    """
    with tempfile.NamedTemporaryFile(prefix="mutation-", suffix=".json") as answer:
        child = os.fork()
        if child == 0:
            os.setsid()
            if last:
                with suppress(OSError):  # Linux's scheduling by session; elsewhere there is no such file
                    Path("/proc/self/autogroup").write_text("19", encoding="utf-8")
            gc.freeze()  # what was imported before lives on anyway: no collection walks it again
            silence = os.open(os.devnull if "MUTATION_SHOW" not in os.environ else "/dev/stderr", os.O_WRONLY)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
            resource.setrlimit(resource.RLIMIT_AS, (24 << 30, 24 << 30))
            signal.signal(signal.SIGXCPU, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time() + limit_s) + 1,) * 2)
            status = 1
            with suppress(BaseException):
                Path(answer.name).write_text(json.dumps(work()), encoding="utf-8")
                status = 0
            os._exit(status)
        deadline, ended = time.monotonic() + 30 * limit_s, 0
        while not ended and time.monotonic() < deadline:
            ended, status = os.waitpid(child, os.WNOHANG)
            time.sleep(0.05)
        if not ended:
            with suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None, "timed out"
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL):
            return None, "timed out"
        text = Path(answer.name).read_text(encoding="utf-8")
        return (json.loads(text), "ok") if text and status == 0 else (None, "crashed")


# In this process -------------------------------------------------------------------------------------------------


def tests_of(module: str) -> list[str]:
    """The test files that a module is held against."""
    golden = (GOLDEN,) if module.split("/")[0] in ("methods", "losses", "engine") else ()
    return [test for test in (*MODULES[module], *golden) if (ROOT / test).exists()]


def survey(modules: Sequence[str], state: Path) -> dict[str, Any]:
    """Run the tests of all these modules once, unchanged.

    Returns:
        ``lines``: module -> test -> lines that it reaches; ``seconds``: test -> how long it takes; ``foreign``: modules
        that the tests import and that are not ours. It is kept beside ``state`` until a source or a test changes.
    """
    tests = sorted({test for module in modules for test in tests_of(module)})
    contents = [path.read_bytes() for path in (*sorted(SOURCES.rglob("*.py")), *(ROOT / test for test in tests))]
    digest = hashlib.sha256(b"\0".join(contents) + " ".join(modules).encode()).hexdigest()
    kept = state.with_suffix(".survey.json")
    if kept.exists() and (found := json.loads(kept.read_text(encoding="utf-8")))["digest"] == digest:
        return found

    def work() -> dict[str, Any]:
        watch = _Watch([SOURCES / module for module in modules])
        status = _pytest(watch, tests)
        foreign = [name for name in sys.modules if name.split(".")[0] not in ("unpaired", "__main__", "conftest")]
        foreign = [n for n in foreign if str(ROOT) not in str(getattr(sys.modules[n], "__file__", ROOT))]
        lines = {
            module: {test: sorted(reached) for test, reached in watch.lines[str(SOURCES / module)].items()}
            for module in modules
        }
        return {
            "failed": watch.failed or (f"pytest ended with {status}" if status else ""),
            "digest": digest,
            "lines": lines,
            "seconds": watch.seconds,
            "foreign": foreign,
        }

    found, ended = _forked(work, 3600, last=False)
    if ended != "ok" or found["failed"]:
        raise SystemExit(f"the tests do not pass unchanged: {found['failed'] if found else ended}")
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(found), encoding="utf-8")
    return found


def chosen_tests(mutant: Mutant, lines: dict[str, list[int]], seconds: dict[str, float], options: Run) -> list[str]:
    """Tests that reach the lines of a mutant: three golden steps, then the fastest.

    Args:
        mutant: The mutant.
        lines: Test -> lines that it reaches.
        seconds: Of each test.
        options: How much time there is.
    """
    span = set(range(mutant.line, mutant.last_line + 1))
    reaching = [test for test, reached in lines.items() if span & set(reached)]
    spent, chosen = 0.0, []
    fastest = sorted(reaching, key=lambda test: seconds[test])
    golden = [test for test in fastest if test.startswith(GOLDEN)][:3]
    for test in (*golden, *(test for test in fastest if test not in golden)):
        spent += seconds[test]
        if seconds[test] > options.slowest or spent > options.longest:
            break
        chosen.append(test)
    return chosen


def inside_functions(source: str) -> set[int]:
    """Lines of function bodies."""
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    return {line for node in functions for line in range(node.body[0].lineno, (node.end_lineno or 0) + 1)}


def run_module(module: str, options: Run, found: dict[str, Any]) -> Iterator[Record]:
    """Run the mutants of one module that are not known yet, with what the survey ``found``."""
    file = SOURCES / module
    source = file.read_text(encoding="utf-8")
    digest = hashlib.sha256(source.encode()).hexdigest()[:12]
    every = mutants(source)
    known = {r.number: r for r in records(options.state) if r.module == module and is_of(r, digest, every)}
    picked = sampled(module, len(every), options.sample, options.seed)
    due = [
        every[number]
        for number in picked
        if number not in known or (options.again and known[number].outcome in ("survived", "unreached"))
    ]
    print(f"{module}: {len(every)} mutants, {len(picked)} chosen, {len(due)} to run", flush=True)
    if not due:
        return
    lines, seconds, bodies = found["lines"][module], found["seconds"], inside_functions(source)
    own = tuple(tests_of(module))
    lines = {test: reached for test, reached in lines.items() if test.startswith(own)}
    print(f"  {len(lines)} tests reach it, {sum(seconds[t] for t in lines):.0f} s", flush=True)
    everything = {test: [*reached, *range(len(source))] for test, reached in lines.items()}
    written = source.splitlines()
    for mutant in due:
        reach = lines if mutant.line in bodies else everything
        chosen, started = chosen_tests(mutant, reach, seconds, options), time.monotonic()
        outcome, by = hold(file, source, mutant, chosen, 20 + 5 * sum(seconds[test] for test in chosen))
        yield Record(module, digest, mutant.number, mutant.line, mutant.change, written[mutant.line - 1].strip(),
                     outcome, round(time.monotonic() - started, 1), by)  # fmt: skip


def sampled(module: str, possible: int, sample: int | None, seed: int) -> list[int]:
    """Numbers of the mutants that are run; a larger sample of the same seed holds a smaller one."""
    numbers = list(range(possible))
    random.Random(f"{seed}:{module}").shuffle(numbers)
    return sorted(numbers[:sample])


def hold(file: Path, source: str, mutant: Mutant, tests: list[str], limit_s: float) -> tuple[Outcome, str]:
    """Hold one mutant against tests."""
    if not tests:
        return "unreached", ""
    name = ".".join(("unpaired", *file.relative_to(SOURCES).with_suffix("").parts))

    def work() -> list[Any]:
        watch = _Watch()
        sys.meta_path.insert(0, _Finder(name, file, mutated(source, mutant.number)))
        return [_pytest(watch, tests, "-x"), watch.failed]

    found, ended = _forked(work, limit_s)
    if ended == "timed out":
        return "timed out", ""
    if found is None:
        return "killed", "crash"
    status, failed = found
    return ("survived", "") if status == 0 else ("killed", failed or "import")


def records(state: Path) -> list[Record]:
    """All results so far; of a mutant that ran twice, the last."""
    if not state.exists():
        return []
    read = [Record(**json.loads(line)) for line in state.read_text(encoding="utf-8").splitlines()]
    return list({(each.module, each.digest, each.number): each for each in read}.values())


def is_of(record: Record, digest: str, every: Sequence[Mutant]) -> bool:
    """Whether a result is of a mutant that the file, as it is, still has under that number."""
    return record.digest == digest and record.number < len(every) and every[record.number].change == record.change


def run(options: Run) -> None:
    """The command ``run``."""
    modules = options.modules or tuple(MODULES)
    found = survey(modules, options.state)
    for name in found["foreign"]:
        with suppress(Exception):
            importlib.import_module(name)
    for module in modules:
        for record in run_module(module, options, found):
            options.state.parent.mkdir(parents=True, exist_ok=True)
            with options.state.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(record)) + "\n")
            if record.outcome in ("survived", "unreached"):
                print(f"  {record.outcome} {module}:{record.line}: {record.change}", flush=True)


def report(options: Report) -> None:
    """The command ``report``."""
    page, data = options.out.with_suffix(".md"), options.out.with_suffix(".json")
    earlier = json.loads(data.read_text(encoding="utf-8")) if data.exists() else {"survivors": []}
    reasons = {(s["module"], s["code"], s["change"]): s["reason"] for s in earlier["survivors"] if s.get("reason")}
    rows, survivors = [], []
    for module in MODULES:
        source = (SOURCES / module).read_text(encoding="utf-8")
        digest = hashlib.sha256(source.encode()).hexdigest()[:12]
        every = mutants(source)
        own = [each for each in records(options.state) if each.module == module and is_of(each, digest, every)]
        count = {outcome: sum(r.outcome == outcome for r in own) for outcome in
                 ("killed", "timed out", "survived", "unreached")}  # fmt: skip
        rows.append({"module": module, "possible": len(every), "run": len(own), **count})
        for each in sorted(own, key=lambda each: each.number):
            if each.outcome in ("survived", "unreached"):
                key = (module, each.code, each.change)
                survivors.append({"module": module, "line": each.line, "change": each.change, "code": each.code,
                                  "outcome": each.outcome, "reason": reasons.get(key, "")})  # fmt: skip
    total = {"module": "all", **{key: sum(row[key] for row in rows) for key in rows[0] if key != "module"}}
    data.write_text(json.dumps({"modules": [*rows, total], "survivors": survivors}, indent=1) + "\n", encoding="utf-8")
    table = ["| Module | mutants | run | killed | timed out | survived | unreached | noticed |", "|---" * 8 + "|"]
    for row in (*rows, total):
        noticed = (row["killed"] + row["timed out"]) / max(row["run"], 1)
        share = f"{noticed:.1%}" if row["run"] else "-"
        cells = [row[key] for key in ("module", "possible", "run", "killed", "timed out", "survived", "unreached")]
        table.append("| " + " | ".join(map(str, cells)) + f" | {share} |")
    listed = [f"- `{s['module']}:{s['line']}` {s['change'].replace('|', chr(92) + '|')}: "
              f"{s['reason'] or 'not judged'}" for s in survivors]  # fmt: skip
    unseen = [row["module"] for row in rows if not row["run"]]
    text = ["# Mutation run", "", "Made by `benchmarks/mutation.py`, which says what is changed and counted.", ""]
    if unseen:
        text += [f"Not complete: nothing was run of {', '.join(unseen)}.", ""]
    page.write_text("\n".join([*text, *table, "", "## Survivors", "", *listed, ""]), encoding="utf-8")
    print("\n".join(table))


def main() -> None:
    os.chdir(ROOT)
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.dont_write_bytecode = False  # every fork imports the package anew
    sys.path.insert(0, str(ROOT / "src"))
    command = tyro.cli(Annotated[Run, tyro.conf.subcommand("run")] | Annotated[Report, tyro.conf.subcommand("report")])  # type: ignore
    run(command) if isinstance(command, Run) else report(command)


if __name__ == "__main__":
    main()
