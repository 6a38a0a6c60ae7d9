"""A small PDF writer: pictures without loss, dots and letters as vectors, the font inside the file.

Pillow's own PDF writer stores colour pictures as JPEG; journals ask for embedded fonts. Only what a sheet of pictures
needs is here (PDF 32000-1:2008, one page).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from unpaired.reports.grid import font, to_rgb

_FIRST, _LAST = 32, 255


class PdfPage:
    """One page; lengths in points (1/72 inch), y downwards from the top edge.

    Args:
        width: Of the page.
        height: Of the page.
    """

    def __init__(self, width: float, height: float) -> None:
        self.width = width
        self.height = height
        self._drawing: list[str] = []
        self._images: list[bytes] = []
        self._known: dict[bytes, int] = {}

    def image(
        self, picture: Image.Image, left: float, top: float, width: float, height: float, smooth: bool = True
    ) -> None:
        """Place a picture with all its pixels; ``smooth`` asks the viewer to blend them when it enlarges."""
        stored = _image_object(to_rgb(picture), smooth)
        number = self._known.setdefault(stored, len(self._images))
        if number == len(self._images):
            self._images.append(stored)
        bottom = self.height - top - height
        self._drawing.append(f"q {width:.3f} 0 0 {height:.3f} {left:.3f} {bottom:.3f} cm /I{number} Do Q")

    def dots(self, centres: Sequence[tuple[float, float]], radius: float, colour: tuple[int, int, int]) -> None:
        """Draw filled circles at ``centres`` (x, y)."""
        if centres:
            ink = " ".join(f"{level / 255:.3f}" for level in colour)
            path = " ".join(f"{x:.2f} {self.height - y:.2f} m {x:.2f} {self.height - y:.2f} l" for x, y in centres)
            self._drawing.append(f"q 1 J {2 * radius:.3f} w {ink} RG {path} S Q")

    def text(self, x: float, y: float, words: str, size: float) -> None:
        """Write words that begin at (x, y), the left end of their baseline."""
        literal = words.encode("cp1252", "replace").translate(None, b"\r\n").decode("latin-1")
        for sign in "\\()":
            literal = literal.replace(sign, f"\\{sign}")
        self._drawing.append(f"BT 0.125 g /F1 {size:.2f} Tf {x:.3f} {self.height - y:.3f} Td ({literal}) Tj ET")

    def bytes(self, title: str = "") -> bytes:
        """Return the whole file."""
        drawing = zlib.compress("\n".join(self._drawing).encode("latin-1"), 9)
        letters, description, program = _font_objects()
        first_image = 8
        names = " ".join(f"/I{number} {first_image + number} 0 R" for number in range(len(self._images)))
        heading = (b"\xfe\xff" + title.encode("utf-16-be")).hex()
        objects = [
            b"<< /Type /Catalog /Pages 2 0 R >>",
            b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {self.width:.3f} {self.height:.3f}] /Contents 4 0 R "
            f"/Resources << /Font << /F1 5 0 R >> /XObject << {names} >> >> >>".encode(),
            b"<< /Length %d /Filter /FlateDecode >>\nstream\n%b\nendstream" % (len(drawing), drawing),
            letters,
            description,
            program,
            *self._images,
            f"<< /Title <{heading}> /Producer (unpaired) >>".encode(),
        ]
        body, places = b"%PDF-1.5\n%\xe2\xe3\xcf\xd3\n", []
        for number, content in enumerate(objects, start=1):
            places.append(len(body))
            body += b"%d 0 obj\n%b\nendobj\n" % (number, content)
        table = "".join(f"{place:010d} 00000 n \n" for place in places)
        end = (
            f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}trailer\n"
            f"<< /Size {len(objects) + 1} /Root 1 0 R /Info {len(objects)} 0 R >>\nstartxref\n{len(body)}\n%%EOF\n"
        )
        return body + end.encode()


def _image_object(picture: Image.Image, smooth: bool) -> bytes:
    """Store RGB without loss; differences between neighbours compress better than the pixels themselves."""
    pixels_HWC = np.asarray(picture)
    differences = pixels_HWC.copy()
    differences[:, 1:] -= pixels_HWC[:, :-1]  # uint8 wraps, as the format wants
    data = zlib.compress(differences.tobytes())
    return (
        (
            f"<< /Type /XObject /Subtype /Image /Width {picture.width} /Height {picture.height} /ColorSpace /DeviceRGB "
            f"/BitsPerComponent 8 /Interpolate {'true' if smooth else 'false'} /Filter /FlateDecode "
            f"/DecodeParms << /Predictor 2 /Colors 3 /Columns {picture.width} >> /Length {len(data)} >>\nstream\n"
        ).encode()
        + data
        + b"\nendstream"
    )


def _font_objects() -> tuple[bytes, bytes, bytes]:
    """Objects 5 to 7: Pillow's own font (Aileron, CC0), its measures, its file."""
    letters: Any = font(1000)
    ascent, descent = letters.getmetrics()
    shown = [bytes([code]).decode("cp1252", "replace") for code in range(_FIRST, _LAST + 1)]
    widths = " ".join(f"{letters.getlength(letter):.0f}" for letter in shown)
    data = zlib.compress(letters.font_bytes, 9)
    return (
        f"<< /Type /Font /Subtype /TrueType /BaseFont /Aileron-Regular /Encoding /WinAnsiEncoding /FirstChar {_FIRST} "
        f"/LastChar {_LAST} /Widths [{widths}] /FontDescriptor 6 0 R >>".encode(),
        f"<< /Type /FontDescriptor /FontName /Aileron-Regular /Flags 32 /FontBBox [-200 -{descent} 1200 {ascent}] "
        f"/ItalicAngle 0 /Ascent {ascent} /Descent -{descent} /CapHeight 700 /StemV 80 /FontFile2 7 0 R >>".encode(),
        b"<< /Length %d /Length1 %d /Filter /FlateDecode >>\nstream\n%b\nendstream"
        % (len(data), len(letters.font_bytes), data),
    )
