"""The table for a paper: booktabs, shaped like Table 1 of the QS-Attn paper (methods down, scores across)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from unpaired.comparison.figures import Figures, footnotes
from unpaired.comparison.table import WEIGHTS, Column, Comparison, Row

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
"""What TeX reads otherwise; brackets and stars only where an optional argument or a starred form may be looked for."""
_JOINED = re.compile(r"(?<=-)(?=-)|(?<=')(?=')|(?<=,)(?=,)")
"""Between two characters that fonts join to another one."""
_UNPRINTABLE = ("Cc", "Cf", "Cs", "Co", "Cn")


def escape_latex(words: str) -> str:
    r"""Text that LaTeX prints as it is, on one line.

    Letters beyond ASCII stay: pdfLaTeX knows those of European languages, XeLaTeX and LuaLaTeX all of them.

    >>> escape_latex("50 % of a_b [x]")
    '50 \\% of a\\_\\allowbreak{}b {[}x{]}'
    """
    seen = " ".join(unicodedata.normalize("NFC", words).split())
    seen = "".join(sign for sign in seen if unicodedata.category(sign) not in _UNPRINTABLE)
    return "{}".join("".join(_SIGNS.get(sign, sign) for sign in part) for part in _JOINED.split(seen))


def to_latex(comparison: Comparison) -> str:
    """A floating table with caption and label; where the scores do not fit side by side, several blocks below another.

    Best values are bold, deviations and intervals small. The document needs ``\\usepackage{booktabs}``.
    """
    figures = Figures(comparison)
    blocks = [_tabular(comparison, figures, columns) for columns in _side_by_side(comparison, figures)]
    body = "\n\\par\\medskip\n".join(blocks)
    spread = ", mean and standard deviation over training seeds" if _seeds(comparison) else ""
    caption = f"Scores on {escape_latex(_data_name(comparison))}{spread}. The best of each column is bold."
    names = "; ".join(f"{escape_latex(c.label)}: \\texttt{{{escape_latex(c.name)}}}" for c in comparison.columns)
    told = [escape_latex(note) for note in [*footnotes(comparison, references=False), *_images_seen(comparison.rows)]]
    notes = " \\\\\n".join(f"{{{note}}}" for note in [*told, f"names: {names}"])
    text = (
        "\\begin{table*}[t]\n\\centering\n"
        f"\\caption{{{caption}}}\n\\label{{tab:comparison}}\n\\par\\smallskip\n"
        "\\footnotesize\n\\setlength{\\tabcolsep}{4pt}\n"
        f"{body}\n\\par\\medskip\n"
        f"\\begin{{minipage}}{{\\linewidth}}\\scriptsize\\raggedright\n{notes}\n\\end{{minipage}}\n\\end{{table*}}\n"
    )
    needs = "% needs \\usepackage{booktabs}"
    if not text.isascii():
        needs += " and \\usepackage[T1]{fontenc}; for letters that are not European, XeLaTeX or LuaLaTeX"
    return f"{needs}\n{text}"


def _tabular(comparison: Comparison, figures: Figures, columns: Sequence[Column]) -> str:
    lines = [
        f"\\begin{{tabular}}{{@{{}}ll{'r' * len(columns)}@{{}}}}",
        "\\toprule",
        f"& & \\multicolumn{{{len(columns)}}}{{c}}{{{escape_latex(_data_name(comparison))}}} \\\\",
        f"\\cmidrule(l){{3-{2 + len(columns)}}}",
        " & ".join(["Method", "Weights", *map(_heading, columns)]) + " \\\\",
    ]
    units = [_unit(column) for column in columns]
    if any(units):
        lines.append(f"& & {' & '.join(units)} \\\\")
    before: Row | None = None
    for place, row in enumerate(comparison.rows):
        new = before is None or row.label != before.label
        if before is None or row.reference != before.reference:
            lines.append("\\midrule")
        elif new and not row.reference:
            lines.append("\\addlinespace")
        weights = escape_latex(WEIGHTS.get(row.weights, row.weights)) + "$^\\dagger$" * row.chosen
        cells = [f"{{{escape_latex(row.label) if new else ''}}}", weights]
        cells += [_cell(*_printed(figures, row, c), bold=(place, c.name) in figures.best) for c in columns]
        lines.append(" & ".join(cells) + " \\\\")
        before = row
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"])


def _printed(figures: Figures, row: Row, column: Column) -> tuple[str, str]:
    """A cell; the interval of a reference would only make the column wide."""
    mean, small = figures.cell(row, column)
    return mean, "" if row.reference else small


def _cell(mean: str, small: str, *, bold: bool) -> str:
    words = f"\\textbf{{{_figure(mean)}}}" if bold else _figure(mean)
    return f"{words} {{\\scriptsize {_figure(small)}}}" if small else words


def _figure(words: str) -> str:
    """Numbers with a minus that is one."""
    return re.sub(r"-(?=[\d$])", "$-$", escape_latex(words))


def _heading(column: Column) -> str:
    return f"{escape_latex(column.label)}\\,{escape_latex(column.arrow)}"


def _unit(column: Column) -> str:
    power = re.fullmatch(r"x 1e(-?\d+)", column.unit)
    words = f"$\\times 10^{{{power[1]}}}$" if power else escape_latex(column.unit)
    return f"{{\\scriptsize {words}}}" if words else ""


def _side_by_side(comparison: Comparison, figures: Figures) -> list[list[Column]]:
    """Columns in as few blocks as the width of a page allows, by an estimate."""
    lead = max(len(row.label) for row in comparison.rows) + len("Weights")
    space = _TEXT_WIDTH - lead * _DIGIT - 2 * _GAP
    blocks: list[list[Column]] = [[]]
    used = 0.0
    for column in comparison.columns:
        cells = [_printed(figures, row, column) for row in comparison.rows]
        width = max(len(mean) * _DIGIT + (len(small) + 1) * _SMALL * bool(small) for mean, small in cells)
        width = max(width, (len(column.label) + 1) * _DIGIT) + _GAP
        if blocks[-1] and used + width > space:
            blocks.append([])
            used = 0.0
        blocks[-1].append(column)
        used += width
    return blocks


def _images_seen(rows: Sequence[Row]) -> list[str]:
    """``images seen: CUT: EMA 3,300, best 900 (3 seeds); ...``, where anything was trained."""
    told = []
    trained = [row for row in rows if row.images_seen]
    for label in dict.fromkeys(row.label for row in trained):
        own = [row for row in trained if row.label == label]
        seeds = max(len(row.runs) for row in own)
        words = ", ".join(f"{WEIGHTS.get(row.weights, row.weights)} {row.images_words}" for row in own)
        told.append(f"{label}: {words}" + (f" ({seeds} seeds)" if seeds > 1 else ""))
    return [f"images seen: {'; '.join(told)}"] if told else []


def _seeds(comparison: Comparison) -> bool:
    return any(len(row.runs) > 1 for row in comparison.rows if not row.reference)


def _data_name(comparison: Comparison) -> str:
    return Path(comparison.data.name).name or comparison.data.name
