"""What must not change: closed forms, awkward regions, drawings on paper, regions that domains share."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unpaired.errors import ConfigError, DataError
from unpaired.evaluation import Change, ImageSets, change_where_kept, evaluate_images, kept_outside, mask_of_boxes
from unpaired.evaluation.metrics.shared_regions import shared_weights
from unpaired.evaluation.metrics.unchanged import blank_paper
from unpaired.evaluation.registry import possible_metrics

NAMES = [f"unchanged_{part}_masks_de" for part in ("colour", "detail")]


def pictures(seed: int, count: int = 2, channels: int = 3, height: int = 24, width: int = 30) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, channels, height, width, generator=generator) * 1.6 - 0.8


def gray_of_lightness(lightness: Tensor) -> Tensor:
    """Gray in [-1, 1] of a CIELAB lightness from 8 up."""
    linear = ((lightness + 16) / 116) ** 3
    return 2 * (1.055 * linear ** (1 / 2.4) - 0.055) - 1


# --- the formula ---


def test_nothing_changed_is_zero() -> None:
    images = pictures(0)
    found = change_where_kept(images, images, torch.ones(2, 24, 30))
    assert found == Change([0, 0], [0, 0], [0, 0], [0, 0], [1, 1])


def test_a_wave_is_detail_and_no_colour() -> None:
    place = torch.arange(256, dtype=torch.float64)
    wave = 3.0 * torch.sin(2 * torch.pi * (place + 0.5) / 8)
    source = gray_of_lightness(torch.full((256, 256), 60.0, dtype=torch.float64)).expand(1, 1, 256, 256)
    fake = gray_of_lightness(60.0 + wave.expand(256, 256))[None, None]
    found = change_where_kept(source, fake, torch.ones(1, 256, 256))
    assert found.detail == pytest.approx([float(wave.abs().mean())], rel=0.01)  # 2 A / pi, sampled
    assert found.added == pytest.approx([3.0 / math.sqrt(2)], rel=0.02)
    assert found.colour == pytest.approx([0], abs=0.05)
    assert found.lost == pytest.approx([0], abs=1e-9)
    back = change_where_kept(fake, source, torch.ones(1, 256, 256))
    assert back.detail == pytest.approx(found.detail)
    assert (back.added, back.lost) == (pytest.approx(found.lost), pytest.approx(found.added))


@given(st.integers(0, 1000), st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]))
@settings(max_examples=25, deadline=None)
def test_what_may_change_counts_for_nothing(seed: int, height: int, width: int, channels: int) -> None:
    source, other = pictures(seed, 1, channels, height, width), pictures(seed + 1, 1, channels, height, width)
    may_change = torch.rand(height, width, generator=torch.Generator().manual_seed(seed)) < 0.5
    may_change[0, 0] = False
    inside, outside = torch.where(may_change, other, source), torch.where(may_change, source, other)
    kept = (~may_change).float()[None]
    found = change_where_kept(source, inside, kept)
    assert (found.colour, found.detail, found.added, found.lost) == ([0], [0], [0], [0])
    everything, part = change_where_kept(source, other, kept), change_where_kept(source, outside, kept)
    assert part.colour == pytest.approx(everything.colour, rel=1e-9)
    assert part.detail == pytest.approx(everything.detail, rel=1e-9, abs=1e-9)
    assert everything.colour[0] > 0


@pytest.mark.parametrize(
    ("source", "fake", "kept", "words"),
    [
        (pictures(0), pictures(0, height=25), torch.ones(2, 24, 30), "batches of one shape"),
        (pictures(0), pictures(1), torch.ones(2, 24, 31), r"\(2, 24, 31\), not that of the images"),
        (pictures(0), pictures(1), torch.full((2, 24, 30), 1.5), "from 0 .may change. to 1"),
        (pictures(0), pictures(1), torch.full((2, 24, 30), math.nan), "from 0 .may change. to 1"),
        (pictures(0), pictures(1) / 0, torch.ones(2, 24, 30), "not finite"),
        (pictures(0, channels=2), pictures(1, channels=2), torch.ones(2, 24, 30), "1 or 3 channels"),
    ],
)
def test_it_refuses(source: Tensor, fake: Tensor, kept: Tensor, words: str) -> None:
    with pytest.raises(DataError, match=words):
        change_where_kept(source, fake, kept)


# --- masks ---


def test_boxes_touch_borders_overlap_and_take_parts_of_pixels_whole() -> None:
    mask = mask_of_boxes([[0, 0, 2, 1], [1, 0, 4, 3], [2.5, 1.5, 3.2, 2.1]], 3, 4)
    assert mask.int().tolist() == [[1, 1, 1, 1], [0, 1, 1, 1], [0, 1, 1, 1]]
    assert not mask_of_boxes([], 3, 4).any()
    assert mask_of_boxes([[1.5, 0.5, 1.6, 0.6]], 3, 4).int().tolist() == [[0, 1, 0, 0], [0] * 4, [0] * 4]


@pytest.mark.parametrize("box", [[0, 0, 5, 3], [-1, 0, 2, 2], [2, 0, 2, 2], [0, 2, 2, 1], [0, 0, 1], "abcd", 7,
                                 [0, 0, 1, None], [0, 0, math.nan, 1], [0, 0, 1, 4]])  # fmt: skip
def test_boxes_that_cannot_be(box: object) -> None:
    with pytest.raises(DataError, match=r"not a box .*4 pixels wide and 3 high"):
        mask_of_boxes([box], 3, 4)  # type: ignore[list-item]


def test_a_smaller_image_keeps_a_pixel_only_if_nothing_under_it_may_change() -> None:
    mask = torch.zeros(8, 8)
    mask[3, 3] = 7
    assert kept_outside(mask, 4, 4).tolist() == [[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]
    odd = kept_outside(mask, 3, 5)
    assert odd.shape == (3, 5)
    assert odd[1, 1:3].min() == 0
    larger = kept_outside(mask, 16, 16)
    assert larger[6:8, 6:8].sum() == 0
    assert larger.sum() == 256 - 4


# --- rows ---


def sets(count: int = 4, **more: object) -> ImageSets:
    source = list(pictures(0, count))
    fake = [0.5 * image for image in source]
    return ImageSets(fake, source=source, **more)  # type: ignore[arg-type]


def test_rows_are_means_over_what_must_stay() -> None:
    kept = [torch.zeros(24, 30), torch.ones(24, 30), torch.zeros(24, 30), None]
    kept[2][:, :15] = 1  # type: ignore[index]
    found = evaluate_images(sets(kept=kept), NAMES)
    for name, part in zip(NAMES, ("colour", "detail"), strict=True):
        score = found[name]
        one = [
            getattr(change_where_kept(s[None], f[None], k[None]), part)[0]  # type: ignore[index]
            for s, f, k in zip(pictures(0, 4)[1:3], 0.5 * pictures(0, 4)[1:3], kept[1:3], strict=True)
        ]
        assert score.value == pytest.approx((one[0] + 0.5 * one[1]) / 1.5)
        assert score.full_name == f"{name}_2v2"
        assert np.isnan(score.per_image).tolist() == [True, False, False, True]
        assert score.per_image[1:3] == pytest.approx(one)
        assert score.interval is not None
        assert score.interval[0] <= score.value <= score.interval[1]
        assert (score.unit, score.better) == ("dE", "lower")
    assert set(found[NAMES[1]].per_level) == {"added", "lost"}
    assert found[NAMES[1]].per_level["lost"] > found[NAMES[1]].per_level["added"]  # less contrast


def test_the_untranslated_input_is_zero_with_the_same_images_counted() -> None:
    four = sets(kept=[torch.ones(24, 30), None, torch.ones(24, 30), torch.zeros(24, 30)])
    found = evaluate_images(dataclasses.replace(four, fake=four.source, _of_this={}), NAMES)
    assert [(score.value, score.full_name) for score in found.values()] == [(0.0, f"{name}_2v2") for name in NAMES]


def test_rows_say_why_they_cannot_be() -> None:
    assert not [name for name in possible_metrics(sets()) if name.startswith("unchanged")]
    with pytest.raises(ConfigError, match="no masks of what may change"):
        evaluate_images(sets(), NAMES)
    with pytest.raises(ConfigError, match="not drawings on white paper"):
        evaluate_images(sets(), ["unchanged_colour_paper_de"])
    with pytest.raises(DataError, match="cover every image"):
        evaluate_images(sets(kept=[torch.zeros(24, 30)] * 4), NAMES)
    with pytest.raises(DataError, match="3 masks of what may change for 4 sources"):
        evaluate_images(sets(kept=[torch.ones(24, 30)] * 3), NAMES)
    with pytest.raises(DataError, match="no source shows blank paper"):
        evaluate_images(sets(on_paper=True), ["unchanged_colour_paper_de"])
    many = sets(12, networks={"lite0.last_maps": coarse})
    with pytest.raises(ConfigError, match=r"at least 10 real images .* there are 0"):
        evaluate_images(many, ["unchanged_colour_shared_de"])


@pytest.mark.parametrize("degrade", ["ripples", "noise", "cast", "blur"])
def test_scores_rise_with_every_step(degrade: str) -> None:
    source = torch.nn.functional.avg_pool2d(pictures(3, 3, 3, 70, 70), 7, 1).clamp(-0.8, 0.8)
    kept = torch.ones(3, 64, 64)
    kept[:, 20:50, 10:40] = 0
    noise = torch.randn(source.shape, generator=torch.Generator().manual_seed(0))

    def at(step: float) -> Tensor:
        if degrade == "ripples":
            return source + 0.02 * step * torch.sin(torch.arange(64) * torch.pi / 3)
        if degrade == "noise":
            return source + 0.02 * step * noise
        if degrade == "cast":
            return source + 0.02 * step * torch.tensor([1.0, 0.0, -1.0])[:, None, None]
        side = 2 * int(step) + 1
        padded = torch.nn.functional.pad(source, (side // 2,) * 4, mode="reflect")
        return torch.nn.functional.avg_pool2d(padded, side, 1)

    part = "colour" if degrade == "cast" else "detail"
    steps = [sum(getattr(change_where_kept(source, at(step), kept), part)) for step in (1, 2, 4)]
    assert 0 < steps[0] < steps[1] < steps[2]
    level = {"ripples": "added", "noise": "added", "blur": "lost"}.get(degrade)
    if level:
        found = change_where_kept(source, at(4), kept)
        assert sum(getattr(found, level)) > 5 * sum(getattr(found, {"added": "lost", "lost": "added"}[level]))


# --- paper ---


def drawing(side: int = 64, gap: int = 0) -> Tensor:
    """A closed black square on white, with a gap in its left line."""
    image = torch.ones(1, 3, side, side)
    low, high = side * 3 // 8, side * 3 // 4
    image[..., low : high + 1, (low, high)] = -1
    image[..., (low, high), low : high + 1] = -1
    image[..., side // 2 : side // 2 + gap, low] = 1
    return image


@pytest.mark.parametrize("gap", [0, 1, 4])
def test_paper_is_what_lies_outside_lines_with_their_margin(gap: int) -> None:
    paper = blank_paper(drawing(gap=gap))[0]
    expected = torch.ones(64, 64, dtype=torch.bool)
    expected[22:51, 22:51] = False  # lines at 24 and 48, margin 2; what they enclose is meant to be painted
    assert torch.equal(paper, expected)


def test_wide_gaps_let_the_paper_in_and_ink_everywhere_leaves_none() -> None:
    assert blank_paper(drawing(gap=8))[0, 36, 36]
    assert not blank_paper(-torch.ones(2, 1, 5, 7)).any()
    assert blank_paper(torch.ones(2, 1, 5, 7)).all()
    assert blank_paper(torch.ones(1, 3, 1, 1)).all()
    assert blank_paper(torch.full((1, 3, 8, 8), 1 - 2 * 8 / 255)).all()
    assert not blank_paper(torch.full((1, 3, 8, 8), 1 - 2 * 9 / 255)).any()
    with pytest.raises(DataError, match="expected a batch"):
        blank_paper(torch.ones(3, 8, 8))


def test_painting_inside_the_lines_changes_no_paper_but_a_stain_does() -> None:
    source = list(drawing())
    inside, stained = source[0].clone(), source[0].clone()
    inside[0, 25:48, 25:48] = -0.5
    stained[2, :10, :10] = 0.0
    names = ["unchanged_colour_paper_de", "unchanged_detail_paper_de"]
    for fake, changed in ((inside, False), (stained, True)):
        found = evaluate_images(ImageSets([fake], source=source, on_paper=True), names)
        assert [score.value > 0 for score in found.values()] == [changed, changed]
        assert found[names[0]].full_name.endswith("_1v1")


# --- shared regions ---


def coarse(images: Tensor) -> Tensor:
    return torch.nn.functional.adaptive_avg_pool2d(images, 4)


def domains(count: int = 15) -> tuple[list[Tensor], list[Tensor]]:
    """Noise that both domains share, and an animal in the lower right quarter: red in one, green in the other."""
    source, target = pictures(1, count, 3, 32, 32), pictures(2, count, 3, 32, 32)
    for images, channel in ((source, 0), (target, 1)):
        images[:, :, 16:, 16:] = -0.8
        images[:, channel, 16:, 16:] = 0.9
    return list(source), list(target)


def test_the_probe_finds_what_both_domains_share() -> None:
    source, target = domains()
    weights = shared_weights(source, target, coarse)
    assert weights.shape == (15, 4, 4)
    assert torch.equal(weights, shared_weights(source, target, coarse))
    animal = weights[:, 2:, 2:]
    rest = torch.cat([weights[:, :2].flatten(), weights[:, 2:, :2].flatten()])
    assert float(animal.max()) < float(rest.quantile(0.05))
    assert float(weights.min()) > 0
    assert float(weights.max()) <= 1


def test_images_beyond_those_that_probes_see_get_weights_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unpaired.evaluation.metrics.shared_regions.PROBED_IMAGES", 10)
    source, target = domains(50)  # every fifth is seen, which must not leave a fold without images
    weights = shared_weights(source, target, coarse)
    assert weights.shape == (50, 4, 4)
    assert float(weights[:, 2:, 2:].mean()) < 0.5 * float(weights[:, :2, :2].mean())


def test_shared_rows_weigh_what_both_domains_share_and_probe_once() -> None:
    source, target = domains()
    calls = []

    def counted(images: Tensor) -> Tensor:
        calls.append(len(images))
        return coarse(images)

    names = [f"unchanged_{part}_shared_de" for part in ("colour", "detail")]
    background, animal = [x.clone() for x in source], [x.clone() for x in source]
    for one, other in zip(background, animal, strict=True):
        one[:, :16, :16] *= 0.5
        other[:, 16:, 16:] *= 0.5
    base = ImageSets(background, target, source=source, networks={"lite0.last_maps": counted})
    harmful = evaluate_images(base, names)
    allowed = evaluate_images(dataclasses.replace(base, fake=animal, _of_this={}), names)
    assert sum(calls) == 30
    for name in names:
        assert harmful[name].full_name == f"{name}_15v15"
    whole = dataclasses.replace(base, kept=[torch.ones(32, 32)] * 15, _of_this={})
    of_all = [
        evaluate_images(dataclasses.replace(whole, fake=fake, _of_this={}), NAMES)[NAMES[0]].value
        for fake in (background, animal)
    ]
    assert harmful[names[0]].value / of_all[0] > 2.5 * allowed[names[0]].value / of_all[1]
    assert evaluate_images(dataclasses.replace(base, fake=source, _of_this={}), names)[names[0]].value == 0
