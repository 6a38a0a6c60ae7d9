"""MUNIT: its losses against figures made by hand, and its styles."""

from __future__ import annotations

import math
import sys
from statistics import NormalDist
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tiny import tiny_settings
from unpaired.engine.step import make_optimizers, training_step
from unpaired.errors import ConfigError
from unpaired.methods import ImageBatch, TranslateRequest, image_seeds
from unpaired.methods.base import derive_seeds
from unpaired.methods.munit import MUNIT, MUNITConfig
from unpaired.ops import location_draws, normal_draws


def make(**changes: Any) -> MUNIT:
    torch.manual_seed(0)
    return MUNIT(MUNITConfig(**{**tiny_settings("munit"), **changes}))


def batch(images: int = 2, size: int = 32, dtype: torch.dtype = torch.float32) -> ImageBatch:
    source, target = torch.rand(2, images, 3, size, size, generator=torch.Generator().manual_seed(3), dtype=dtype)
    return ImageBatch(source * 2 - 1, target * 2 - 1, image_seeds(0, range(images)))


def losses(method: MUNIT, images: ImageBatch) -> dict[str, Tensor]:
    outputs = method.forward_train(images)
    return {name: term for phase in method.phases for name, term in phase.loss(outputs).items()}


def quantiles(seeds: Tensor, channels: int = 8) -> Tensor:
    """Styles of seeds by the standard library's normal quantiles, number by number."""
    draws = location_draws(seeds, channels)
    return torch.tensor([[NormalDist().inv_cdf(u) for u in row] for row in draws.tolist()], dtype=torch.float64)


def test_parameters_at_the_defaults() -> None:
    with torch.device("meta"):
        method = MUNIT(MUNITConfig())
    figures = {
        "content_encoder": 5_385_856,
        "style_encoder": 2_764_936,
        "decoder": 6_875_395,
        "discriminator": 8_271_171,
    }
    expected = {f"{name}_{domain}": count for name, count in figures.items() for domain in "ab"}
    assert {name: sum(p.numel() for p in x.parameters()) for name, x in method.named_children()} == expected
    assert method.smallest_image == 61


def test_the_defaults_are_the_papers() -> None:
    config = MUNITConfig()
    assert (config.reconstruction_weight, config.content_weight, config.style_weight) == (10.0, 1.0, 1.0)
    assert (config.adversarial_weight, config.cycle_weight, config.style_channels) == (1.0, 0.0, 8)
    optimiser = config.optimiser
    assert (optimiser.learning_rate, optimiser.beta1, optimiser.beta2, optimiser.weight_decay) == (
        1e-4,
        0.5,
        0.999,
        1e-4,
    )
    progress = [0.0, 0.05, 0.1, 0.95]  # of a million images: halved every 100,000
    assert [optimiser.factor(each) for each in progress] == [1.0, 1.0, 0.5, 0.5**9]
    assert optimiser.epochs * 1334 == pytest.approx(1_000_000, rel=1e-3)


def test_losses_of_constant_networks_are_those_worked_out_by_hand() -> None:
    """The decoders give 0.5 in A and -0.25 in B, styles look like 0.3, scores are 0.5 (D_A) and 0.75 (D_B)."""
    method = make(cycle_weight=10.0)

    def fix(layer: nn.Module, value: float) -> None:
        nn.init.zeros_(layer.weight)
        nn.init.constant_(layer.bias, value)

    fix(method.decoder_a.head, math.atanh(0.5))
    fix(method.decoder_b.head, math.atanh(-0.25))
    for domain, score in (("a", 0.5), ("b", 0.75)):
        fix(getattr(method, f"style_encoder_{domain}").last, 0.3)
        for scale in getattr(method, f"discriminator_{domain}").scales:
            fix(scale[-1], score)
    source, target = (torch.full((2, 3, 32, 32), value) for value in (0.1, -0.3))
    images = ImageBatch(source, target, image_seeds(0, range(2)))
    drawn_a, drawn_b = (quantiles(derive_seeds(images.seeds, number)) for number in range(2))
    expected = {
        "discriminator_a": 3 * (0.5**2 + 0.5**2),  # three scales
        "discriminator_b": 3 * (0.25**2 + 0.75**2),
        "adversarial_ab": 3 * 0.25**2,
        "adversarial_ba": 3 * 0.5**2,
        "reconstruction_a": 10 * 0.4,  # |0.5 - 0.1|
        "reconstruction_b": 10 * 0.05,  # |-0.25 + 0.3|
        "content_ab": 0.0,  # constant images have no content: instance norms take it away
        "content_ba": 0.0,
        "style_ab": (drawn_b - 0.3).abs().mean().item(),
        "style_ba": (drawn_a - 0.3).abs().mean().item(),
        "cycle_ab": 10 * 0.4,
        "cycle_ba": 10 * 0.05,
    }
    assert {name: x.item() for name, x in losses(method, images).items()} == pytest.approx(expected, rel=1e-5, abs=1e-6)


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


@pytest.mark.parametrize(("weight", "decoded"), [(0.0, 2), (10.0, 3)])
def test_each_network_runs_as_often_as_it_must(weight: float, decoded: int) -> None:
    method, counts = make(cycle_weight=weight), dict[str, int]()
    for name, network in method.named_children():
        counts[name] = 0
        network.register_forward_pre_hook(lambda m, i, name=name: counts.__setitem__(name, counts[name] + len(i[0])))
    terms = losses(method, batch(1))
    assert ("cycle_ab" in terms) == (weight > 0)
    for domain in "ab":
        assert counts[f"content_encoder_{domain}"] == counts[f"style_encoder_{domain}"] == 2  # real and translated
        assert counts[f"decoder_{domain}"] == decoded  # reconstruction, translation, cycle
        assert counts[f"discriminator_{domain}"] == 3


def test_gradients_of_each_phase_stay_where_they_belong() -> None:
    method = make()
    outputs = method.forward_train(batch())
    torch.stack(list(method.discriminator_loss(outputs).values())).sum().backward()
    for name, network in method.named_children():
        assert all((p.grad is not None) == name.startswith("discriminator") for p in network.parameters()), name


def test_a_step_moves_every_network() -> None:
    method = make()
    before = {name: x.clone() for name, x in method.state_dict().items()}
    training_step(method, make_optimizers(method, method.config.optimiser), batch())
    still = [name for name, x in method.state_dict().items() if torch.equal(x, before[name])]
    assert not still


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


def test_what_is_served_translates_and_nothing_else_is() -> None:
    method = make()
    assert method.supports == {"reverse", "style"}
    kinds = ("content_encoder", "style_encoder", "decoder")
    assert set(method.served_networks()) == {f"{kind}_{domain}" for kind in kinds for domain in "ab"}
    assert not [name for network in method.served_networks().values() for name, _ in network.named_buffers()]


@pytest.mark.parametrize(
    ("changes", "words"),
    [],
)
def test_impossible_settings_are_refused_by_name(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make(**changes)
