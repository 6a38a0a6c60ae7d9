"""The page of the studio (Gradio): its layout, and the function behind each button."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from unpaired.errors import UserError
from unpaired.reporting.page import asset, html_fragment, significance_viewer
from unpaired.studio.gallery import copy_examples, figures, pairs_html
from unpaired.studio.limits import Limits
from unpaired.studio.live import live_key, live_page
from unpaired.studio.runs import StudioRun
from unpaired.studio.translating import (
    PageRequest,
    Picture,
    Results,
    discard,
    download,
    see,
    translate_clip,
    translate_uploads,
    view,
)
from unpaired.studio.uploads import check_paths

_FORGET_SECONDS = 3600
"""Files and results of a closed page are removed after so many seconds."""
_HIDDEN: dict[str, Any] = {"api_visibility": "private"}


@dataclass(frozen=True)
class Shown:
    """What a studio shows.

    Attributes:
        runs: As given on the command line; may be empty.
        root: Temporary folder for everything that is written.
        limits: Limits of one request.
        refresh_seconds: Between two looks at a training.
        note: A sentence below the heading.
    """

    runs: Sequence[StudioRun]
    root: Path
    limits: Limits
    refresh_seconds: float = 5.0
    note: str = ""

    @property
    def live(self) -> list[StudioRun]:
        """Runs with records of a training."""
        return [run for run in self.runs if run.live]


class _Page(gr.Blocks):
    """A page that refuses what it never sends in one line; Gradio would print a traceback, or read any file."""

    uploads: Path

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *words: Any, **options: Any) -> Any:
        """As of Gradio."""
        try:
            check_paths(inputs, self.uploads)
            return await super().preprocess_data(block_fn, inputs, *words, **options)
        except Exception as error:
            raise gr.Error("this page sends no such request", print_exception=False) from error


def make_page(shown: Shown) -> gr.Blocks:
    """Build the page. Its queue takes one translation at a time; looks at a training do not wait for it."""
    with _Page(
        title="unpaired studio", analytics_enabled=False, delete_cache=(_FORGET_SECONDS // 4, _FORGET_SECONDS)
    ) as page:
        page.uploads = shown.root
        gr.HTML(_head(shown), padding=False)
        if shown.runs or shown.live:
            with gr.Tabs():
                if shown.runs:
                    with gr.Tab("Translate"):
                        _translate_tab(shown)
                    with gr.Tab("Clip"):
                        _clip_tab(shown)
                if shown.live:
                    with gr.Tab("Training"):
                        _training_tab(shown)
        if not shown.runs:
            _gallery()
    page.queue(max_size=shown.limits.queue, api_open=False)
    return page


def _head(shown: Shown) -> str:
    listed = ", ".join(f"{escape(run.name)} ({escape(run.title)})" for run in shown.runs)
    words = listed or "no run is open"
    note = f'<p class="studio-note">{escape(shown.note)}</p>' if shown.note else ""
    style = f"<style>.report {{ {asset('page.css')} }}</style>"
    return f'{style}<div class="studio-head"><h1>unpaired studio</h1><p>{words}</p>{note}</div>'


# ---------------------------------------------------------------------------------------------------------------------
# translate
# ---------------------------------------------------------------------------------------------------------------------
def _translate_tab(shown: Shown) -> None:
    runs, limits = {run.name: run for run in shown.runs}, shown.limits
    supports = frozenset().union(*(run.supports for run in shown.runs))
    domains = list(dict.fromkeys(domain for run in shown.runs for domain in run.domains))
    kept = gr.State(None, time_to_live=_FORGET_SECONDS, delete_callback=discard)
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=280):
            uploads = gr.Gallery(
                label="Pictures", type="filepath", sources=["upload", "webcam", "clipboard"],
                file_types=["image"], columns=3, height=335, object_fit="contain", interactive=True,
                elem_id="uploads",
            )  # fmt: skip
            examples = gr.Button("Translate held-out images of the run", size="sm", elem_id="examples")
            chosen = gr.CheckboxGroup(list(runs), value=list(runs), label="Runs", visible=len(runs) > 1, elem_id="runs")
            with gr.Accordion("Options", open=False):
                size = gr.Radio(
                    [("as it is", "original"), ("training size, then scaled back", "training")], value="original",
                    label="Size to translate at",
                )  # fmt: skip
                reverse = gr.Checkbox(False, label="From target to source", visible="reverse" in supports)
                style = gr.Number(
                    0, label="Style seed", precision=0, minimum=0, maximum=2**31, visible="style" in supports
                )
                domain = gr.Dropdown(domains, value=domains[0] if domains else None, label="Domain",
                                     visible=bool(domains))  # fmt: skip
            start = gr.Button("Translate", variant="primary", elem_id="translate")
            said = gr.HTML(_limits_note(limits), padding=False, elem_id="said")
        with gr.Column(scale=3, min_width=300):
            slider = gr.ImageSlider(
                label="Before and after", type="filepath", height=480, max_height=480, interactive=False,
                buttons=["fullscreen"], elem_id="slider",
            )  # fmt: skip
            with gr.Row():
                picture = gr.Dropdown([], label="Picture", visible=False, elem_id="picture", min_width=140)
                run = gr.Dropdown([], label="Run", visible=False, elem_id="run", min_width=140)
            beside = gr.HTML(visible=False, padding=False, elem_id="beside")
            save = gr.DownloadButton("Download", visible=False, elem_id="download")
            look = gr.Button("What the encoder finds significant", visible=False, elem_id="look")
            seen = gr.HTML(visible=False, padding=False, elem_id="seen")

    def on_translate(
        paths: list[tuple[str, Any]] | None, names: list[str], size: Any, reverse: bool, style: float | None,
        domain: str | None, before: Results | None, progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> tuple[Any, ...]:  # fmt: skip
        page_request = PageRequest(size, reverse, None if style is None else int(style), domain)
        wanted = [runs[name] for name in names if name in runs]
        files = [path for path, _ in paths or []]
        try:
            results = translate_uploads(
                wanted, files, shown.root, limits, page_request,
                lambda done, total: progress((done, total), desc="translating"),
            )  # fmt: skip
        except UserError as error:
            return (before, _said([str(error)]), *[gr.skip()] * 7)
        discard(before)
        return (results, _summary(results), *_views(results))

    def on_choice(name: str | None, run_name: str | None, results: Results | None) -> tuple[Any, Any, Any]:
        found = _find(results, name)
        if found is None or run_name not in found.made:
            return gr.skip(), gr.skip(), gr.skip()
        beside = _beside(found) if len(found.made) > 1 else ""
        return _slider(found, run_name), beside, gr.update(value=None, visible=False)

    def on_look(name: str | None, run_name: str | None, results: Results | None) -> tuple[Any, Any]:
        found = _find(results, name)
        if results is None or found is None or run_name not in runs:
            return gr.skip(), _said(["translate a picture first"])
        try:
            panels = see(runs[run_name], found)
        except UserError as error:
            return gr.update(visible=False), _said([str(error)])
        title = f"What {run_name} finds significant in {found.name}"
        return gr.update(value=html_fragment(significance_viewer(panels, title=title)), visible=True), gr.skip()

    def on_examples(
        names: list[str], size: Any, reverse: bool, style: float | None, domain: str | None, before: Results | None,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Iterator[tuple[Any, ...]]:  # fmt: skip
        try:
            run = next((runs[name] for name in names if name in runs), shown.runs[0])
            taken = copy_examples(Path(tempfile.mkdtemp(dir=shown.root)) / "examples", run, limits)
        except UserError as error:
            yield (gr.skip(), gr.skip(), _said([str(error)]), *[gr.skip()] * 7)
            return
        yield ([str(path) for path in taken], *[gr.skip()] * 9)
        files = [(str(path), None) for path in taken]
        yield (gr.skip(), *on_translate(files, names, size, reverse, style, domain, before, progress))

    asked = [uploads, chosen, size, reverse, style, domain, kept]
    shows = [kept, said, slider, picture, run, beside, save, look, seen]
    options: dict[str, Any] = {"concurrency_id": "models", "concurrency_limit": 1, **_HIDDEN}
    gr.on([start.click, uploads.upload], on_translate, asked, shows, **options)
    examples.click(on_examples, asked[1:], [uploads, *shows], **options)
    for choice in (picture, run):
        choice.input(on_choice, [picture, run, kept], [slider, beside, seen], **_HIDDEN)
    look.click(on_look, [picture, run, kept], [seen, said], **options)


def _clip_tab(shown: Shown) -> None:
    runs = {run.name: run for run in shown.runs}
    with gr.Row(equal_height=False):
        clip = gr.Video(
            label="Clip: drop, choose or record", sources=["upload", "webcam"], elem_id="clip",
            webcam_options=gr.WebcamOptions(  # by default the mirror image of what is sent, at up to 2880 x 2160 pixels
                mirror=False, constraints={"video": {"width": 640, "height": 480}}
            ),
        )  # fmt: skip
        made = gr.Video(label="Translated", interactive=False, elem_id="made-clip")
    chosen = gr.Dropdown(list(runs), value=next(iter(runs)), label="Run", visible=len(runs) > 1, elem_id="clip-run")
    start = gr.Button("Translate the clip", variant="primary", elem_id="translate-clip")
    said = gr.HTML(padding=False, elem_id="clip-said")

    def on_translate(path: str | None, name: str, progress: gr.Progress = gr.Progress()) -> tuple[Any, str]:  # noqa: B008
        try:
            result, file = translate_clip(
                runs[name], path, shown.root, shown.limits,
                lambda done, total: progress((done, total or None), desc="translating", unit="frames"),
            )  # fmt: skip
        except UserError as error:
            return gr.skip(), _said([str(error)])
        words = f"{result.frames} frames of {result.size[0]} x {result.size[1]} pixels"
        return str(file), f'<p class="studio-said">{words}; flicker {result.flicker:.2f} times that of the clip.</p>'

    start.click(on_translate, [clip, chosen], [made, said], concurrency_id="models", concurrency_limit=1, **_HIDDEN)


def _views(results: Results) -> tuple[Any, ...]:
    """Slider, picture, run, side by side, download, button and pictures of significance after a translation."""
    if not results.pictures:
        return (None, *[gr.update(visible=False)] * 6)
    first = results.pictures[0]
    names, runs = [picture.name for picture in results.pictures], list(first.made)
    count = sum(len(picture.made) for picture in results.pictures)
    words = "Download the translation (PNG)" if count == 1 else f"Download all {count} translations (zip)"
    return (
        _slider(first, runs[0]),
        gr.update(choices=names, value=names[0], visible=len(names) > 1),
        gr.update(choices=runs, value=runs[0], visible=len(runs) > 1),
        gr.update(value=_beside(first) if len(runs) > 1 else "", visible=len(runs) > 1),
        gr.update(value=str(download(results)), label=words, visible=True),
        gr.update(visible=True),
        gr.update(value=None, visible=False),
    )


def _slider(picture: Picture, run: str) -> tuple[str, str]:
    return str(view(picture.source)), str(view(picture.made[run]))


def _beside(picture: Picture) -> str:
    drawn = []
    for name, path in {"input": picture.source, **picture.made}.items():
        with Image.open(view(path)) as file:
            drawn.append((file.convert("RGB"), name))
    return figures(drawn, "wide", "Side by side")


def _find(results: Results | None, name: str | None) -> Picture | None:
    """The named picture, or the first while there is no choice to make."""
    pictures = results.pictures if results is not None else ()
    return next((picture for picture in pictures if picture.name == name), pictures[0] if pictures else None)


def _summary(results: Results) -> str:
    count = len(results.pictures)
    if not count:
        return _said(results.refused)
    each = {escape(name): f"{seconds / count:.2f} seconds" for name, seconds in results.seconds.items()}
    spent = ", ".join(each.values() if len(each) == 1 else (f"{name} {words}" for name, words in each.items()))
    (width, height), more = results.pictures[0].size, count > 1
    words = f"{count} pictures" if more else f"{escape(results.pictures[0].name)}, {width} x {height} pixels"
    done = f'<p class="studio-said">Translated {words}: {spent}{" each" * more}.</p>'
    return done + (_said(results.refused) if results.refused else "")


def _said(sentences: Sequence[str]) -> str:
    """What was refused, and why."""
    listed = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f'<div class="studio-said bad" role="alert">Not translated:<ul>{listed}</ul></div>'


def _limits_note(limits: Limits) -> str:
    return (
        f'<p class="studio-note">Up to {limits.batch} pictures, each of at most {limits.megapixels:g} megapixels and '
        f"{limits.megabytes:g} MB. They stay on the machine that serves this page and are deleted when it ends.</p>"
    )


# ---------------------------------------------------------------------------------------------------------------------
# training, drawings
# ---------------------------------------------------------------------------------------------------------------------
def _training_tab(shown: Shown) -> None:
    runs = {run.name: run for run in shown.live}
    first = next(iter(runs))
    choice = gr.Dropdown(list(runs), value=first, label="Training", visible=len(runs) > 1, elem_id="training")
    page = gr.HTML(padding=False, elem_id="live")
    last = gr.State(None)
    every = gr.Timer(shown.refresh_seconds)

    def refresh(name: str, before: Any) -> tuple[Any, Any]:
        """Send the page only where it changed: an unchanged one would flicker."""
        if name not in runs:
            return gr.skip(), gr.skip()
        key = (name, *live_key(runs[name].path))
        if key == before:
            return gr.skip(), gr.skip()
        return live_page(runs[name].path), key

    for trigger in (every.tick, choice.input):
        trigger(refresh, [choice, last], [page, last], show_progress="hidden", concurrency_limit=4, **_HIDDEN)
    page_of_now = gr.context.Context.root_block
    assert page_of_now is not None
    page_of_now.load(refresh, [choice, last], [page, last], show_progress="hidden", **_HIDDEN)


def _gallery() -> None:
    gr.HTML(
        '<p class="studio-note">The line drawings on the left and their true colours on the right, held out from '
        "training, are part of the package. Train on them with <code>unpaired demo</code> (about five minutes), then "
        "open the run with <code>unpaired studio runs/demo</code>.</p>",
        padding=False,
    )
    gr.HTML(pairs_html(), padding=False, elem_id="drawings")
