"""Every method of the table: what it computes, how often, and that nothing depends on how images are batched."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from methods.steps import batch, losses, make
from unpaired.engine.step import make_optimizers, training_step
from unpaired.methods import METHODS, image_seeds
from unpaired.methods.base import coin_flips, derive_seeds
from unpaired.methods.qs_attn import QSAttn, QSAttnConfig
from unpaired.networks import DEFAULT_TAPS
from unpaired.ops.winograd import direct_convolutions

LIGHT_TAPS = ("padded_input", "down1", "down2", "block1", "block3")
PROJECTED: dict[str, Any] = {"discriminator": "projected_patch", "head_channels": 4}
VARIANTS = [
    ("qs_attn", {}), ("qs_attn", {"attention": "local"}), ("qs_attn", {"attention": "local_global"}),
    ("qs_attn", {"routing": "self"}), ("qs_attn", {"routing": "none"}), ("qs_attn", {"significance": "max_mean"}),
    ("qs_attn", {"significance": "random"}), ("qs_attn", {"similarity": "cosine"}),
    ("qs_attn", {"similarity": "scaled"}),
    ("qs_attn", {"attention": "local", "formulation": "published"}),
    ("qs_attn", {"attention_taps": DEFAULT_TAPS}),
    ("qs_attn", {"attention_taps": DEFAULT_TAPS, "pool_attention_to": 8}),
    ("qs_attn", {"detach_attention": True}), ("qs_attn", {"flip_equivariance": True}),
    ("cut", {}), ("cut", {"identity_weight": 0.0}), ("fastcut", {}),
    ("sincut", {}), ("sincut", {"r1_weight": 0.0, "identity_weight": 0.0}),
    ("cyclegan", {}), ("cyclegan", {"identity_weight": 0.0}), ("cyclegan", {"cycle_weight": 0.0}),
    ("cyclegan_qs_attn", {}), ("cyclegan_qs_attn", {"cycle_weight": 0.0, "attention": "local"}),
    ("dclgan", {}), ("dclgan", {"identity_weight": 0.0, "negatives": "image", "image_pool": 50}),
    ("dclgan", {"gan_mode": "wgangp"}), ("cut", {"gan_mode": "nonsaturating", "spectral_norm": True}),
    ("cut", {"gan_mode": "wgangp", "negatives": "batch"}), ("munit", {"gan_mode": "wgangp", "spectral_norm": True}),
    ("munit", {"gan_mode": "hinge"}), ("enco", {"gan_mode": "hinge"}), ("santa", {"gan_mode": "wgangp"}),
    ("fsesim", {"gan_mode": "wgangp", "image_pool": 0}), ("multi_domain_qs_attn", {"gan_mode": "wgangp"}),
    ("dclgan_qs_attn", {}), ("dclgan_qs_attn", {"attention": "local_global", "detach_attention": True}),
    ("multi_domain_qs_attn", {}), ("multi_domain_qs_attn", {"identity_weight": 0.0, "attention": "local"}),
    ("multi_domain_qs_attn", {"taps": ("down1", "block3"), "attention_taps": ("block3",)}),
    ("munit", {}), ("munit", {"cycle_weight": 10.0}),
    ("fsesim", {}), ("fsesim", {"similarity": "cosine", "patch_size": 3}), ("fsesim", {"feature_network": "lite0"}),
    ("lsesim", {}), ("lsesim", {"patch_size": 3, "feature_layers": ("relu1_2", "relu3_3")}),
    ("monce", {}), ("monce", {"transport_temperature": 0.1, "negative_weight": 2.0, "identity_weight": 0.0}),
    ("hneg_src", {}), ("hneg_src", {"mining": "importance", "decoupled": False, "identity_weight": 0.0}),
    ("hneg_src", {"mining": "none", "relation_weight": 0.0}),
    ("enco", {}), ("enco", {"sampling": "random", "identity_weight": 0.0}), ("enco", {"taps": ("halved1", "block1")}),
    ("qs_attn", {"generator": "light", "taps": LIGHT_TAPS, "attention_taps": ("block1", "block3"), **PROJECTED}),
    ("fastcut", {"generator": "light", "taps": LIGHT_TAPS}), ("cut", {**PROJECTED, "gan_mode": "hinge"}),
    ("cut", {"discriminator": "projected", "head_channels": 4, "augment_noise": 0.0}),
    ("cyclegan", {"generator": "light_smooth"}), ("cyclegan", PROJECTED),
    ("dclgan_qs_attn", {"generator": "light", **PROJECTED}),
    ("cyclegan_qs_attn", {"discriminator": "projected", "head_channels": 4, "augment_shift": 0.0}),
    ("fsesim", {"generator": "light"}), ("lsesim", {"generator": "light", **PROJECTED}), ("monce", PROJECTED),
    ("hneg_src", {"generator": "light", **PROJECTED}),
    ("enco", {"generator": "light", "taps": ("stem", "block1", "block2"), **PROJECTED}),
    ("enco", {"discriminator": "projected", "head_channels": 4}), ("santa", PROJECTED),
    ("cut", {"identity_interval": 4}), ("multi_domain_qs_attn", {"identity_interval": 2}),
    ("santa", {}), ("santa", {"noise": 0.0, "blocks": 2}), ("santa", {"path_weight": 0.0, "latent_weight": 0.0}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changes"), VARIANTS)
def test_a_batch_gives_the_mean_of_its_images(name: str, changes: dict[str, Any]) -> None:
    known = METHODS[name].Config.__dataclass_fields__
    # Negatives of the whole batch depend on it, and a power iteration on the passes before.
    alone = {key: value for key, value in (("negatives", "image"), ("spectral_norm", False)) if key in known}
    method = make(name, **{**changes, **alone})
    for key, network in method.named_children():
        network.train(not key.startswith("discriminator"))  # heads of a projected one have a power iteration, too
    together = losses(method, batch(3))
    apart = [losses(method, batch(1, first=i)) for i in range(3)]
    for term, value in together.items():
        torch.testing.assert_close(value, torch.stack([x[term] for x in apart]).mean(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(("name", "changes"), VARIANTS)
def test_every_network_gets_a_gradient_in_its_own_phase(name: str, changes: dict[str, Any], mixed: bool) -> None:
    method = make(name, **changes)
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        outputs = method.forward_train(batch())
    for phase in method.phases:
        method.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss = torch.stack(list(phase.loss(outputs).values())).sum()
        loss.backward()
        for network in phase.networks:
            for key, parameter in getattr(method, network).named_parameters():
                if ".across_" in f".{key}":  # drawn once, never trained
                    assert not parameter.requires_grad
                    assert parameter.grad is None
                    continue
                assert parameter.grad is not None, f"{network}.{key}"
                assert parameter.grad.isfinite().all()


@pytest.mark.parametrize("name", METHODS)
def test_draws_depend_on_the_image_and_on_nothing_else(name: str) -> None:
    method = make(name)
    first = losses(method, batch())
    torch.manual_seed(123)
    second = losses(method, batch())
    assert all(torch.equal(first[term], second[term]) for term in first)


@pytest.mark.parametrize("name", METHODS)
def test_small_and_odd_maps_and_more_queries_than_locations(name: str) -> None:
    many = {"num_queries": 500} if "num_queries" in METHODS[name].Config.__dataclass_fields__ else {}
    method = make(name, **many)
    images = batch(1, size=36)
    assert all(term.isfinite() for term in losses(method, images).values())
    assert method.translate(images.source).shape == images.source.shape


def test_identity_and_contrastive_are_averaged_as_published_or_summed_as_in_equation_3() -> None:
    mean, total = (losses(make("cut", contrastive_reduction=r), batch()) for r in ("mean", "sum"))
    for term in ("contrastive", "identity"):
        torch.testing.assert_close(2 * mean[term], total[term])


def test_qs_attn_with_nothing_selected_and_nothing_routed_is_cut() -> None:
    plain = losses(make("cut"), batch())
    reduced = losses(make("qs_attn", significance="random", routing="none"), batch())
    assert all(torch.equal(plain[term], reduced[term]) for term in plain)


def test_pooling_before_attention_is_attention_of_the_pooled_maps() -> None:
    taps = ("down1", "block5")
    method = make("qs_attn", taps=taps, attention_taps=taps, pool_attention_to=4)
    assert isinstance(method, QSAttn)
    outputs = method.forward_train(batch(1))
    maps = [
        [F.adaptive_avg_pool2d(f, 4) for f in features]
        for features in (outputs.source_features, outputs.translated_features)
    ]
    plain = make("qs_attn", taps=taps, attention_taps=taps)
    assert isinstance(plain, QSAttn)
    first_pooled = dataclasses.replace(outputs, source_features=maps[0], translated_features=maps[1])
    expected = plain.contrastive_loss(first_pooled, plain.pairs(first_pooled))
    torch.testing.assert_close(method.contrastive_loss(outputs, method.pairs(outputs)), expected)


def test_gradient_through_the_attention_rows_can_be_stopped() -> None:
    gradients = []
    for detach in (False, True):
        method = make("qs_attn", detach_attention=detach)
        losses(method, batch())["contrastive"].backward()
        gradients.append(method.generator.get_parameter("stem.weight").grad.clone())
    assert not torch.allclose(gradients[0], gradients[1])


def test_flip_equivariance_compares_mirrored_translations_with_plain_keys() -> None:
    """For an equivariant generator the loss would be that of the plain input; ours is close, its seeds decide which."""
    flips = coin_flips(derive_seeds(image_seeds(0, range(64)), -1))
    assert 16 < sum(flips) < 48
    method = make("fastcut").double()
    images = batch(8)
    images = dataclasses.replace(images, source=images.source.double(), target=images.target.double())
    chosen = coin_flips(derive_seeds(images.seeds, -1))
    assert any(chosen)
    assert not all(chosen)
    outputs = method.forward_train(images)
    for i, flip in enumerate(chosen):
        seen = images.source[i : i + 1].flip(-1) if flip else images.source[i : i + 1]
        torch.testing.assert_close(outputs.translated[i : i + 1], method.translate(seen))
        plain = method.generator.encode(images.source[i : i + 1], method.config.taps)
        for tap, features in enumerate(plain):
            torch.testing.assert_close(outputs.source_features[tap][i : i + 1], features)


@pytest.mark.parametrize(("name", "changes"), VARIANTS)
def test_no_layer_sees_an_image_twice(name: str, changes: dict[str, Any]) -> None:
    """In a whole step, forward and all losses, no layer outside the discriminators gets the same input twice."""
    if name == "santa":  # a place on the path that is clamped to its end is, by chance, the translation again
        changes = {**changes, "shortest_interval": 0.01, "longest_interval": 0.01}
    method = make(name, **changes)
    seen: dict[str, list[bytes]] = {}

    def watch(key: str) -> Any:
        def look(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            for each in inputs[0].detach():
                seen.setdefault(key, []).append(hashlib.sha256(each.contiguous().numpy().tobytes()).digest())

        return look

    # LSeSim's projector learns before the generator does, and each looks through it as it then is.
    spared = ("discriminator", "projector.layers") if name == "lsesim" else ("discriminator",)
    for key, module in method.named_modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d) and not key.startswith(spared):
            module.register_forward_pre_hook(watch(key))
    losses(method, batch(2))
    assert seen
    for key, inputs in seen.items():
        assert len(inputs) == len(set(inputs)), key


@pytest.mark.slow
def test_flops_of_a_global_step_at_256_pixels() -> None:
    """Published schedule: 1,877 GFLOP (method.md, section 3)."""
    method = QSAttn(QSAttnConfig())
    images = batch(1, size=256)
    optimizers = make_optimizers(method, method.config.optimiser)
    with FlopCounterMode(display=False) as counter, direct_convolutions():
        training_step(method, optimizers, images)
    gflop = counter.get_total_flops() / 1e9
    assert 1_200 < gflop <= 1_340, f"{gflop:.0f} GFLOP"


GOLDEN: dict[str, dict[str, float]] = {
    "qs_attn": {"discriminator": 0.49971, "adversarial": 0.99994, "contrastive": 3.40208, "identity": 3.71241},
    "cut": {"discriminator": 0.49971, "adversarial": 0.99994, "contrastive": 3.44727, "identity": 3.75968},
    "fastcut": {"discriminator": 0.49971, "adversarial": 0.99995, "contrastive": 66.4829},
    "sincut": {
        "discriminator": 0.51005, "r1": 21.466, "adversarial": 0.72215, "contrastive": 10.6971, "identity": 13.3687,
        "pixel_identity": 0.50601,
    },
    "cyclegan": {
        "discriminator_a": 0.41756, "discriminator_b": 0.52897, "adversarial_ab": 1.07156, "adversarial_ba": 0.77946,
        "identity_ab": 2.58448, "identity_ba": 2.59835, "cycle_ab": 5.19906, "cycle_ba": 5.14892,
    },
    "cyclegan_qs_attn": {
        "discriminator_a": 0.41756, "discriminator_b": 0.52897, "adversarial_ab": 1.07156, "adversarial_ba": 0.77946,
        "identity_ab": 2.58448, "identity_ba": 2.59835, "cycle_ab": 5.19906, "cycle_ba": 5.14892,
        "contrastive_ab": 8.31339, "contrastive_ba": 6.88169,
    },
    "dclgan": {
        "discriminator_a": 0.99992, "discriminator_b": 0.99998, "adversarial_ab": 0.5, "adversarial_ba": 0.5,
        "identity_ab": 0.24932, "identity_ba": 0.25231, "contrastive_ab": 6.77667, "contrastive_ba": 6.66371,
    },
    "dclgan_qs_attn": {
        "discriminator_a": 0.99992, "discriminator_b": 0.99998, "adversarial_ab": 0.5, "adversarial_ba": 0.5,
        "identity_ab": 0.24932, "identity_ba": 0.25231, "contrastive_ab": 6.36406, "contrastive_ba": 6.53546,
    },
    "multi_domain_qs_attn": {
        "discriminator": 0.49995, "adversarial": 1.00003, "contrastive": 3.69576, "identity": 3.69816,
    },
    "munit": {
        "discriminator_a": 2.99986, "discriminator_b": 3.00042, "adversarial_ab": 2.99843, "adversarial_ba": 3.00033,
        "reconstruction_a": 6.77494, "reconstruction_b": 7.92753, "content_ab": 1.76316, "content_ba": 1.72515,
        "style_ab": 0.94820, "style_ba": 0.99359,
    },
    "fsesim": {"discriminator": 0.49971, "adversarial": 0.99994, "structure": 0.024184},
    "lsesim": {"contrastive": 5.32316, "discriminator": 0.49971, "adversarial": 0.99994, "structure": 1.91473},
    "monce": {"discriminator": 0.49971, "adversarial": 0.99994, "contrastive": 3.59033, "identity": 3.91043},
    "hneg_src": {
        "discriminator": 0.49971, "adversarial": 0.99994, "contrastive": 0.33257, "identity": 0.36542,
        "relation": 0.01766,
    },
    "enco": {"discriminator": 0.49971, "adversarial": 0.99994, "content": 2.06955, "identity": 2.49317},
    "santa": {
        "discriminator": 0.50007, "adversarial": 1.00001, "reconstruction": 2.52314, "identity": 2.49331,
        "latent": 0.019551, "path": 5.7386e-10,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_first_losses_are_golden(name: str) -> None:
    """Written down once; a change here changes everybody's training and belongs into the changelog."""
    found = {term: value.item() for term, value in losses(make(name), batch()).items()}
    assert found == pytest.approx(GOLDEN[name], rel=2e-3), found
