"""How the studio looks: the colours of the reports (``reporting/page.css``) in Gradio's theme, fonts of the machine."""

from __future__ import annotations

from typing import Any

_LIGHT = {"paper": "#fbfbfa", "card": "#ffffff", "ink": "#1d1f23", "soft": "#5c616b", "line": "#e3e4e8",
          "accent": "#2b6cb0", "code": "#f1f2f4"}  # fmt: skip
_DARK = {"paper": "#15171b", "card": "#1d2025", "ink": "#e7e8ea", "soft": "#a0a5ae", "line": "#32363e",
         "accent": "#7db3ec", "code": "#262a31"}  # fmt: skip
_VARIABLES = {
    "body_background_fill": "paper", "body_text_color": "ink", "body_text_color_subdued": "soft",
    "background_fill_primary": "card", "background_fill_secondary": "paper", "block_background_fill": "card",
    "block_border_color": "line", "border_color_primary": "line", "block_label_text_color": "soft",
    "block_label_background_fill": "card", "block_title_text_color": "soft", "block_info_text_color": "soft",
    "input_background_fill": "card", "input_border_color": "line",
    "border_color_accent": "accent", "checkbox_label_background_fill": "card", "checkbox_border_color": "line",
    "button_secondary_background_fill": "code", "button_secondary_text_color": "ink", "link_text_color": "accent",
    "button_secondary_border_color": "line", "code_background_fill": "code", "panel_background_fill": "card",
}  # fmt: skip
_SYSTEM = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
_MONOSPACED = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")

CSS = """
.gradio-container { width: 100% !important; max-width: 76rem !important; margin: 0 auto !important; }
.gradio-container .html-container { padding: 0 !important; }
.studio-head h1 { font-size: clamp(1.5rem, 4.5vw, 2.1rem); line-height: 1.2; letter-spacing: -0.015em; margin: 0; }
.studio-head p, .studio-note { color: var(--body-text-color-subdued); margin: 0.35rem 0 0; }
.studio-note code, .studio-head code { background: var(--code-background-fill); padding: 0.1rem 0.35rem;
  border-radius: 4px; overflow-wrap: anywhere; }
.studio-said { border-left: 3px solid var(--color-accent); padding: 0.3rem 0 0.3rem 0.8rem; margin: 0; }
.studio-said.bad { border-color: #b3372f; }
.studio-said ul { margin: 0.3rem 0 0; padding-left: 1.1rem; } .studio-said li { overflow-wrap: anywhere; }
.studio-card { background: var(--block-background-fill); border: 1px solid var(--border-color-primary);
  border-radius: 12px; padding: 1rem 1.15rem; margin: 0 0 1rem; }
.studio-card h3 { font-size: 1rem; font-weight: 600; margin: 0 0 0.7rem; color: var(--body-text-color); }
.studio-card img { max-width: 100%; }
.studio-facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); gap: 0.8rem 1.4rem;
  margin: 0 0 0.9rem; }
.studio-facts dt { color: var(--body-text-color-subdued); font-size: 0.82rem; }
.studio-facts dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.studio-bar { height: 0.5rem; border-radius: 4px; background: var(--border-color-primary); overflow: hidden; }
.studio-bar div { height: 100%; background: var(--color-accent); }
.studio-samples > div + div { margin-top: 0.6rem; }
.studio-samples p { font-size: 0.85rem; color: var(--body-text-color-subdued); margin: 0 0 0.25rem; }
.studio-samples > div > div { display: grid; grid-template-columns: repeat(6, minmax(0, 11rem)); gap: 0.4rem; }
.studio-samples img { width: 100%; border-radius: 6px; display: block; }
.studio-scores { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
table.studio-scores, .studio-scores :is(thead, tbody, tr, th, td) { border: 0 !important; }
.studio-scores th, .studio-scores td { padding: 0.45rem 0.5rem; text-align: right; }
.studio-scores th:first-child { text-align: left; font-weight: 500; }
.studio-scores thead th { font-size: 0.85rem; color: var(--body-text-color-subdued); font-weight: 600; }
.studio-scores tbody tr > * { border-top: 1px solid var(--border-color-primary) !important; }
.studio-scores small { display: block; color: var(--body-text-color-subdued); }
.studio-charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1rem; }
.studio-charts .studio-card { margin: 0; min-width: 0; } .studio-charts svg { width: 100%; height: auto; }
.studio-figures { display: grid; gap: 0.9rem; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); }
.studio-figures.wide { grid-template-columns: repeat(auto-fit, minmax(min(100%, 11rem), 1fr)); }
.studio-figures.pairs { grid-template-columns: 1.27fr 1fr; align-items: end; } /* a scale beside the first */
.studio-figures figure { margin: 0; min-width: 0; } .studio-figures.wide figure { max-width: 26rem; }
#uploads img { background: #ffffff; object-fit: cover; }
#uploads .grid-wrap { padding-top: 2rem; } /* below the label */
:is(#picture, #run, #clip-run, #training) input { text-overflow: ellipsis !important;
  padding-right: 2.2rem !important; }
.report { --line: var(--border-color-primary); --soft: var(--body-text-color-subdued); --accent: var(--color-accent);
  --card: var(--block-background-fill); --ink: var(--body-text-color); }
.studio-figures img { width: 100%; height: auto; display: block; border-radius: 6px; background: #ffffff; }
.studio-figures figcaption { font-size: 0.85rem; color: var(--body-text-color-subdued); margin-top: 0.3rem;
  overflow-wrap: anywhere; }
@media (max-width: 560px) {
  .gradio-container, .gradio-container > main { padding: 0.7rem !important; }
  .studio-figures, .studio-figures.wide { grid-template-columns: 1fr 1fr; gap: 0.6rem; }
  .studio-figures.pairs { grid-template-columns: 1fr; }
  .studio-card { padding: 0.8rem 0.75rem; } .studio-facts { grid-template-columns: 1fr 1fr; }
}
"""


def theme() -> Any:
    """Gradio's plain theme in the colours of the reports, light and dark; no font is fetched."""
    import gradio as gr

    plain = gr.themes.Base(
        primary_hue=gr.themes.colors.blue,
        neutral_hue=gr.themes.colors.gray,
        font=_SYSTEM,
        font_mono=_MONOSPACED,
        radius_size=gr.themes.sizes.radius_lg,
    )
    colours = {name: _LIGHT[colour] for name, colour in _VARIABLES.items()}
    colours["color_accent"] = "#3d85c6"  # has no dark variant; reads on both
    colours |= {f"{name}_dark": _DARK[colour] for name, colour in _VARIABLES.items()}
    button = {"button_primary_background_fill": "#2b6cb0", "button_primary_background_fill_hover": "#245a94",
              "button_primary_text_color": "#ffffff"}  # fmt: skip
    colours |= button | {f"{name}_dark": value for name, value in button.items()}
    return plain.set(**colours, block_border_width="1px", block_shadow="none", block_shadow_dark="none")
