"""The table of metrics and the call that fills it in."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from unpaired.errors import ConfigError, DataError
from unpaired.metrics import METRICS, evaluate_images, paired_l1, paired_ssim, swd_progan


@pytest.fixture
def images() -> dict[str, list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    truth = [torch.rand(3, 32, 32, generator=generator) * 2 - 1 for _ in range(35)]
    fake = [0.8 * image for image in truth]
    real = [torch.rand(3, 32, 32, generator=generator) * 2 - 1 for _ in range(5)]
    return {"fake": fake, "real": real, "truth": truth}


def test_rows_agree_with_the_functions(images) -> None:
    scores = evaluate_images(**images, seed=3)
    assert list(scores) == list(METRICS)
    fake, truth, real = (torch.stack(images[name]) for name in ("fake", "truth", "real"))
    swd = swd_progan([fake], [real], seed=3)
    score = scores["swd_progan_x1e3"]
    assert score.value == pytest.approx(swd.pop("mean"))
    assert score.per_level == pytest.approx(swd)
    assert score.full_name == "swd_progan_x1e3_35v5"
    assert (score.images, score.reference_images, score.better) == (35, 5, "lower")
    l1 = scores["paired_l1_pm1"]
    assert l1.per_image == pytest.approx(paired_l1(fake, truth))
    assert l1.value == pytest.approx(sum(l1.per_image) / 35)
    assert l1.full_name == "paired_l1_pm1_35v35"
    assert scores["paired_ssim_gauss11"].per_image == pytest.approx(paired_ssim(fake, truth))
    assert "data range 2" in scores["paired_psnr_db"].protocol
    assert json.loads(json.dumps([dataclasses.asdict(score) for score in scores.values()]))


def test_every_row_says_what_it_is() -> None:
    for name, row in METRICS.items():
        assert row.better in ("lower", "higher")
        assert len(row.protocol) > 40, name
        assert row.needs_pairs == name.startswith("paired_")


def test_without_truth_paired_rows_are_left_out_and_generators_are_fine(images) -> None:
    listed = evaluate_images(images["fake"], images["real"])
    streamed = evaluate_images(iter(images["fake"]), iter(images["real"]))
    assert list(listed) == ["swd_progan_x1e3"]
    assert listed == streamed


def test_paired_rows_take_images_of_several_sizes(images) -> None:
    truth = [image[:, : 20 + index % 3] for index, image in enumerate(images["truth"])]
    fake = [0.5 * image for image in truth]
    score = evaluate_images(fake, [], truth, names=["paired_l1_pm1"])["paired_l1_pm1"]
    assert score.per_image == pytest.approx([float(0.5 * image.abs().mean()) for image in truth], rel=1e-5)


def test_refusals(images) -> None:
    fake, real, truth = images["fake"], images["real"], images["truth"]
    with pytest.raises(ConfigError, match="did you mean 'paired_psnr_db'"):
        evaluate_images(fake, real, truth, names=["paired_psnr"])
    with pytest.raises(ConfigError, match="needs the true partner"):
        evaluate_images(fake, real, names=["paired_l1_pm1"])
    with pytest.raises(DataError, match="35 made images but 34 truths"):
        evaluate_images(fake, real, truth[:-1], names=["paired_l1_pm1"])
    with pytest.raises(DataError, match=r"image 7 has shape \(3, 32, 32\)"):
        evaluate_images(fake, real, [*truth[:7], truth[7][:, :8], *truth[8:]], names=["paired_l1_pm1"])
    with pytest.raises(DataError, match="no made images"):
        evaluate_images([], real)
    with pytest.raises(DataError, match="no real images"):
        evaluate_images(fake, [])
    with pytest.raises(DataError, match=r"fake image 0: expected a float tensor .* not torch.uint8"):
        evaluate_images([torch.zeros(3, 32, 32, dtype=torch.uint8)], real)
