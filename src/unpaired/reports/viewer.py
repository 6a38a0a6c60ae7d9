"""The viewer of significance: choose an image and a place of the encoder, see points and heat maps of all runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from PIL import Image

from unpaired.reports.blocks import LOSSLESS, Block, Encoding, data_uri, image_tag, section
from unpaired.reports.grid import fit
from unpaired.reports.overlays import bar_colours, finite_range, heat_map, nats

_THUMBNAIL = 56
_SMALLEST_MAP = 192
"""Heat maps of smaller pictures are drawn at this side, so that their blocks keep sharp edges."""


@dataclass(frozen=True)
class View:
    """What one encoder makes of one image at one tap."""

    name: str
    """Whose encoder it is."""
    picture: Image.Image
    """What the features were computed from."""
    entropy: Any
    """(H, W), nats; small means significant."""
    indices: Any
    """(N,), selected positions as y * W + x."""
    note: str = ""
    """Small words under the name."""


@dataclass(frozen=True)
class Panel:
    """All that is seen at once: one image, one tap, the encoders side by side."""

    image: str
    tap: str
    views: Sequence[View]


def significance_viewer(
    panels: Sequence[Panel],
    *,
    title: str = "What is significant",
    note: str = "",
    key: str = "viewer",
    encoding: Encoding = LOSSLESS,
) -> Block:
    """Show selected points and entropies, one panel at a time; without a script all panels stand below each other.

    Colours mean the same for all encoders of a panel: its scale goes from their smallest to their largest entropy.

    Args:
        panels: One per image and tap, in the order of the choices.
        title: Heading.
        note: Words under it.
        key: Tells the viewers of one page apart.
        encoding: How the pictures are stored.
    """
    images = list(dict.fromkeys(panel.image for panel in panels))
    taps = list(dict.fromkeys(panel.tap for panel in panels))
    first_views = {panel.image: panel.views[0] for panel in reversed(panels) if panel.views}
    thumbnails = "".join(
        _choice(key, "image", number, image_tag(fit(first_views[name].picture, _THUMBNAIL, _THUMBNAIL), name), name)
        for number, name in enumerate(images)
        if name in first_views
    )
    places = "".join(_choice(key, "tap", number, f"<span>{escape(tap)}</span>") for number, tap in enumerate(taps))
    controls = (
        f'<div class="controls" hidden><fieldset class="thumbnails"><legend>Image</legend>{thumbnails}</fieldset>'
        f'<fieldset class="places"><legend>Place in the encoder</legend>{places}</fieldset></div>'
    )
    inside = "".join(_panel(panel, images.index(panel.image), taps.index(panel.tap), encoding) for panel in panels)
    return section(title, f'<div class="card viewer" data-script="viewer">{controls}{inside}</div>', note)


def _choice(key: str, kind: str, number: int, inside: str, hint: str = "") -> str:
    """One radio button: the browser's own keys (arrows, tab) move between them."""
    checked = " checked" if number == 0 else ""
    tip = f' title="{escape(hint)}"' if hint else ""
    return (
        f'<label{tip}><input type="radio" name="{escape(key)}-{kind}" data-kind="{kind}" value="{number}"{checked}>'
        f"{inside}</label>"
    )


def _panel(panel: Panel, image: int, tap: int, encoding: Encoding) -> str:
    low, high = finite_range([view.entropy for view in panel.views])
    views = "".join(_view(view, panel, (low, high), encoding) for view in panel.views)
    stops = ", ".join(f"rgb{colour}" for colour in bar_colours())
    first, last = nats(low, high)
    bar = (
        f'<p class="scale"><span>{first} nats, most significant</span>'
        f'<span class="bar" style="background: linear-gradient(to right, {stops})"></span>'
        f"<span>{last} nats</span></p>"
    )
    return (
        f'<div class="panel" data-image="{image}" data-tap="{tap}"><h3>{escape(panel.image)}, {escape(panel.tap)}</h3>'
        f'{bar}<div class="views">{views}</div></div>'
    )


def _view(view: View, panel: Panel, value_range: tuple[float, float], encoding: Encoding) -> str:
    entropy = np.asarray(view.entropy)
    height, width = entropy.shape
    side = max(_SMALLEST_MAP, *view.picture.size)
    heat = heat_map(view.picture, entropy, size=side, value_range=value_range, bar=False)
    positions = np.asarray(view.indices).reshape(-1)
    words = f"{panel.image}, {panel.tap}, {view.name}"
    small = " to ".join(nats(*finite_range([entropy]))) + " nats"
    points = (
        f'<span class="overlay">{image_tag(view.picture, f"{words}: input", encoding)}'
        f"{_points(positions, height, width, f'{words}: {len(positions)} selected points')}</span>"
    )
    return (
        f"<figure><figcaption><b>{escape(view.name)}</b><small>{escape(f'{view.note}; ' if view.note else '')}"
        f'{len(positions)} of {height * width} locations; {small}</small></figcaption><div class="pair">{points}'
        f'<img src="{data_uri(heat, encoding)}" alt="{escape(words)}: entropy" width="{heat.width}" '
        f'height="{heat.height}"></div></figure>'
    )


def _points(positions: np.ndarray, height: int, width: int, words: str) -> str:
    """Draw dots with a white ring over the picture below; one unit is half a location."""
    path = "".join(f"M{2 * (at % width) + 1} {2 * (at // width) + 1}h0" for at in positions.tolist())
    dot = 2 * max(0.52, 0.011 * max(height, width))
    strokes = ((1.5 * dot, "ring"), (dot, "dot"))
    lines = "".join(f'<path class="{name}" stroke-width="{stroke:.2f}" d="{path}"/>' for stroke, name in strokes)
    return (
        f'<svg viewBox="0 0 {2 * width} {2 * height}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(words)}">{lines}</svg>'
    )
