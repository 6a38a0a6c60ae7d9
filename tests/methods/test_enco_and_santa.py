"""EnCo and SANTA: their losses of a fixed step by hand, their parameters, and what is published of their settings."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tiny import tiny_settings
from unpaired.engine.step import make_optimizers, set_learning_rate, training_step
from unpaired.errors import ConfigError
from unpaired.methods import METHODS, ImageBatch, image_seeds
from unpaired.methods.base import derive_seeds
from unpaired.methods.enco import EnCo, EnCoConfig
from unpaired.methods.santa import SANTA, SANTAConfig
from unpaired.networks import PathGenerator, ResnetGenerator
from unpaired.networks.projector import LocationNorm
from unpaired.ops import location_draws, normal_draws


def make(name: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    method = METHODS[name](METHODS[name].Config(**{**tiny_settings(name), **changes}))
    for parameter in method.parameters():  # the published start is so small that every error would be, too
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return method


def batch(images: int = 2, first: int = 0) -> ImageBatch:
    source, target = torch.rand(2, 8, 3, 32, 32, generator=torch.Generator().manual_seed(3)) * 2 - 1
    chosen = slice(first, first + images)
    return ImageBatch(source[chosen], target[chosen], image_seeds(0, range(first, first + images)))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def test_parameters_at_the_defaults() -> None:
    """Linear layers of EnCo: C -> 256 -> 256 without biases, norms of 2 x 256 and none, 256 -> 128 -> 256; the first
    prediction without bias, its norm 2 x 128. Codes of SANTA: 8 -> 2 C with biases after ten norms of 256, one of 128,
    one of 64."""
    generator, discriminator = 11_378_179, 2_764_737  # test_two_way.py adds them up
    projection = sum(c * 256 + 2 * 256 + 256 * 256 for c in (64, 128, 256))
    prediction = 3 * (256 * 128 + 2 * 128 + 128 * 256 + 256)
    affine = sum(8 * 2 * c + 2 * c for c in (256,) * 10 + (128, 64))
    expected = {
        "enco": {"generator": generator, "discriminator": discriminator, "projector": projection + prediction},
        "santa": {"generator": generator + 2 * 8 + affine, "discriminator": discriminator},
    }
    assert projection + prediction == 510_976
    assert generator + 2 * 8 + affine == 11_427_731
    for name, sums in expected.items():
        with torch.device("meta"):
            method = METHODS[name](METHODS[name].Config())
        assert {n: sum(p.numel() for p in x.parameters()) for n, x in method.named_children()} == sums


def test_the_defaults_are_the_published_ones() -> None:
    enco, santa = EnCoConfig(), SANTAConfig()
    assert (enco.content_weight, enco.identity_weight, enco.num_queries) == (2.0, 10.0, 256)
    assert (enco.oversampling, enco.random_share, enco.sampling) == (4, 0.5, "discriminator")
    rate = enco.optimiser.learning_rate
    assert (rate, rate * enco.discriminator_learning_rate_factor, enco.optimiser.epochs) == (5e-5, 2e-4, 200)
    assert enco.decoder_taps() == ("doubled2", "doubled1", "block7")  # outputs 28, 24 and 18 of the published list
    weights = santa.reconstruction_weight, santa.identity_weight, santa.latent_weight, santa.path_weight
    assert weights == (5.0, 5.0, 0.01, 0.01)
    assert (santa.noise, santa.code_channels, santa.shortest_interval, santa.longest_interval) == (1.0, 8, 0.05, 0.1)
    assert santa.path_taps() == ("block5", "block8", "up1", "up2", "head")
    assert (santa.optimiser.learning_rate, santa.optimiser.epochs) == (2e-4, 400)


def normed(rows: list[list[float]], norm: Any) -> list[list[float]]:
    """Each column with mean 0 and variance 1, then scaled and shifted."""
    columns = []
    for number, column in enumerate(zip(*rows, strict=True)):
        middle = mean(list(column))
        deviation = math.sqrt(mean([(v - middle) ** 2 for v in column]) + 1e-5)
        scale = 1.0 if norm.scale_C is None else norm.scale_C[number].item()
        shift = 0.0 if norm.shift_C is None else norm.shift_C[number].item()
        columns.append([(v - middle) / deviation * scale + shift for v in column])
    return [list(row) for row in zip(*columns, strict=True)]


def linear(rows: list[list[float]], layer: torch.nn.Linear) -> list[list[float]]:
    weights = layer.weight.detach().double().tolist()
    biases = [0.0] * len(weights) if layer.bias is None else layer.bias.tolist()
    return [[sum(a * b for a, b in zip(row, w, strict=True)) + c for w, c in zip(weights, biases, strict=True)]
            for row in rows]  # fmt: skip


def relu(rows: list[list[float]]) -> list[list[float]]:
    return [[max(0.0, v) for v in row] for row in rows]


def cosine(x: list[float], y: list[float]) -> float:
    dot = sum(a * b for a, b in zip(x, y, strict=True))
    return dot / math.sqrt(sum(a * a for a in x) * sum(b * b for b in y))


def test_a_step_of_enco_by_hand() -> None:
    method: EnCo = make("enco")
    for module in method.projector.modules():
        if isinstance(module, LocationNorm) and module.scale_C is not None:
            torch.nn.init.normal_(module.scale_C)
            torch.nn.init.normal_(module.shift_C)
    images = batch()
    outputs = method.forward_train(images)
    scores = method.discriminator(outputs.translated)
    content = []
    for image in range(2):
        for number, tap in enumerate(method.config.taps):
            encoded, decoded = outputs.encoder_features[number][image], outputs.decoder_features[number][image]
            height, width = encoded.shape[1:]
            places = range(height * width)
            seeds = derive_seeds(outputs.seeds, number)
            draws = location_draws(seeds, height * width)[image].tolist()
            candidates = sorted(places, key=lambda p: draws[p])[: 4 * 16]
            doubted = F.interpolate(scores, (height, width), mode="bilinear")[image].flatten().tolist()
            others = location_draws(derive_seeds(seeds, -1), height * width)[image].tolist()
            chosen = sorted(candidates, key=lambda p: doubted[p])[:8] + sorted(places, key=lambda p: others[p])[:8]
            one, norm1, _, two, norm2 = method.projector.projections[tap]
            three, norm3, _, four = method.projector.predictions[tap]

            def project(features: Tensor) -> list[list[float]]:
                rows = [features.flatten(1)[:, p].detach().double().tolist() for p in chosen]  # noqa: B023
                return normed(linear(relu(normed(linear(rows, one), norm1)), two), norm2)  # noqa: B023

            predicted = linear(relu(normed(linear(project(decoded), three), norm3)), four)
            content += [2 - 2 * cosine(p, q) for p, q in zip(predicted, project(encoded), strict=True)]
    terms = method.generator_loss(outputs)
    assert terms["content"].item() == pytest.approx(0.5 * 2.0 * mean(content), rel=1e-3)
    distances = (method.translate(images.target) - images.target).abs().flatten().tolist()
    assert terms["identity"].item() == pytest.approx(0.5 * 10.0 * mean(distances), rel=1e-4)
    adversarial = mean([(s - 1) ** 2 for s in scores.flatten().tolist()])
    assert terms["adversarial"].item() == pytest.approx(adversarial, rel=1e-4)


def test_enco_compares_stages_of_one_pass_and_teaches_the_decoder_only_through_itself() -> None:
    method: EnCo = make("enco", identity_weight=0.0, adversarial_weight=0.0)
    images = batch()
    outputs = method.forward_train(images)
    stages = [*method.generator._encoder_stages(), *method.generator._decoder_stages()]
    hidden, found = images.source, {}
    for name, stage in stages:
        hidden = stage(hidden)
        found[name] = hidden.clone()
    expected = [found[name] for name in ("stem", "halved1", "block2", "doubled2", "doubled1", "block3")]
    for one, other in zip([*outputs.encoder_features, *outputs.decoder_features], expected, strict=True):
        torch.testing.assert_close(one, other)
    assert method.generator_loss(outputs)["content"].requires_grad
    frozen = method.forward_train(images)
    frozen.decoder_features[:] = [each.detach() for each in frozen.decoder_features]
    method.generator_loss(frozen)["content"].backward()
    assert all(p.grad is None for p in method.generator.parameters())  # the encoder's features are only compared with


def test_the_discriminator_of_enco_learns_four_times_as_fast() -> None:
    method = make("enco")
    optimizers = make_optimizers(method, method.config.optimiser)
    rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in optimizers.items()}
    assert rates == {"discriminator": 2e-4, "generator": 5e-5}
    set_learning_rate(optimizers, 1e-5)
    rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in optimizers.items()}
    assert rates == pytest.approx({"discriminator": 4e-5, "generator": 1e-5})
    other = make_optimizers(method, method.config.optimiser)
    for name, optimizer in other.items():
        optimizer.load_state_dict(optimizers[name].state_dict())
    set_learning_rate(other, 1e-3)
    assert other["discriminator"].param_groups[0]["lr"] == pytest.approx(4e-3)
    training_step(method, other, batch())
    moved = {name: other[name].state[other[name].param_groups[0]["params"][0]]["step"].item() for name in other}
    assert moved == {"discriminator": 1, "generator": 1}


def test_least_convincing_patches_are_chosen_per_image() -> None:
    """With every location a candidate and none random, the chosen ones are those with the lowest scores."""
    method: EnCo = make("enco", random_share=0.0, oversampling=100)
    scores = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    chosen = method.locations(scores, (8, 8), image_seeds(0, range(3)))
    for image in range(3):
        assert set(chosen[image].tolist()) == set(scores[image].flatten().argsort()[:16].tolist())
    alone = method.locations(scores[1:2], (8, 8), image_seeds(0, [1]))
    assert torch.equal(alone[0], chosen[1])


def test_a_step_of_santa_by_hand() -> None:
    method: SANTA = make("santa")
    images = batch()
    terms = method.generator_loss(method.forward_train(images))
    generator: PathGenerator = method.generator
    encodings = torch.cat([generator.encode(each, ["block2"])[0] for each in (images.source, images.target)])
    latent, reconstruction, identity, adversarial, energies = [], [], [], [], []
    for image in range(2):
        noisy = []
        for term in range(2):
            own = encodings[image + 2 * term]
            seed = derive_seeds(images.seeds, term)[image : image + 1]
            noisy.append((own + normal_draws(seed, own.numel()).view(own.shape).float())[None])
            latent += own.flatten().square().tolist()

        def at(place: float, term: int) -> Tensor:
            code = generator.ends_2S[0] + place * (generator.ends_2S[1] - generator.ends_2S[0])
            return generator.decode(noisy[term], code[None])[0]  # noqa: B023

        reconstruction += (at(0, 0) - images.source[image]).abs().flatten().tolist()
        identity += (at(1, 1) - images.target[image]).abs().flatten().tolist()
        adversarial += (method.discriminator(at(1, 0)[None]) - 1).square().flatten().tolist()
        middle, spread = location_draws(derive_seeds(images.seeds, 2), 2)[image].tolist()
        interval = 0.05 + 0.05 * spread
        later, earlier = min(1.0, middle + interval), max(0.0, middle - interval)
        step = max(0.1, later - earlier)
        _, features = generator.decode_along(
            noisy[0], torch.tensor([later, earlier]), torch.tensor([0, 0]), ("block3", "block4", "up1", "up2", "head")
        )
        energies.append(mean([((f[0] - f[1]) / step).square().mean().item() for f in features]))
    assert terms["latent"].item() == pytest.approx(0.01 * mean(latent), rel=1e-4)
    assert terms["reconstruction"].item() == pytest.approx(5 * mean(reconstruction), rel=1e-4)
    assert terms["identity"].item() == pytest.approx(5 * mean(identity), rel=1e-4)
    assert terms["adversarial"].item() == pytest.approx(mean(adversarial), rel=1e-4)
    assert terms["path"].item() == pytest.approx(0.01 * mean(energies), rel=1e-3)


def test_the_decoder_of_santa_is_the_family_s_with_adaptive_norms() -> None:
    """With all codes zero and the affine layers at scale 0 and shift 0 it is the ResNet generator."""
    torch.manual_seed(0)
    path = PathGenerator(base_channels=4, blocks=5)
    resnet = ResnetGenerator(base_channels=4, blocks=5)
    torch.nn.init.zeros_(path.ends_2S)
    own = path.state_dict()
    copied = {}
    for key in resnet.state_dict():
        number = int(key.split(".")[1]) if key.startswith("blocks.") else 0
        place = f"blocks.{number - 2}.{key.split('.', 2)[2]}" if number >= 2 else f"resnet.{key}"
        copied[key] = own[place]
    resnet.load_state_dict(copied)
    x = torch.rand(2, 3, 20, 24) * 2 - 1
    torch.testing.assert_close(path(x, torch.tensor([0.0, 0.7])), resnet(x))
    torch.nn.init.normal_(path.ends_2S)
    for module in path.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight)
    ends = path(x[:1].expand(3, -1, -1, -1), torch.tensor([0.0, 0.5, 1.0]))
    assert not torch.allclose(ends[0], ends[2], atol=1e-3)
    assert not torch.allclose(ends[0], ends[1], atol=1e-3)


def test_translation_has_no_noise_and_goes_to_the_end_of_the_path() -> None:
    method: SANTA = make("santa")
    images = batch()
    assert torch.equal(method.translate(images.source), method.translate(images.source))
    torch.testing.assert_close(
        method.translate(images.source), method.generator(images.source, torch.ones(2)), rtol=1e-5, atol=1e-6
    )
    quiet: SANTA = make("santa", noise=0.0)
    outputs = quiet.forward_train(images)
    torch.testing.assert_close(outputs.translated, quiet.translate(images.source), rtol=1e-4, atol=1e-5)
    loud = make("santa").forward_train(images)
    assert not torch.allclose(loud.translated, quiet.translate(images.source), atol=1e-2)


@pytest.mark.parametrize(
    ("config", "changes", "words"),
    [
        (EnCoConfig, {"taps": ("block5",)}, r"'block5' has no counterpart.*block1, block2, block3, block4"),
        (EnCoConfig, {"taps": ("down1",)}, "'down1' has no counterpart"),
        (EnCoConfig, {"taps": ("block2",), "blocks": 2}, "with blocks = 2 these have: stem"),
        (EnCoConfig, {"random_share": 1.5}, "random_share must be at most 1"),
        (EnCoConfig, {"projector_width": 3}, "projector_width must be a multiple of 2"),
        (EnCoConfig, {"discriminator_learning_rate_factor": 0.0}, "must be above 0"),
        (SANTAConfig, {"blocks": 1}, "blocks must be at least 2"),
        (SANTAConfig, {"shortest_interval": 0.2}, "must be ordered"),
    ],
)
def test_impossible_settings_of_either_are_refused_by_name(config: Any, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        config(**changes)
