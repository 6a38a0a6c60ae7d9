"""How images are made smaller; everything that is changed is stored as PNG, so that it loses nothing a second time."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from unpaired.data.images import to_mode, upright

Change = Callable[[Image.Image], Image.Image]
"""A decoded image, as stored, to what is written."""

_WHITE = (255, 255, 255)
_KEPT = ("L", "RGB", "LA", "RGBA")


def shorter_side(side: int) -> Change:
    """Scale the shorter side down to ``side`` pixels, antialiased (bicubic, the filter of training); never up.

    Modes with 8 bits stay what they are, transparency and 16-bit gray included; palettes and CMYK become RGB or RGBA.
    """

    def change(image: Image.Image) -> Image.Image:
        image = upright(image)
        scale = side / min(image.size)
        size = (max(side, round(image.width * scale)), max(side, round(image.height * scale)))
        if scale >= 1:
            size = image.size
        if image.mode == "I" or image.mode.startswith("I;16"):
            floats = Image.fromarray(np.asarray(image).astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
            return Image.fromarray(np.asarray(floats).round().clip(0, 65535).astype(np.uint16))
        if image.mode not in _KEPT or (image.mode in ("L", "RGB") and image.has_transparency_data):
            image = image.convert("RGBA") if image.has_transparency_data else to_mode(image, "RGB", _WHITE)
        return image.resize(size, Image.Resampling.BICUBIC)

    return change


def photo_square(side: int) -> Change:
    """Scale to a square, antialiased (bicubic), as RGB; the shape is not kept."""

    def change(image: Image.Image) -> Image.Image:
        return to_mode(upright(image), "RGB", _WHITE).resize((side, side), Image.Resampling.BICUBIC)

    return change


def label_square(side: int) -> Change:
    """Take every so many pixels of a colour label map, as RGB: no colour arises that was not there."""

    def change(image: Image.Image) -> Image.Image:
        return image.convert("RGB").resize((side, side), Image.Resampling.NEAREST)

    return change


def png(image: Image.Image) -> bytes:
    """The content of a PNG file; the colour profile stays where it still speaks of these channels."""
    profile = image.info.get("icc_profile") or b""
    space = b"GRAY" if image.mode.startswith(("L", "I")) else b"RGB "
    file = io.BytesIO()
    image.save(file, format="PNG", icc_profile=profile if profile[16:20] == space else None)
    return file.getvalue()
