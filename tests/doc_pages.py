"""What the tests of the pages share: their fenced blocks, and a run of the Python ones in order."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, *languages: str) -> list[str]:
    """Contents of the fenced blocks of the page in any of the languages."""
    found = re.findall(r"^```([\w-]*)[^\n]*\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [text for language, text in found if language in languages]


def run_examples(page: Path, **given: Any) -> tuple[dict[str, Any], list[str]]:
    """Run the Python blocks of a page in order, in one namespace that holds what is ``given``.

    Returns:
        The namespace afterwards, and what each block printed.
    """
    space, printed = dict(given), list[str]()
    for number, code in enumerate(blocks(page, "python"), start=1):
        with contextlib.redirect_stdout(io.StringIO()) as said:
            exec(compile(code, f"{name_of(page)}, example {number}", "exec"), space)
        printed.append(said.getvalue().strip())
    return space, printed
