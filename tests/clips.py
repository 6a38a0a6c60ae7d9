"""Short videos for the tests; needs PyAV."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

av = pytest.importorskip("av", reason='needs pip install "unpaired[video]"')


def clip(path: Path, size: tuple[int, int] = (48, 32), frames: int = 6, rate: int = 5, codec: str = "libx264",
         audio: str | None = "aac", rotation: int = 0, aspect: Fraction | None = None, variable: bool = False,
         matrix: int = 0, moving: int = 2, **options: str) -> Path:  # fmt: skip
    """A smooth picture that moves sideways, with a tone."""
    coarse = Image.fromarray(np.random.default_rng(5).integers(40, 216, (4, 6, 3), np.uint8))
    picture = coarse.resize((size[0] + 2 * frames, size[1]), Image.Resampling.BICUBIC)
    with av.open(str(path), "w", options=options) as file:
        out: Any = file.add_stream(codec, rate=rate)
        out.width, out.height = size
        out.pix_fmt = "yuv444p" if codec == "libx264" and (size[0] % 2 or size[1] % 2) else "yuv420p"
        out.codec_context.time_base = Fraction(1, 1000)
        if aspect:
            out.codec_context.sample_aspect_ratio = aspect
        if rotation:
            out.set_display_rotation(rotation)
        if matrix:
            out.codec_context.colorspace = matrix
        tone: Any = file.add_stream(audio, rate=8000) if audio else None
        for number in range(frames):
            part = picture.crop((number * moving, 0, number * moving + size[0], size[1]))
            frame = av.VideoFrame.from_image(part).reformat(format=out.pix_fmt, dst_colorspace=matrix or None)
            frame.pts = number * 1000 // rate + (number * number * 7 if variable else 0)
            frame.time_base = Fraction(1, 1000)
            file.mux(out.encode(frame))
        file.mux(out.encode(None))
        if tone:
            samples = np.sin(np.arange(8000 * frames // rate) / 8).astype(np.float32)[None]
            sound = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            sound.sample_rate, sound.pts = 8000, 0
            file.mux(tone.encode(sound))
            file.mux(tone.encode(None))
    return path
