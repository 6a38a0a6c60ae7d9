"""Score tables for papers and other programs: Markdown, CSV, JSON, LaTeX."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from unpaired.files import last_part
from unpaired.reporting.tables import WEIGHTS, Cell, Column, Comparison, Row, TrainingTable


# ---------------------------------------------------------------------------------------------------------------------
# Markdown
# ---------------------------------------------------------------------------------------------------------------------
def to_markdown(comparison: Comparison) -> str:
    """A Markdown table, best values bold, with full names, protocols and footnotes below."""
    head = ["method", "weights", "images seen", "seeds", *(column.heading for column in comparison.columns)]
    rows = [
        [row.label, row.weights_words, row.images_words, "" if row.reference else str(len(row.runs)), *cells]
        for row, cells in zip(comparison.rows, comparison.cells(), strict=True)
    ]
    names = [f"{_escaped(c.label)}: {_code(c.name)}: {_escaped(c.protocol)}" for c in comparison.columns]
    return markdown_table(head, rows, "lllr") + "\n" + _listed([*names, *map(_escaped, comparison.footnotes())])


def training_markdown(tables: Sequence[TrainingTable]) -> str:
    """The tables over training in Markdown, a heading for each."""
    parts = []
    for table in tables:
        head = ["images seen", *(f"{column.heading}, {WEIGHTS.get(w, w)}" for column, w in table.columns)]
        rows = [[f"{seen:,}", *cells] for seen, cells in zip(table.images, table.cells(), strict=True)]
        names = dict.fromkeys(f"{_escaped(column.label)}: {_code(column.name)}" for column, _ in table.columns)
        notes = _listed([*names, *map(_escaped, table.footnotes())])
        parts.append(f"### {_escaped(table.label)}\n\n{markdown_table(head, rows, 'r')}\n{notes}")
    return "\n".join(parts)


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[object]], alignment: str = "l") -> str:
    """A Markdown table; words are escaped.

    Args:
        head: Words over the columns.
        rows: As many words or cells each.
        alignment: ``l`` or ``r`` for each of the first columns; the others are ``r``.
    """
    marks = ["---:" if side == "r" else "---" for side in alignment.ljust(len(head), "r")]
    body = [
        [f"**{_escaped(str(x))}**" if isinstance(x, Cell) and x.best else _escaped(str(x)) for x in row] for row in rows
    ]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in ([*map(_escaped, head)], marks, *body))


def _listed(notes: Sequence[str]) -> str:
    return "".join(f"- {note}\n" for note in notes)


def _escaped(words: str) -> str:
    """Text that Markdown prints as it is, also inside a table."""
    return re.sub(r"([\\`*_{}\[\]<>|#~&])", r"\\\1", " ".join(words.split()))


def _code(words: str) -> str:
    return "`" + " ".join(words.split()).replace("`", "'").replace("|", "\\|") + "`"


# ---------------------------------------------------------------------------------------------------------------------
# CSV and JSON
# ---------------------------------------------------------------------------------------------------------------------
def to_csv(comparison: Comparison) -> str:
    """One line per row and score; lists (runs, images seen of each run) are separated by semicolons."""
    columns = {column.name: column for column in comparison.columns}
    return _csv([
        _csv_line(comparison.rows[place], columns[name], value)
        for (place, name), value in _ordered(comparison).iterrows()
    ])  # fmt: skip


def training_csv(tables: Sequence[TrainingTable]) -> str:
    """One line per time, weights and score; the last field marks the best of each score."""
    lines = []
    for table in tables:
        cells = {
            (seen, weights, column.name): (column, cell)
            for seen, line in zip(table.images, table.cells(), strict=True)
            for (column, weights), cell in zip(table.columns, line, strict=True)
        }
        for key, value in table.values.iterrows():
            column, cell = cells[key]
            row = Row(table.label, key[1], False, (key[0],), table.runs)
            lines.append({**_csv_line(row, column, value), "best": "yes" if cell.best else "no"})
    return _csv(lines)


def _ordered(comparison: Comparison) -> pd.DataFrame:
    """The values by row, then by column."""
    places = {column.name: n for n, column in enumerate(comparison.columns)}
    return comparison.values.sort_index(key=lambda index: index.map(lambda x: places.get(x, x)))


def _csv_line(row: Row, column: Column, value: Any) -> dict[str, Any]:
    return {
        "label": row.label, "weights": row.weights, "reference": "yes" if row.reference else "no",
        "runs": ";".join(row.runs), "score": value["name"], "mean": value["mean"], "sd": value["sd"],
        "n": value["n"], "spread": value["spread"], "interval_low": value["low"], "interval_high": value["high"],
        "unit": column.unit, "better": column.better, "protocol": column.protocol,
        "images_seen": ";".join(map(str, row.images_seen)),
    }  # fmt: skip


def _csv(lines: Sequence[dict[str, Any]]) -> str:
    return pd.DataFrame(lines, dtype=object).to_csv(index=False, lineterminator="\n")


def to_json(comparison: Comparison) -> str:
    """Everything, as plain values; infinities are the words ``inf`` and ``-inf``."""
    rows: list[dict[str, Any]] = [{**asdict(row), "values": {}} for row in comparison.rows]
    for (place, name), value in _ordered(comparison).iterrows():
        interval = None if math.isnan(value["low"]) else [value["low"], value["high"]]
        numbers = {key: value[key] for key in ("mean", "sd", "n", "spread")}
        rows[place]["values"][name] = {**numbers, "interval": interval, "name": value["name"]}
    plain = {
        "columns": [asdict(column) for column in comparison.columns],
        "rows": rows,
        "data": vars(comparison.data),
        "seed": comparison.seed,
        "networks": comparison.networks,
        "remarks": comparison.remarks,
        "warnings": comparison.warnings,
        "footnotes": comparison.footnotes(),
    }
    return json.dumps(_plain(plain), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


# ---------------------------------------------------------------------------------------------------------------------
# LaTeX
# ---------------------------------------------------------------------------------------------------------------------
_TEXT_WIDTH, _DIGIT, _SMALL, _GAP = 397.0, 4.3, 3.9, 8.0
"""Points: the text of a one-column conference page, a digit in ``footnotesize`` and ``scriptsize``, the gap between
columns."""
_SIGNS = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%",
    "_": r"\_\allowbreak{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': "{''}", "`": r"\textasciigrave{}", "[": "{[}", "]": "{]}",
    "*": "{*}", "†": r"$\dagger$", "±": r"$\pm$", "∞": r"$\infty$", "\N{MULTIPLICATION SIGN}": r"$\times$",
    "·": r"$\cdot$", "\N{MINUS SIGN}": "$-$", "\N{EN DASH}": "{--}", "—": "{---}", "→": r"$\rightarrow$",
    "←": r"$\leftarrow$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "≤": r"$\leq$", "≥": r"$\geq$",
    "…": r"\ldots{}", "°": r"$^{\circ}$", "µ": r"$\mu$",
}  # fmt: skip
"""Characters special to TeX; brackets and stars since they may be read as an optional argument or a starred form."""
_JOINED = re.compile(r"(?<=-)(?=-)|(?<=')(?=')|(?<=,)(?=,)")
"""Between two characters that fonts join into a ligature."""


def escape_latex(words: str) -> str:
    r"""Text that LaTeX prints as it is, on one line.

    pandas escapes ASCII only. Letters beyond it stay: pdfLaTeX knows those of European languages, LuaLaTeX all of them.

    >>> escape_latex("50 % of a_b [x]")
    '50 \\% of a\\_\\allowbreak{}b {[}x{]}'
    """
    seen = " ".join(unicodedata.normalize("NFC", words).split())
    seen = "".join(sign for sign in seen if unicodedata.category(sign) not in ("Cc", "Cf", "Cs", "Co", "Cn"))
    return "{}".join("".join(_SIGNS.get(sign, sign) for sign in part) for part in _JOINED.split(seen))


def to_latex(comparison: Comparison) -> str:
    """A floating booktabs table with caption and label; if the scores do not fit side by side, several blocks.

    Best values are bold, deviations and intervals small. The document needs ``\\usepackage{booktabs}``.
    """
    data = escape_latex(last_part(comparison.data.name))
    body = "\\par\\medskip\n".join(_tabular(comparison, columns) for columns in _blocks(comparison))
    several = any(len(row.runs) > 1 for row in comparison.rows if not row.reference)
    spread = ", mean and standard deviation over training seeds" if several else ""
    told = [escape_latex(note) for note in [*comparison.footnotes(references=False), *_images_seen(comparison.rows)]]
    names = "; ".join(f"{escape_latex(c.label)}: \\texttt{{{escape_latex(c.name)}}}" for c in comparison.columns)
    notes = " \\\\\n".join(f"{{{note}}}" for note in [*told, f"names: {names}"])
    text = (
        "\\begin{table*}[t]\n\\centering\n"
        f"\\caption{{Scores on {data}{spread}. The best of each column is bold.}}\n\\label{{tab:comparison}}\n"
        f"\\par\\smallskip\n\\footnotesize\n\\setlength{{\\tabcolsep}}{{4pt}}\n{body}\\par\\medskip\n"
        f"\\begin{{minipage}}{{\\linewidth}}\\scriptsize\\raggedright\n{notes}\n\\end{{minipage}}\n\\end{{table*}}\n"
    )
    needs = "% needs \\usepackage{booktabs}"
    if not text.isascii():
        needs += " and \\usepackage[T1]{fontenc}; for letters that are not European, LuaLaTeX"
    return f"{needs}\n{text}"


def _tabular(comparison: Comparison, columns: Sequence[int]) -> str:
    lines = []
    for before, row, cells in zip([None, *comparison.rows], comparison.rows, comparison.cells(), strict=False):
        new = before is None or row.label != before.label
        rule = ""
        if before is not None and row.reference != before.reference:
            rule = "\\midrule\n"
        elif before is not None and new and not row.reference:
            rule = "\\addlinespace\n"
        weights = escape_latex(WEIGHTS.get(row.weights, row.weights)) + "$^\\dagger$" * row.chosen
        label = f"{rule}{{{escape_latex(row.label) if new else ''}}}"
        lines.append([label, weights, *(_latex_cell(cells[n], row) for n in columns)])
    head = ["Method", "Weights", *(_latex_heading(comparison.columns[n]) for n in columns)]
    frame = pd.DataFrame(lines, columns=pd.Index(head, dtype=object), dtype=object)
    return frame.to_latex(index=False, escape=False, column_format=f"@{{}}ll{'r' * len(columns)}@{{}}")


def _latex_cell(cell: Cell, row: Row) -> str:
    """The mean, and beside it in small type its deviation; without intervals of references, to keep columns narrow."""
    mean, beside = (re.sub(r"-(?=[\d$])", "$-$", escape_latex(words)) for words in (cell.mean, cell.beside))
    mean = f"\\textbf{{{mean}}}" if cell.best else mean
    return f"{mean} {{\\scriptsize {beside}}}" if beside and not row.reference else mean


def _latex_heading(column: Column) -> str:
    power = re.fullmatch(r"x 1e(-?\d+)", column.unit)
    unit = f"$\\times 10^{{{power[1]}}}$" if power else escape_latex(column.unit)
    heading = f"{escape_latex(column.label)}\\,{escape_latex(column.arrow)}"
    return f"\\begin{{tabular}}{{@{{}}r@{{}}}}{heading}\\\\{{\\scriptsize {unit}}}\\end{{tabular}}" if unit else heading


def _blocks(comparison: Comparison) -> list[list[int]]:
    """Numbers of columns in as few blocks as the width of a page allows, by an estimate."""
    space = _TEXT_WIDTH - (max(len(row.label) for row in comparison.rows) + len("Weights")) * _DIGIT - 2 * _GAP
    blocks: list[list[int]] = [[]]
    used = 0.0
    for place, cells in enumerate(zip(*comparison.cells(), strict=True)):
        widths = [(len(comparison.columns[place].label) + 1) * _DIGIT]
        for row, cell in zip(comparison.rows, cells, strict=True):
            beside = "" if row.reference else cell.beside
            widths.append(len(cell.mean) * _DIGIT + (len(beside) + 1) * _SMALL * bool(beside))
        if blocks[-1] and used + max(widths) + _GAP > space:
            blocks.append([])
            used = 0.0
        blocks[-1].append(place)
        used += max(widths) + _GAP
    return blocks


def _images_seen(rows: Sequence[Row]) -> list[str]:
    """``images seen: CUT: EMA 3,300, best 900 (3 seeds); ...``, if anything was trained."""
    told = []
    trained = [row for row in rows if row.images_seen]
    for label in dict.fromkeys(row.label for row in trained):
        own = [row for row in trained if row.label == label]
        seeds = max(len(row.runs) for row in own)
        words = ", ".join(f"{WEIGHTS.get(row.weights, row.weights)} {row.images_words}" for row in own)
        told.append(f"{label}: {words}" + (f" ({seeds} seeds)" if seeds > 1 else ""))
    return [f"images seen: {'; '.join(told)}"] if told else []
