"""MUNIT: its losses against figures made by hand, and its styles."""

from __future__ import annotations

import sys
from statistics import NormalDist
from typing import Any

import pytest
import torch
from torch import Tensor

from methods.steps import batch, losses
from methods.steps import make as make_any
from unpaired.methods import TranslateRequest, image_seeds
from unpaired.methods.base import derive_seeds
from unpaired.methods.munit import MUNIT
from unpaired.ops import location_draws, normal_draws


def make(**changes: Any) -> MUNIT:
    return make_any("munit", **changes)


def quantiles(seeds: Tensor, channels: int = 8) -> Tensor:
    """Styles of seeds by the standard library's normal quantiles, number by number."""
    draws = location_draws(seeds, channels)
    return torch.tensor([[NormalDist().inv_cdf(u) for u in row] for row in draws.tolist()], dtype=torch.float64)


def test_losses_of_a_step_are_the_formulas_one_image_at_a_time() -> None:
    method = make(cycle_weight=2.0, content_weight=3.0, style_weight=0.5).double()
    images = batch(dtype=torch.float64)
    found = losses(method, images)
    drawn_a, drawn_b = (quantiles(derive_seeds(images.seeds, number)) for number in range(2))
    parts = {
        name: {domain: getattr(method, f"{name}_{domain}") for domain in "ab"}
        for name in ("content_encoder", "style_encoder", "decoder", "discriminator")
    }
    content, style, decode, judge = parts.values()
    expected = dict.fromkeys(found, 0.0)
    for number in range(2):
        x, y = images.source[number : number + 1], images.target[number : number + 1]
        for here, there, image, other, drawn in (("a", "b", x, y, drawn_b), ("b", "a", y, x, drawn_a)):
            s, way = drawn[number : number + 1], here + there
            made = decode[there](content[here](image), s)
            rebuilt = decode[here](content[here](image), style[here](image))
            again = decode[here](content[there](made), style[here](image))
            terms = {
                f"discriminator_{there}": sum(
                    ((real - 1) ** 2).mean() + (fake**2).mean()
                    for real, fake in zip(judge[there](other), judge[there](made), strict=True)
                ),
                f"adversarial_{way}": sum(((fake - 1) ** 2).mean() for fake in judge[there](made)),
                f"reconstruction_{here}": 10 * (rebuilt - image).abs().mean(),
                f"content_{way}": 3 * (content[there](made) - content[here](image)).abs().mean(),
                f"style_{way}": 0.5 * (style[there](made) - s).abs().mean(),
                f"cycle_{way}": 2 * (again - image).abs().mean(),
            }
            for name, term in terms.items():
                expected[name] += term.item() / 2
    assert {name: x.item() for name, x in found.items()} == pytest.approx(expected, rel=1e-9)


def test_styles_are_normal_quantiles_of_their_seed_alone() -> None:
    seeds = image_seeds(4, range(500))
    found = normal_draws(seeds, 8)
    torch.testing.assert_close(found, quantiles(seeds), rtol=1e-9, atol=1e-9)
    assert torch.equal(normal_draws(seeds[7:9], 8), found[7:9])
    assert torch.equal(normal_draws(seeds, 3), found[:, :3])
    assert abs(found.mean()) < 0.05
    assert found.std() == pytest.approx(1.0, abs=0.05)
    assert torch.corrcoef(found.T).fill_diagonal_(0).abs().max() < 0.2


def test_the_most_extreme_draws_are_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    extremes = torch.tensor([[0.0, 1 - 2.0**-53, 0.5]], dtype=torch.float64)
    monkeypatch.setattr(sys.modules["unpaired.ops.location_draws"], "location_draws", lambda seeds, positions: extremes)
    found = normal_draws(torch.zeros(1, dtype=torch.int64), 3)
    assert found.isfinite().all()
    assert found[0, 0] < -8 < 8 < found[0, 1]
    assert abs(found[0, 2]) < 1e-12


def seeds(*numbers: int) -> Tensor:
    return torch.tensor(numbers, dtype=torch.int64)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_style_seed_gives_the_same_picture_whatever_the_batch(reverse: bool) -> None:
    method, x = make(), batch(3).source
    together = method.translate(x, TranslateRequest(reverse=reverse, style_seeds=seeds(5, 6, 5)))
    for number, seed in enumerate((5, 6, 5)):
        alone = method.translate(x[number : number + 1], TranslateRequest(reverse=reverse, style_seeds=seeds(seed)))
        torch.testing.assert_close(together[number : number + 1], alone, rtol=1e-4, atol=1e-5)
    same = method.translate(x[:1].expand(3, -1, -1, -1), TranslateRequest(reverse=reverse, style_seeds=seeds(5, 6, 5)))
    torch.testing.assert_close(same[0], same[2])
    assert (same[0] - same[1]).abs().mean() > 0.01
    plain = method.translate(x, TranslateRequest(reverse=reverse))
    assert torch.equal(plain, method.translate(x, TranslateRequest(reverse=reverse, style_seeds=seeds(0, 0, 0))))


def test_directions_use_their_own_networks() -> None:
    method, x = make(), batch(2).source
    style = normal_draws(seeds(9, 9), 8).float()
    there = method.decoder_b(method.content_encoder_a(x), style)
    back = method.decoder_a(method.content_encoder_b(x), style)
    assert torch.equal(method.translate(x, TranslateRequest(style_seeds=seeds(9, 9))), there)
    assert torch.equal(method.translate(x, TranslateRequest(reverse=True, style_seeds=seeds(9, 9))), back)
    assert torch.equal(method.encode(x, ["block2"])[0], method.content_encoder_a(x))


@pytest.mark.parametrize("reverse", [False, True])
def test_a_reference_gives_its_style(reverse: bool) -> None:
    method, images = make(), batch(2)
    x, references = images.source, images.target
    encoder = method.style_encoder_a if reverse else method.style_encoder_b
    content = method.content_encoder_b if reverse else method.content_encoder_a
    decoder = method.decoder_a if reverse else method.decoder_b
    one = method.translate(x, TranslateRequest(reverse=reverse, style_reference=references[:1]))
    torch.testing.assert_close(one, decoder(content(x), encoder(references[:1]).expand(2, -1)))
    each = method.translate(x, TranslateRequest(reverse=reverse, style_reference=references))
    torch.testing.assert_close(each[:1], one[:1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(each[1], one[1], atol=1e-3)


def test_sides_are_rounded_up_to_4() -> None:
    assert make().translate(torch.rand(1, 3, 9, 30)).shape == (1, 3, 12, 32)
