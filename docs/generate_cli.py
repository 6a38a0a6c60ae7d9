"""Write docs/cli.md from the help texts of the commands: ``python docs/generate_cli.py``.

``tests/test_docs.py`` calls ``page`` and compares, so that the page cannot fall behind the code.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import textwrap
from collections.abc import Iterator
from pathlib import Path

WIDTH = 100

_HEAD = """# The command line

What `unpaired --help` and `unpaired COMMAND --help` print at {width} columns. This page is generated: change the help
texts in `src/unpaired/cli.py`, `src/unpaired/commands/` or the settings that they show, then run
`python docs/generate_cli.py`.

`unpaired train` is shown once per method, because its model options are the settings of the method. Options that are
written `--flag, --no-flag` take no value. `{{None}}|INT` means a whole number or the word `None`; `[STR [STR ...]]`
means any number of words.

Exit codes: 0 done; 1 done in part (an image was skipped); 2 a mistake that the message says how to mend; 3 training
stopped (a loss is not finite, a file cannot be written); 130 ended by Ctrl-C, after saving if it was training.
"""


def page() -> str:
    """The whole page as Markdown."""
    return "\n".join(
        [_HEAD.format(width=WIDTH), *(f"## {title}\n\n```text\n{text}\n```\n" for title, text in sections())]
    )


def sections() -> Iterator[tuple[str, str]]:
    """(command, its help text), ``train`` once per method, ``data`` once per subcommand."""
    from unpaired.cli import COMMANDS
    from unpaired.methods import METHODS

    yield "unpaired", help_text([])
    for name in COMMANDS:
        variants = {"train": [["--method", method] for method in METHODS], "data": [["prepare"], ["check"]]}
        for words in [[name, *rest] for rest in variants.get(name, [[]])]:
            yield "unpaired " + " ".join(words), help_text(words)


def help_text(words: list[str]) -> str:
    """What ``unpaired WORDS --help`` prints into a file of fixed width, without colour or trailing blanks."""
    cli = importlib.import_module("unpaired.cli")
    printed = io.StringIO()
    fixed = _environment(COLUMNS=str(WIDTH), NO_COLOR="1", TERM="dumb")
    with fixed, contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        cli.main([*words, "--help"])
    lines = [wrapped for line in printed.getvalue().splitlines() for wrapped in _wrapped(line.rstrip())]
    return "\n".join(line for line, before in zip(lines, ["", *lines], strict=False) if line or before).strip()


def _wrapped(line: str) -> list[str]:
    return [line] if len(line) <= WIDTH else textwrap.wrap(line, WIDTH, break_on_hyphens=False)


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


if __name__ == "__main__":
    Path(__file__).with_name("cli.md").write_text(page(), encoding="utf-8")
