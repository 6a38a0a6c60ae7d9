"""Grids: sizes, places, transparency, letters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unpaired.errors import ConfigError
from unpaired.grids import grid_cells, image_grid, to_rgb

RED, BLUE = (220, 20, 20), (20, 20, 220)


def plain(colour: tuple[int, int, int], size: tuple[int, int] = (64, 64)) -> Image.Image:
    return Image.new("RGB", size, colour)


def share_of(picture: Image.Image, colour: tuple[int, int, int]) -> int:
    return int((np.asarray(picture) == colour).all(-1).sum())


def test_every_cell_lands_in_its_column_and_row() -> None:
    grid = image_grid({"Input": [plain(RED), plain(RED)], "Made": [plain(BLUE)]}, cell=50, gutter=4)
    assert grid.width == 2 * 54 + 4
    assert share_of(grid, RED) == 2 * 50 * 50
    assert share_of(grid, BLUE) == 50 * 50
    red = np.argwhere((np.asarray(grid) == RED).all(-1))
    blue = np.argwhere((np.asarray(grid) == BLUE).all(-1))
    assert red[:, 1].max() < blue[:, 1].min()
    assert red[:, 0].max() - red[:, 0].min() == 2 * 50 + 4 - 1
    assert grid.height == red[:, 0].max() + 1 + 4


def test_headers_and_row_labels_are_drawn_inside_the_picture() -> None:
    bare = image_grid({"": [plain(RED)]}, cell=64)
    named = image_grid({"A header of many words that cannot fit on one line": [plain(RED)]}, cell=64)
    labelled = image_grid({"": [plain(RED)]}, cell=64, row_labels=["grinning-cat-with-smiling-eyes"])
    assert named.width == bare.width
    assert named.height > bare.height + 2 * 11
    assert labelled.width > bare.width
    for picture in (named, labelled):
        dark = np.argwhere(np.asarray(picture.convert("L")) < 60)
        assert len(dark) > 50
        edge = np.asarray(picture)[[0, -1], :, :].min(), np.asarray(picture)[:, [0, -1], :].min()
        assert min(edge) == 255  # nothing is cut off


def test_aspect_ratio_is_kept_and_small_images_get_hard_pixels() -> None:
    wide = image_grid({"": [plain(RED, (100, 50))]}, cell=60)
    assert share_of(wide, RED) == 60 * 30
    board = Image.fromarray((np.indices((8, 8)).sum(0) % 2 * 255).astype(np.uint8))
    enlarged = np.asarray(image_grid({"": [board]}, cell=70))
    assert set(np.unique(enlarged)) == {0, 255}


def test_transparency_shows_paper_and_empty_cells_are_fine() -> None:
    clear = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    assert share_of(image_grid({"a": [None, clear], "b": []}, cell=32), (0, 0, 0)) == 0
    palette = plain(RED).quantize(4)
    assert to_rgb(palette).getpixel((0, 0)) == RED
    assert to_rgb(Image.new("LA", (2, 2), (0, 0))).getpixel((0, 0)) == (255, 255, 255)


def test_16_bit_and_float_images_are_scaled_to_8() -> None:
    deep = Image.fromarray(np.array([[0, 65535, 32768]], dtype=np.uint16))
    assert [pixel[0] for pixel in np.asarray(to_rgb(deep))[0]] == [0, 255, 128]
    real = Image.fromarray(np.array([[-2.0, 0.0, 2.0, np.nan]], dtype=np.float32))
    assert [pixel[0] for pixel in np.asarray(to_rgb(real))[0]] == [0, 128, 255, 128]
    whole = Image.fromarray(np.array([[0, 70000]], dtype=np.int32))
    assert [pixel[0] for pixel in np.asarray(to_rgb(whole))[0]] == [0, 255]


@pytest.mark.parametrize(("columns", "cell"), [({}, 64), ({"a": []}, 64), ({"a": [plain(RED)]}, 2)])
def test_refusals(columns: dict[str, list[Image.Image]], cell: int) -> None:
    with pytest.raises(ConfigError, match="grid"):
        image_grid(columns, cell=cell)


@given(
    columns=st.integers(1, 4),
    rows=st.integers(1, 7),
    words=st.sampled_from(["a", "average (EMA)", "three_long words_of a_header"]),
)
@settings(max_examples=30, deadline=None)
def test_cells_can_be_cut_out_of_a_grid_again(columns: int, rows: int, words: str) -> None:
    made = {
        f"{words} {column}": [plain((40 * column, 30 * row, 200), (128, 128)) for row in range(rows)]
        for column in range(columns)
    }
    cells = grid_cells(image_grid(made))
    assert [len(column) for column in cells] == [rows] * columns
    for images, cut in zip(made.values(), cells, strict=True):
        for image, cell in zip(images, cut, strict=True):
            np.testing.assert_array_equal(np.asarray(cell), np.asarray(image))


@pytest.mark.parametrize("size", [(300, 300), (140, 100), (10, 10), (408, 400)])
def test_pictures_that_are_no_such_grid_have_no_cells(size: tuple[int, int]) -> None:
    assert grid_cells(plain(RED, size)) == []
