"""Pictures and words for people: image grids, query overlays, loss curves and self-contained HTML reports."""

from unpaired.reports.before_after import before_after
from unpaired.reports.blocks import (
    LOSSLESS,
    Block,
    Encoding,
    charts,
    command,
    facts,
    figure,
    filmstrips,
    gallery,
    heading,
    notes,
    section,
    table,
)
from unpaired.reports.curves import curve_svg
from unpaired.reports.grid import grid_cells, image_grid, png_bytes, side_by_side, to_rgb
from unpaired.reports.html import html_page, write_html_report
from unpaired.reports.overlays import draw_queries, finite_range, heat_map, nats
from unpaired.reports.scores import DASH, MINUS, ScoreColumn, ScoreRow, score_table
from unpaired.reports.sheet import Cell, Column, Sheet
from unpaired.reports.viewer import Panel, View, significance_viewer

__all__ = [
    "DASH",
    "LOSSLESS",
    "MINUS",
    "Block",
    "Cell",
    "Column",
    "Encoding",
    "Panel",
    "ScoreColumn",
    "ScoreRow",
    "Sheet",
    "View",
    "before_after",
    "charts",
    "command",
    "curve_svg",
    "draw_queries",
    "facts",
    "figure",
    "filmstrips",
    "finite_range",
    "gallery",
    "grid_cells",
    "heading",
    "heat_map",
    "html_page",
    "image_grid",
    "nats",
    "notes",
    "png_bytes",
    "score_table",
    "section",
    "side_by_side",
    "significance_viewer",
    "table",
    "to_rgb",
    "write_html_report",
]
