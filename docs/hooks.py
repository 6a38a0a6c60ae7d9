"""What mkdocs needs beside the pages: the page of the command line out of the help texts, README as the first page.

Links of pages to files outside ``docs/`` are names of files in the site, because these are not part of it.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
WIDTH = 100

_HEAD = """# The command line

What `unpaired --help` and `unpaired COMMAND --help` print at {width} columns.

`unpaired train` is shown once per method, because its model options are the settings of the method. Options that are
written `--flag, --no-flag` take no value. `[STR [STR ...]]` means any number of words. An
option whose default is `unset` takes that word, too.

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


def on_files(files: Any, config: Any) -> Any:
    """mkdocs: add the pages that lie elsewhere or are made here."""
    from mkdocs.structure.files import File

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = {
        "index.md": re.sub(r"(\]\(|src=\")docs/", r"\1", readme).replace("](CHANGELOG.md)", "](changelog.md)"),
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").replace("](docs/", "]("),
        "cli.md": page(),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, *, files: Any, **_: Any) -> str:
    """mkdocs: a link to a file of the repository that is not a page or an image of the site becomes the file's name."""

    def named(found: re.Match[str]) -> str:
        name = found[2].removeprefix("../").partition("#")[0]
        outside = (ROOT / name).exists() and files.get_file_from_path(name) is None
        return f"{found[1]} (`{name}`)" if outside else found[0]

    return re.sub(r"!?\[([^\]]*)\]\(([^)#:][^):]*)\)", named, markdown)
