"""FSeSim and LSeSim: their losses against plain formulas, what they compute how often, and their frozen network."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms import ColorJitter

from methods.steps import batch, losses, make
from tiny import tiny_settings
from unpaired.config import to_dict
from unpaired.engine.step import make_optimizers, training_step
from unpaired.errors import BackendError, ConfigError
from unpaired.inference import Translator
from unpaired.methods import METHODS
from unpaired.methods.base import derive_seeds
from unpaired.methods.recolouring import recoloured
from unpaired.networks import vgg
from unpaired.ops import location_draws

NAMES = ("fsesim", "lsesim")


def similarity_maps(features: Tensor, places: Tensor, side: int) -> Tensor:
    """tanh(dot / 10 C) of centred features between places and the squares around them, pair by pair: (N, side^2)."""
    channels, height, width = features.shape
    features = features - features.mean((1, 2), keepdim=True)
    rows = []
    for place in places.tolist():
        y, x = divmod(place, width)
        top, left = min(max(y - side // 2, 0), height - side), min(max(x - side // 2, 0), width - side)
        query = features[:, y, x]
        cells = [(r, c) for r in range(top, top + side) for c in range(left, left + side)]
        rows.append([math.tanh(float(query @ features[:, r, c]) / channels / 10) for r, c in cells])
    return torch.tensor(rows, dtype=torch.float64)


def places_of(seeds: Tensor, purpose: int, locations: int) -> Tensor:
    return location_draws(derive_seeds(seeds, purpose), locations)[0].argsort(stable=True)[:5]


def cosine(one: Tensor, other: Tensor) -> float:
    return float(one @ other / (one.norm() * other.norm()))


@pytest.mark.parametrize("name", NAMES)
def test_losses_of_a_step_are_the_formulas_one_image_at_a_time(name: str) -> None:
    method = make(name, num_queries=5, patch_size=3).double()
    if name == "lsesim":  # at the start its maps are so small that a cosine's own epsilon would show
        for parameter in method.projector.parameters():
            parameter.data *= 20
    method._frozen.module.double()
    images = batch(dtype=torch.float64)
    found = losses(method, images)
    expected = dict.fromkeys(found, 0.0)
    for n in range(2):
        x, y, seeds = images.source[n : n + 1], images.target[n : n + 1], images.seeds[n : n + 1]
        made = method.generator(x).detach()
        real, fake = method.discriminator(y), method.discriminator(made)
        expected["discriminator"] += (((real - 1) ** 2).mean() / 2 + (fake**2).mean() / 2).item() / 2
        expected["adversarial"] += ((fake - 1) ** 2).mean().item() / 2
        copies = [recoloured(each, derive_seeds(seeds, k)) for each, k in ((x, -5), (y, -6))]
        seen = [method.features(each) for each in (x, made, copies[0], y.flip(2, 3), copies[1].flip(2, 3))]
        share = 1 / 5 / 3 / 2  # mean over queries, layers, images
        for number, layer in enumerate(method.config.layers):
            projected = [method.project(layer, each[number])[0].detach() for each in seen]
            places = places_of(seeds, number, projected[0][0].numel())
            of_x, of_made, of_copy, of_y, of_y_copy = (similarity_maps(each, places, 3) for each in projected)
            for a, b in zip(of_x, of_made, strict=True):
                strong = b >= b.sort(descending=True).values[9 // 4]
                apart = 1 - cosine(a[strong], b[strong])
                expected["structure"] += 10 * share * (apart**2 / 2 if apart < 1 else apart - 0.5)
            if name == "lsesim":
                for anchors, positives, others in ((of_x, of_made, of_y), (of_x, of_copy, of_y_copy)):
                    for i, anchor in enumerate(anchors):
                        alike = [cosine(anchor, each) for each in (*positives, *others)]
                        alike += [cosine(positives[i], each) for each in others]
                        similar = [math.exp(each / 0.07) for each in alike]
                        expected["contrastive"] -= share / 2 * math.log(similar[i] / sum(similar))
    assert {key: x.item() for key, x in found.items()} == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_a_translation_that_is_its_input_has_the_same_structure_and_colours_matter_less(name: str) -> None:
    method, images = make(name, feature_network="lite0", image_pool=0), batch()
    method.generator.translate_and_encode = lambda x, taps: (x, [])
    assert losses(method, images)["structure"].item() == pytest.approx(0, abs=1e-5)
    method.generator.translate_and_encode = lambda x, taps: (recoloured(x, images.seeds), [])
    changed = losses(method, images)["structure"].item()
    method.generator.translate_and_encode = lambda x, taps: (x.flip(-1), [])
    assert 0 < changed < losses(method, images)["structure"].item()


def test_the_projector_learns_in_its_own_phase_and_gives_the_generator_nothing_to_follow() -> None:
    method = make("lsesim")
    assert [phase.name for phase in method.phases] == ["projector", "discriminator", "generator"]
    outputs = method.forward_train(batch())
    method.projector_loss(outputs)["contrastive"].backward()
    for name, network in method.named_children():
        assert all((p.grad is not None) == (name == "projector") for p in network.parameters()), name
    method.zero_grad(set_to_none=True)
    method.projector.requires_grad_(False)  # as in the generator's phase
    method.generator_loss(method.forward_train(batch()))["structure"].backward()
    assert method.generator.stem.weight.grad.abs().max() > 0


def test_only_the_translation_carries_a_gradient_through_the_frozen_network() -> None:
    method, graded = make("lsesim"), []
    method._frozen.module.register_forward_hook(lambda m, i, o: graded.append((len(i[0]), o[0].requires_grad)))
    losses(method, batch(1))
    assert sorted(graded) == [(1, True), (4, False)]


@pytest.mark.parametrize("name", NAMES)
def test_a_step_moves_every_network_and_not_the_frozen_one(name: str) -> None:
    method = make(name)
    frozen = {key: x.clone() for key, x in method._frozen.module.state_dict().items()}
    before = {key: x.clone() for key, x in method.named_parameters()}
    assert not [key for key in method.state_dict() if "frozen" in key or "features" in key]
    optimizers = make_optimizers(method, method.config.optimiser)
    training_step(method, optimizers, batch())
    assert not [key for key, x in method.named_parameters() if torch.equal(x, before[key])]
    assert all(torch.equal(x, frozen[key]) for key, x in method._frozen.module.state_dict().items())


def test_learning_the_projector_tells_locations_apart() -> None:
    method = make("lsesim", projector_width=16)
    images = batch()
    optimizers = make_optimizers(method, method.config.optimiser)
    losses_seen = [training_step(method, optimizers, images)["contrastive"].item() for _ in range(30)]
    assert losses_seen[-1] < 0.7 * losses_seen[0]


@pytest.mark.parametrize("name", NAMES)
def test_training_before_the_frozen_network_is_loaded_is_a_clear_error(name: str) -> None:
    method = METHODS[name](METHODS[name].Config(**tiny_settings(name)))
    with pytest.raises(BackendError, match=r"SeSim: its frozen vgg16_untrained is not loaded; call prepare\(\)"):
        method.forward_train(batch())


@pytest.mark.parametrize("name", NAMES)
def test_translating_needs_no_weights_of_the_frozen_network(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", lambda *_, **__: pytest.fail("nobody allowed that"))
    config = METHODS[name].Config(**{**tiny_settings(name), "feature_network": "vgg16"})
    method = METHODS[name](config)
    with pytest.raises(BackendError, match=r"VGG16.*not on this machine.*vgg16-397923af\.pth.*vgg16_weights"):
        method.prepare()
    description = {"channels": 3, "image_size": 32, "background": [255, 255, 255], "model": to_dict(config)}
    x = batch().source
    assert Translator(method, description).translate(x).shape == x.shape
    (features,) = method.encode(x, ["block2"])
    assert features.shape == (2, 16, 8, 8)
    with pytest.raises(KeyError):
        method.encode(x, ["block99"])


def test_a_local_file_is_what_the_loss_looks_through(tmp_path: Path) -> None:
    network = vgg.untrained(("relu3_1", "relu4_1", "relu4_3"), seed=3)
    torch.save(network.state_dict(), tmp_path / "vgg.pth")
    settings: dict[str, Any] = {"feature_network": "vgg16", "vgg16_weights": tmp_path / "vgg.pth"}
    method, x = make("fsesim", **settings), batch().source
    for found, expected in zip(method.features(x), network(x), strict=True):
        assert torch.equal(found, expected)
    assert losses(method, batch())["structure"] != losses(make("fsesim"), batch())["structure"]
    with pytest.raises(BackendError, match=r"none\.pth does not exist"):
        make("fsesim", feature_network="vgg16", vgg16_weights=tmp_path / "none.pth")


@pytest.mark.parametrize("name", NAMES)
def test_grey_images_are_seen_as_grey_and_other_channels_are_refused(name: str) -> None:
    method, images = make(name, channels=1), batch(channels=1)
    assert all(term.isfinite() for term in losses(method, images).values())
    coloured = images.source.repeat(1, 3, 1, 1)
    for found, expected in zip(method.features(images.source), method.features(coloured), strict=True):
        torch.testing.assert_close(found, expected)
    with pytest.raises(ConfigError, match=r"channels: .*1 or 3 channels, not 4"):
        make(name, channels=4)


def test_recolouring_is_a_function_of_the_seed_and_moves_no_pixel() -> None:
    images = batch(3)
    seeds = derive_seeds(images.seeds, -5)
    together = recoloured(images.source, seeds)
    for i in range(3):
        torch.testing.assert_close(together[i : i + 1], recoloured(images.source[i : i + 1], seeds[i : i + 1]))
    assert together.abs().max() <= 1
    assert (together - images.source).abs().mean(dim=(1, 2, 3)).min() > 0.02
    grey_image = images.source.mean(1, keepdim=True)
    assert recoloured(grey_image, seeds).shape == grey_image.shape
    for grey, made in zip(grey_image, recoloured(grey_image, seeds), strict=True):
        inside = made.abs() < 1  # brightness and contrast are affine where nothing is clipped
        slope = torch.corrcoef(torch.stack([grey[inside], made[inside]]))[0, 1]
        assert slope > 0.999


def test_recolouring_is_torchvisions_colour_jitter() -> None:
    """With the factors and the order that ColorJitter would draw given to it, the result is ColorJitter's."""
    image = batch(1).source
    orders = set()
    for seed in range(40):
        draws = location_draws(torch.tensor([seed]), 8)[0].tolist()
        order = sorted(range(4), key=draws[4:].__getitem__)
        orders.add(tuple(order))
        factors = [0.5 + draw for draw in draws[:3]] + [0.6 * draws[3] - 0.3]
        jitter = ColorJitter(0.5, 0.5, 0.5, 0.3)
        drawn = (torch.tensor(order), *factors)
        jitter.get_params = lambda *_, drawn=drawn: drawn  # type: ignore[method-assign]
        expected = jitter((image[0] + 1) / 2) * 2 - 1
        torch.testing.assert_close(recoloured(image, torch.tensor([seed]))[0], expected)
    assert len(orders) > 15
