"""Query points and heat maps: the right place, visible on any ground, warm where the entropy is small."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from unpaired.errors import ConfigError
from unpaired.reports import draw_queries, heat_map
from unpaired.reports.overlays import QUERY_COLOUR, bar_colours, colour_map, finite_range


@pytest.mark.parametrize("ground", [0, 128, 255])
def test_each_query_is_a_dot_at_the_centre_of_its_cell(ground: int) -> None:
    image = Image.new("RGB", (64, 32), (ground,) * 3)
    picture = draw_queries(image, torch.tensor([0, 17, 31]), height=4, width=8, size=320)
    assert picture.size == (320, 160)
    pixels = np.asarray(picture).astype(int)
    for index in (0, 17, 31):
        y, x = index // 8 * 40 + 20, index % 8 * 40 + 20
        assert abs(pixels[y, x] - QUERY_COLOUR).max() <= 2
        around = pixels[y - 14 : y + 15, x - 14 : x + 15]
        assert around.min() < 60  # a dark ring ...
        assert (around.min(-1) > 230).any()  # ... and a light one, on every ground
    untouched = pixels[1 * 40 + 20, 3 * 40 + 20]
    assert (untouched == ground).all()


def test_all_positions_of_a_map_and_none_can_be_drawn() -> None:
    image = Image.new("RGB", (64, 64), (255, 255, 255))
    assert draw_queries(image, list(range(256)), 16, 16).size == (384, 384)
    assert np.asarray(draw_queries(image, [], 16, 16)).min() == 255


def test_positions_outside_the_map_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"from 3 to 64, but a feature map of 8 x 8 has positions 0 to 63"):
        draw_queries(Image.new("RGB", (8, 8)), [3, 64], 8, 8)


def test_small_entropy_is_warm_and_large_is_cold() -> None:
    entropy = torch.full((4, 4), 5.0)
    entropy[0, 3] = 1.0
    flat = heat_map(Image.new("RGB", (64, 64), (127, 127, 127)), entropy.flatten(), height=4, width=4, size=200)
    pixels = np.asarray(flat).astype(int)
    warm, cold = pixels[25, 175], pixels[175, 25]
    assert warm[0] > 180 > 80 > cold.max()
    # the same colours stand at the two ends of the bar
    bar = pixels[:200, 200:260]
    assert abs(bar[0] - warm).sum(-1).min() <= 6
    assert abs(bar[199] - cold).sum(-1).min() <= 6
    assert flat.width > 200
    assert flat.height == 200


def test_a_shared_range_gives_equal_entropies_equal_colours() -> None:
    image = Image.new("RGB", (32, 32), (127, 127, 127))
    a = heat_map(image, np.array([[1.0, 3.0]]), value_range=(1.0, 5.0), size=64)
    b = heat_map(image, np.array([[3.0, 5.0]]), value_range=(1.0, 5.0), size=64)
    assert a.getpixel((60, 30)) == b.getpixel((4, 30))
    assert a.getpixel((4, 30)) != b.getpixel((4, 30))


@pytest.mark.parametrize(
    "values", [np.full((3, 3), 2.0), np.full((3, 3), np.nan), np.array([[1.0, np.inf], [2.0, 3.0]])]
)
def test_flat_and_not_finite_maps_are_drawn(values: np.ndarray) -> None:
    assert heat_map(Image.new("L", (16, 16), 90), values, size=64, smooth=True).height == 64


def test_a_list_of_positions_is_not_a_map() -> None:
    with pytest.raises(ConfigError, match="must be a map"):
        heat_map(Image.new("RGB", (16, 16)), np.zeros(16))


def test_colour_map_lightness_only_rises() -> None:
    light = colour_map(np.linspace(0, 1, 200)).astype(float) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(light) > -1.0).all()
    assert light[-1] - light[0] > 200


def test_without_its_bar_a_heat_map_has_the_size_of_the_picture() -> None:
    image, entropy = Image.new("RGB", (64, 48), (90, 120, 30)), np.arange(12.0).reshape(3, 4)
    alone, with_bar = heat_map(image, entropy, size=64, bar=False), heat_map(image, entropy, size=64)
    assert alone.size == (64, 48)
    np.testing.assert_array_equal(np.asarray(alone), np.asarray(with_bar)[:, :64])


def test_the_range_of_several_maps_leaves_out_what_is_not_finite() -> None:
    assert finite_range([torch.tensor([[1.0, math.inf]]), np.array([[math.nan, -2.0]])]) == (-2.0, 1.0)
    assert finite_range([np.full((2, 2), math.nan)]) == finite_range([]) == (0.0, 0.0)


def test_bar_colours_are_what_a_map_shows_over_middle_grey() -> None:
    grey = Image.new("RGB", (64, 64), (128, 128, 128))
    map_ = np.asarray(heat_map(grey, np.array([[0.0, 1.0]]), size=64, bar=False)).astype(int)
    first, last = bar_colours()[0], bar_colours()[-1]
    assert abs(map_[5, 5] - first).max() <= 2
    assert abs(map_[5, 60] - last).max() <= 2
