"""Figures for papers: the PNG has the pixels of its pictures, the PDF has them without loss, letters are vectors."""

from __future__ import annotations

import io
import re
import zlib

import numpy as np
import pytest
from PIL import Image

from unpaired.errors import ConfigError
from unpaired.reports import Cell, Column, Sheet
from unpaired.reports.overlays import QUERY_COLOUR
from unpaired.reports.pdf import PdfPage


def noise(seed: int, size: tuple[int, int] = (256, 256)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


class Pdf:
    """As much of a reader as checks what the writer promises."""

    def __init__(self, data: bytes) -> None:
        assert data.startswith(b"%PDF-1.")
        start = int(data.rsplit(b"startxref\n", 1)[1].split(b"\n")[0])
        assert data[start : start + 4] == b"xref"
        places = [int(line[:10]) for line in data[start:].split(b"\n") if line.endswith(b" n ")]
        self.objects = []
        for number, place in enumerate(places, start=1):
            assert data[place:].startswith(b"%d 0 obj\n" % number)
            self.objects.append(data[place : data.index(b"\nendobj\n", place)].split(b" obj\n", 1)[1])
        self.content = self.stream(self.objects[3]).decode("latin-1")
        self.box = tuple(map(float, re.search(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", self.objects[2]).groups()))

    @staticmethod
    def stream(content: bytes) -> bytes:
        head, _, rest = content.partition(b"\nstream\n")
        length = int(re.search(rb"/Length (\d+)", head)[1])
        assert rest[length:] == b"\nendstream"
        return zlib.decompress(rest[:length])

    def images(self) -> list[np.ndarray]:
        found = []
        for content in self.objects:
            if b"/Subtype /Image" in content:
                width, height = (int(re.search(rb"/%b (\d+)" % key, content)[1]) for key in (b"Width", b"Height"))
                assert b"/Predictor 2 /Colors 3 /Columns %d" % width in content
                differences = np.frombuffer(self.stream(content), np.uint8).reshape(height, width, 3)
                found.append(np.cumsum(differences, axis=1, dtype=np.uint8))
        return found


def sheet() -> Sheet:
    cells = [Cell(noise(1)), Cell(noise(2), dots=[(0.5, 0.25)], dot_radius=0.05)]
    return Sheet(
        [Column("input", [Cell(noise(0)), None]), Column("QS-Attn (é)", cells, bar=("0.00", "5.55 nats"))], ["a", ""]
    )


def test_a_pdf_keeps_every_pixel_and_each_picture_once() -> None:
    pdf = Pdf(Sheet([Column("a", [Cell(noise(0)), Cell(noise(0))]), Column("b", [Cell(noise(1)), None])]).pdf())
    images = pdf.images()
    assert len(images) == 2
    np.testing.assert_array_equal(images[0], np.asarray(noise(0)))
    np.testing.assert_array_equal(images[1], np.asarray(noise(1)))
    assert pdf.content.count("/I0 Do") == 2


def test_letters_and_points_of_a_pdf_are_vectors_and_the_font_is_inside() -> None:
    data = sheet().pdf("a (title) é")
    pdf = Pdf(data)
    for words in ("(input) Tj", "(QS-Attn \\(\xe9\\)) Tj", "(0.00) Tj", "(5.55 nats) Tj", "(a) Tj"):
        assert words in pdf.content
    assert pdf.content.count(" l S Q") == 2  # the dot and its ring
    (file,) = (content for content in pdf.objects if b"/Length1" in content)
    assert pdf.stream(file).startswith(b"\x00\x01\x00\x00")  # TrueType
    assert b"/FontFile2 7 0 R" in data
    assert ("\ufeffa (title) é".encode("utf-16-be").hex()).encode() in data


def test_png_and_pdf_have_the_same_measures() -> None:
    drawn = Image.open(io.BytesIO(sheet().png()))
    assert sheet().dpi == 256
    assert drawn.info["dpi"] == pytest.approx((256, 256), abs=0.1)
    width, height = Pdf(sheet().pdf()).box
    assert drawn.size == pytest.approx((width * 256 / 72, height * 256 / 72), abs=1)


def test_a_png_shows_pictures_pixel_by_pixel() -> None:
    alone = np.asarray(Image.open(io.BytesIO(Sheet([Column("", [Cell(noise(3))])]).png())))
    np.testing.assert_array_equal(alone[-256:, -256:], np.asarray(noise(3)))
    small = Sheet([Column("", [Cell(noise(3, (64, 64)))])])
    assert small.dpi == 256  # enlarged by a whole factor


def test_points_land_on_their_picture() -> None:
    white = Image.new("RGB", (256, 256), (255, 255, 255))
    drawn = np.asarray(Image.open(io.BytesIO(Sheet([Column("", [Cell(white, [(0.25, 0.75)], 0.04)])]).png())))
    rows, columns = np.nonzero((drawn == QUERY_COLOUR).all(-1))
    top = drawn.shape[0] - 256
    assert rows.mean() - top == pytest.approx(192, abs=1)
    assert columns.mean() == pytest.approx(64, abs=1)
    assert len(rows) == pytest.approx(np.pi * (0.04 * 256) ** 2, rel=0.1)


def test_heat_maps_keep_their_blocks_when_enlarged() -> None:
    blocks = noise(4, (16, 16)).resize((64, 64), Image.Resampling.NEAREST)
    drawn = np.asarray(Image.open(io.BytesIO(Sheet([Column("", [Cell(blocks, smooth=False)])]).png())))[-256:, -256:]
    np.testing.assert_array_equal(drawn, np.asarray(blocks.resize((256, 256), Image.Resampling.NEAREST)))
    assert b"/Interpolate false" in Sheet([Column("", [Cell(blocks, smooth=False)])]).pdf()


def test_sheets_need_pictures_in_columns_of_one_length() -> None:
    for columns in ([], [Column("a", [])], [Column("a", [None])], [Column("a", [Cell(noise(0))]), Column("b", [])]):
        with pytest.raises(ConfigError, match="a sheet needs columns of one length"):
            Sheet(columns)


def test_words_that_the_encoding_lacks_do_not_break_a_pdf() -> None:
    page = PdfPage(100, 50)
    page.text(1, 10, "漢字 \\ (x)\n", 8)
    assert "(?? \\\\ \\(x\\)) Tj" in Pdf(page.bytes("漢")).content
