"""The table of metrics and the call that fills it in."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from doc_pages import DOCS, blocks
from unpaired.errors import ConfigError, DataError
from unpaired.evaluation import METRICS, ImageSets, evaluate_images, metric, metrics, paired_l1, paired_ssim, swd_progan
from unpaired.evaluation.metrics.distances import frechet_distance, kernel_distance
from unpaired.evaluation.registry import possible_metrics


def colours(images: Tensor) -> Tensor:
    """A network of sorts: coarse colours as features."""
    return torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)


def coarse(images: Tensor) -> Tensor:
    return torch.nn.functional.adaptive_avg_pool2d(images, 4)


@pytest.fixture
def sets() -> ImageSets:
    generator = torch.Generator().manual_seed(0)
    truth = list(torch.rand(35, 3, 32, 32, generator=generator) * 2 - 1)
    real = list(torch.rand(12, 3, 32, 32, generator=generator) * 2 - 1)
    networks = {"lite0": colours, "lite0.maps": coarse, "lite0.last_maps": coarse, "inception": colours,
                "st_lpips": lambda a, b: (a - b).abs().mean((1, 2, 3))}  # fmt: skip
    kept = [torch.ones(32, 32)] * 35
    return ImageSets([0.8 * x for x in truth], real, truth, [-x for x in truth], networks=networks, kept=kept)


def test_rows_agree_with_the_functions(sets: ImageSets) -> None:
    scores = evaluate_images(sets, seed=3)
    assert list(scores) == [name for name, row in METRICS.items() if not row.label_maps and "paper" not in name]
    fake, truth, real = (torch.stack(list(x)) for x in (sets.fake, sets.truth or (), sets.real))
    swd = swd_progan([fake], [real], seed=3)
    score = scores["swd_progan_x1e3"]
    assert score.value == pytest.approx(swd.value, rel=1e-12)
    assert score.per_level == pytest.approx(swd.per_level, rel=1e-12)
    assert score.interval is not None
    assert score.interval[0] < score.value < score.interval[1]
    assert score.full_name == "swd_progan_x1e3_35v12"
    assert (score.images, score.reference_images, score.better) == (35, 12, "lower")
    kid = kernel_distance(colours(fake), colours(real), seed=3)[0]
    assert scores["kid_lite0_x1e3"].value == pytest.approx(1e3 * kid.value)
    assert scores["kid_lite0_x1e3"].spread == pytest.approx(1e3 * kid.spread)
    assert scores["kid_lite0_x1e3"].interval == pytest.approx([1e3 * x for x in kid.interval])
    assert scores["fid_torchfidelity"].value == pytest.approx(frechet_distance(colours(fake), colours(real)))
    l1 = scores["paired_l1_pm1"]
    assert l1.per_image == pytest.approx(paired_l1(fake, truth))
    assert l1.value == pytest.approx(sum(l1.per_image) / 35)
    assert l1.full_name == "paired_l1_pm1_35v35"
    assert scores["paired_ssim_gauss11"].per_image == pytest.approx(paired_ssim(fake, truth))
    assert scores["paired_st_lpips_alex"].value == pytest.approx(l1.value, rel=1e-5)
    assert scores["identity_percent"].value == 0
    assert "data range 2" in scores["paired_psnr_db"].protocol
    assert json.loads(json.dumps([score.plain() for score in scores.values()]))


def test_without_intervals_the_values_are_the_same(sets: ImageSets) -> None:
    fast = evaluate_images(dataclasses.replace(sets, intervals=False, _of_this={}))
    slow = evaluate_images(sets)
    assert all(score.interval is None for score in fast.values())
    assert {name: score.value for name, score in fast.items()} == {name: score.value for name, score in slow.items()}


def test_every_row_says_what_it_is() -> None:
    for name, row in METRICS.items():
        assert row.better in ("lower", "higher")
        assert len(row.protocol) > 40, name
        assert (row.against == "truth") == name.startswith("paired_")
        assert not row.label_maps or row.against == "source"
    titles = [row.label for row in METRICS.values()]
    assert len(set(titles)) == len(titles)


def test_rows_are_left_out_for_want_of_something(sets: ImageSets) -> None:
    assert possible_metrics(ImageSets(sets.fake, sets.real)) == ["swd_progan_x1e3", "colour_shift_lab"]
    assert possible_metrics(ImageSets(sets.fake)) == []
    few = ImageSets(sets.fake[:9], sets.real, networks=sets.networks)
    assert "kid_lite0_x1e3" not in possible_metrics(few)
    assert "diversity_lite0" in possible_metrics(few)


def test_features_are_computed_once_and_known_ones_not_at_all(sets: ImageSets) -> None:
    calls = []

    def counting(images: Tensor) -> Tensor:
        calls.append(len(images))
        return colours(images)

    counted = ImageSets(sets.fake, sets.real, networks={"lite0": counting})
    evaluate_images(counted, ["kid_lite0_x1e3", "fd_lite0", "diversity_lite0"])
    assert sum(calls) == 35 + 12
    calls.clear()
    known = {("lite0", "real"): colours(torch.stack(list(sets.real)))}
    evaluate_images(ImageSets(sets.fake, sets.real, networks={"lite0": counting}, known=known), ["fd_lite0"])
    assert sum(calls) == 35


def test_the_metric_of_the_page_is_one_new_file(
    sets: ImageSets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (example,) = [text for text in blocks(DOCS / "extending.md", "python") if "@metric(" in text]
    (tmp_path / "brightness.py").write_text(example, encoding="utf-8")
    monkeypatch.setattr(metrics, "__path__", [*metrics.__path__, str(tmp_path)])
    try:
        metrics.load_metrics()
        assert possible_metrics(sets)[-1] == "brightness_pm1"
        score = evaluate_images(sets, ["brightness_pm1"])["brightness_pm1"]
        assert score.value == pytest.approx(torch.stack(list(sets.fake)).mean().item(), abs=1e-6)
        assert score.plain()["protocol"] == "mean over all pixels of the translations"
        assert score.full_name == "brightness_pm1_35v12"
        with pytest.raises(ValueError, match="there is a metric 'brightness_pm1' already"):
            metric("brightness_pm1", "", "", "lower", "")
    finally:
        METRICS.pop("brightness_pm1", None)


def test_paired_rows_take_images_of_several_sizes(sets: ImageSets) -> None:
    truth = [image[:, : 20 + index % 3] for index, image in enumerate(sets.truth or ())]
    fake = [0.5 * image for image in truth]
    score = evaluate_images(ImageSets(fake, truth=truth), ["paired_l1_pm1"])["paired_l1_pm1"]
    assert score.per_image == pytest.approx([float(0.5 * image.abs().mean()) for image in truth], rel=1e-5)


def test_refusals(sets: ImageSets) -> None:
    fake, real, truth = sets.fake, sets.real, list(sets.truth or ())
    with pytest.raises(ConfigError, match="did you mean 'paired_psnr_db'"):
        evaluate_images(sets, ["paired_psnr"])
    with pytest.raises(ConfigError, match="needs the true partner"):
        evaluate_images(ImageSets(fake, real), ["paired_l1_pm1"])
    with pytest.raises(ConfigError, match="the network 'lite0' is not available"):
        evaluate_images(ImageSets(fake, real), ["kid_lite0_x1e3"])
    with pytest.raises(ConfigError, match="at least 10 images in each set, and there are 9"):
        evaluate_images(ImageSets(fake[:9], real, networks=sets.networks), ["kid_lite0_x1e3"])
    with pytest.raises(DataError, match="35 generated images but 34 truths"):
        evaluate_images(ImageSets(fake, real, truth[:-1]), ["paired_l1_pm1"])
    with pytest.raises(DataError, match=r"fake image 7 has shape \(3, 32, 32\) .* its truth \(3, 8, 32\)"):
        evaluate_images(ImageSets(fake, real, [*truth[:7], truth[7][:, :8], *truth[8:]]), ["paired_l1_pm1"])
    with pytest.raises(DataError, match="no generated images"):
        evaluate_images(ImageSets([], real))
    with pytest.raises(ConfigError, match="no real images"):
        evaluate_images(ImageSets(fake), ["swd_progan_x1e3"])
    with pytest.raises(DataError, match=r"fake image 0: expected a float tensor .* not torch.uint8"):
        evaluate_images(ImageSets([torch.zeros(3, 32, 32, dtype=torch.uint8)], real))
