"""One self-contained page: no server, no second file, so that it can be mailed and opened anywhere.

A page has no script, or one inline script that is allowed by its digest; see ``script.py``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from html import escape
from pathlib import Path

from unpaired.errors import UserError
from unpaired.files import write_atomically
from unpaired.reports.blocks import Block
from unpaired.reports.script import script_for, source_of
from unpaired.reports.style import STYLE


def html_page(title: str, blocks: Iterable[Block], *, footer: str = "", language: str = "en") -> str:
    """Wrap blocks into a whole HTML document, with the scripts that they ask for and a policy that allows no other."""
    foot = f"<footer>{escape(footer)}</footer>" if footer else ""
    body = "\n".join(blocks)
    script = script_for(body)
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {source_of(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        f'<!DOCTYPE html>\n<html lang="{escape(language)}">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n{foot}</main>\n{f'<script>{script}</script>' if script else ''}</body>\n</html>\n"
    )


def write_html_report(
    path: str | os.PathLike[str],
    title: str,
    blocks: Iterable[Block],
    *,
    footer: str = "Made with unpaired.",
    language: str = "en",
) -> Path:
    """Write one HTML page made of ``blocks``; a reader never sees half a page, and a failure leaves the old one.

    Args:
        path: The file to write; missing folders are made.
        title: Words of the browser's tab.
        blocks: Made by the functions of ``unpaired.reports.blocks``, top to bottom.
        footer: Small words at the end.
        language: Language code of the words.

    Returns:
        The path written.

    Raises:
        UserError: the file cannot be written; the message names it.
    """
    target = Path(path)
    page = html_page(title, blocks, footer=footer, language=language).encode("utf-8", "xmlcharrefreplace")
    try:
        if target.is_dir():
            raise IsADirectoryError("it is a folder; name a file, such as report.html")
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, page)
    except OSError as error:
        raise UserError(f"cannot write the report {target}: {error.strerror or error}") from error
    return target
