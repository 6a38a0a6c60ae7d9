"""The one style sheet of a report: quiet paper, one accent, light and dark, from phone to wide screen."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fbfbfa; --card: #ffffff; --ink: #1d1f23; --soft: #5c616b; --line: #e3e4e8;
  --accent: #2b6cb0; --good: #1d7a4c; --bad: #b3372f; --best: #e9f5ee; --code: #f1f2f4;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --paper: #15171b; --card: #1d2025; --ink: #e7e8ea; --soft: #a0a5ae; --line: #32363e;
    --accent: #7db3ec; --good: #63c796; --bad: #f08a80; --best: #1c3328; --code: #262a31;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main { max-width: 68rem; margin: 0 auto; padding: 2.5rem 1.5rem 3rem; }
h1 { font-size: clamp(1.6rem, 4.5vw, 2.3rem); line-height: 1.2; margin: 0;
  letter-spacing: -0.015em; text-wrap: balance; }
h2 { font-size: 1.2rem; margin: 0 0 0.8rem; letter-spacing: -0.005em; }
p { margin: 0.5rem 0; max-width: 46rem; }
.subtitle { color: var(--soft); font-size: 1.06rem; }
section { margin-top: 2.4rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 1rem 1.15rem; }
.scroll { overflow-x: auto; }
.note { color: var(--soft); font-size: 0.9rem; }

.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: 0.9rem 1.5rem; margin: 0; }
.facts dt { color: var(--soft); font-size: 0.82rem; }
.facts dd { margin: 0; font-weight: 550; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }

table { border-collapse: collapse; width: 100%; }
.scores th, .scores td { padding: 0.55rem 0.8rem; text-align: right; white-space: nowrap; vertical-align: top; }
.scores th:first-child { text-align: left; padding-left: 0.2rem; white-space: normal; min-width: 8.5rem;
  position: sticky; left: 0; background: var(--card); }
.scores thead th { font-size: 0.88rem; font-weight: 600; border-bottom: 1px solid var(--line); vertical-align: bottom; }
.scores tbody th { font-weight: 550; }
.scores tbody tr + tr > * { border-top: 1px solid var(--line); }
.scores td { font-variant-numeric: tabular-nums; }
.scores small { display: block; font-size: 0.8rem; font-weight: 400; color: var(--soft); }
.scores td.best { background: var(--best); font-weight: 700; }
.scores tr.reference { color: var(--soft); font-style: italic; }
.scores small.good { color: var(--good); } .scores small.bad { color: var(--bad); }
.protocols { margin: 0.8rem 0 0; padding-left: 1.1rem; }

.scores thead button { all: unset; cursor: pointer; display: block; width: 100%; border-radius: 4px; }
.scores thead button:hover { color: var(--accent); }
.scores thead button:focus-visible { outline: 2px solid var(--accent); outline-offset: 3px; }
.scores th[aria-sort] { border-bottom: 2px solid var(--accent); color: var(--accent); }
.scores th[aria-sort] button::after { display: block; font-weight: 400; font-size: 0.8rem; }
.scores th[aria-sort="ascending"] button::after { content: "\\25B2\\00A0 ascending"; }
.scores th[aria-sort="descending"] button::after { content: "\\25BC\\00A0 descending"; }
.words th, .words td { padding: 0.4rem 0.7rem; text-align: left; vertical-align: top; font-size: 0.9rem;
  font-variant-numeric: tabular-nums; }
.words th:first-child { padding-left: 0.2rem; }
.words tbody th { font-weight: 400; color: var(--soft); }
.words tbody tr > * { border-top: 1px solid var(--line); }

.gallery { table-layout: fixed; border-spacing: 0; }
.gallery th { font-size: 0.88rem; font-weight: 600; text-align: center; padding: 0 0.25rem 0.45rem;
  overflow-wrap: anywhere; }
.gallery.many { min-width: calc(var(--columns) * 4.4rem); }
.gallery td { padding: 0.25rem; text-align: center; vertical-align: middle; }
.gallery td.name, .gallery th.name { width: 8.5rem; text-align: left; font-size: 0.85rem; color: var(--soft);
  overflow-wrap: anywhere; font-weight: 400; padding-right: 0.6rem; }
.gallery img { display: block; margin: 0 auto; width: 100%; max-width: 16rem; height: auto; border-radius: 6px;
  background: #ffffff; outline: 1px solid var(--line); }
img.pixels { image-rendering: pixelated; }
.strip + .strip { margin-top: 1rem; }
h3 { font-size: 0.98rem; font-weight: 600; margin: 0 0 0.6rem; overflow-wrap: anywhere; }
.strip .gallery td { padding: 0.15rem; }
.strip .gallery td:first-child { padding-right: 0.5rem; }
section:has(.many) > .card { width: min(96rem, 100vw - 3rem); margin-left: calc(50% - min(48rem, 50vw - 1.5rem)); }

.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(15rem, 100%), 1fr)); gap: 1.1rem; }
.pairs figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: 0.7rem; }
.pair { display: flex; gap: 0.4rem; }
.pair img { display: block; width: 100%; min-width: 0; height: auto; border-radius: 6px; background: #ffffff; }
.sliding .pair { display: grid; cursor: ew-resize; touch-action: pan-y; position: relative; --cut: 50%; }
.sliding .pair img { grid-area: 1 / 1; user-select: none; pointer-events: none; }
.sliding .pair img + img { clip-path: inset(0 0 0 var(--cut)); }
.sliding .pair::after { content: ""; position: absolute; top: 0; bottom: 0; left: var(--cut); width: 2px;
  background: var(--accent); }
.pairs input { display: block; width: 100%; margin: 0.5rem 0 0; accent-color: var(--accent); }
.pairs input[hidden] { display: none; }
.pairs figcaption { color: var(--soft); font-size: 0.85rem; margin-top: 0.3rem; overflow-wrap: anywhere; }
@media print { .pairs input, .sliding .pair::after { display: none; }
  .sliding .pair { display: flex; } .sliding .pair img + img { clip-path: none; } }

.viewer fieldset { border: 0; padding: 0; margin: 0 0 0.9rem; display: flex; flex-wrap: wrap; gap: 0.4rem; }
.viewer legend { padding: 0 0 0.3rem; font-size: 0.85rem; color: var(--soft); }
.viewer label { position: relative; cursor: pointer; border-radius: 6px; display: block; }
.viewer label input { position: absolute; inset: 0; opacity: 0; margin: 0; cursor: pointer; }
.thumbnails img { display: block; width: 3.5rem; height: 3.5rem; object-fit: cover; border-radius: 6px; }
.thumbnails label:has(:checked) { outline: 3px solid var(--accent); outline-offset: 1px; }
.places span { display: block; padding: 0.25rem 0.8rem; border: 1px solid var(--line); border-radius: 6px;
  font-size: 0.9rem; }
.places label:has(:checked) span { background: var(--accent); border-color: var(--accent); color: var(--card); }
.viewer label:has(:focus-visible) { box-shadow: 0 0 0 2px var(--card), 0 0 0 5px var(--accent); }
.panel + .panel { margin-top: 2rem; }
.panel h3 { margin: 0 0 0.3rem; }
.scale { display: flex; align-items: center; gap: 0.6rem; margin: 0 0 0.9rem; max-width: none;
  font-size: 0.85rem; color: var(--soft); }
.scale .bar { flex: 0 1 16rem; min-width: 3rem; height: 0.7rem; border-radius: 3px; }
.views { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1.1rem 1.4rem; }
.views figure { max-width: 40rem; display: grid; grid-template-rows: subgrid; grid-row: span 2; gap: 0.4rem; }
.views figcaption { margin: 0; } .views figcaption b { color: var(--ink); font-weight: 600; }
.views figcaption small { display: block; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 0.5rem; }
.pair { align-items: start; }
.pair img { width: 100%; height: auto; display: block; outline: 1px solid var(--line); }
.overlay { position: relative; display: block; }
.overlay svg { position: absolute; inset: 0; width: 100%; height: 100%; overflow: hidden; border-radius: 6px; }
.overlay path { fill: none; stroke-linecap: round; stroke: #ffffff; } .overlay .dot { stroke: #ff4081; }
figure { margin: 0; } figure img { max-width: 100%; height: auto; border-radius: 6px; display: block; }
figcaption { color: var(--soft); font-size: 0.9rem; margin-top: 0.5rem; }

.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1rem; }
.chart { display: block; height: auto; }
pre { margin: 0; padding: 0.9rem 1.1rem; background: var(--code); border-radius: 10px; overflow-x: auto;
  font: 0.9rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
footer { margin-top: 3rem; color: var(--soft); font-size: 0.85rem; border-top: 1px solid var(--line);
  padding-top: 0.9rem; }

@media (max-width: 560px) {
  main { padding: 1.5rem 0.9rem 2rem; }
  .card { padding: 0.8rem 0.75rem; }
  .facts { grid-template-columns: 1fr 1fr; gap: 0.7rem 1rem; }
  .scores { font-size: 0.84rem; }
  .scores th, .scores td { padding: 0.45rem 0.3rem; white-space: normal; }
  .scores thead th { font-size: 0.78rem; } .scores small { font-size: 0.72rem; }
  .scores th:first-child { min-width: 5rem; }
  .gallery th { font-size: 0.76rem; padding: 0 0.1rem 0.3rem; hyphens: auto; }
  .gallery thead th.name { display: none; }
  .gallery tbody tr { display: flex; flex-wrap: wrap; }
  .gallery thead tr { display: flex; }
  .gallery thead th, .gallery tbody td { flex: 1 1 0; min-width: 0; }
  .gallery tbody td.name { flex: 0 0 100%; padding-top: 0.5rem; }
  section:has(.many) > .card { width: auto; margin-left: 0; }
}
@media print {
  :root { color-scheme: light; }
  .bar, .best, svg { print-color-adjust: exact; }
  .charts, .views { grid-template-columns: 1fr 1fr; }
  .scores { font-size: 0.8rem; } .scores th, .scores td { white-space: normal; padding: 0.3rem 0.4rem; }
  .scroll { overflow: visible; } pre { white-space: pre-wrap; }
  h2, h3 { break-after: avoid; }
  .script-only, .controls { display: none; }
  tr, .strip, .charts .card, .views figure { break-inside: avoid; }
  section:has(.many) > .card { width: auto; margin-left: 0; }
  .card { border: 0; padding: 0; }
}
"""
