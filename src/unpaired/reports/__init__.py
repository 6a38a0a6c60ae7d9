"""Pictures and words for people: image grids, query overlays, loss curves and self-contained HTML reports."""

from unpaired.reports.blocks import (
    Block,
    charts,
    command,
    facts,
    figure,
    gallery,
    heading,
    notes,
    section,
)
from unpaired.reports.curves import curve_svg
from unpaired.reports.grid import image_grid, png_bytes, side_by_side, to_rgb
from unpaired.reports.html import html_page, write_html_report
from unpaired.reports.overlays import draw_queries, heat_map
from unpaired.reports.scores import ScoreColumn, ScoreRow, score_table

__all__ = [
    "Block",
    "ScoreColumn",
    "ScoreRow",
    "charts",
    "command",
    "curve_svg",
    "draw_queries",
    "facts",
    "figure",
    "gallery",
    "heading",
    "heat_map",
    "html_page",
    "image_grid",
    "notes",
    "png_bytes",
    "score_table",
    "section",
    "side_by_side",
    "to_rgb",
    "write_html_report",
]
