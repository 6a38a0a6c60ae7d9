"""The published settings of every method, written down once more, and the limits of each setting on both sides."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from unpaired.errors import ConfigError
from unpaired.methods import METHODS
from unpaired.methods.base import OptimiserConfig

INF, NAN = float("inf"), float("nan")

ADAM: dict[str, Any] = {
    "learning_rate": 2e-4, "beta1": 0.5, "beta2": 0.999, "weight_decay": 0.0, "epochs": 400, "schedule": "linear",
    "constant_fraction": 0.5,
}  # fmt: skip
GAME: dict[str, Any] = {
    "base_channels": 64, "discriminator_channels": None, "blocks": 9, "discriminator_layers": 3, "spectral_norm": False,
    "gan_mode": "lsgan", "gradient_penalty_weight": 10.0, "adversarial_weight": 1.0, "optimiser": ADAM,
    "generator": "resnet", "discriminator": "patch", "backbone": "lite0", "backbone_weights": None, "head_channels": 64,
    "augment_shift": 0.125, "augment_noise": 0.08, "batch_deviation": False, "patch_weight": 1.0,
}  # fmt: skip
CONTRAST: dict[str, Any] = {
    "taps": ("padded_input", "down1", "down2", "block1", "block5"), "num_queries": 256, "temperature": 0.07,
    "projector_width": 256, "contrastive_weight": 1.0, "negatives": "image",
}  # fmt: skip
CUT: dict[str, Any] = {
    **GAME, **CONTRAST, "identity_weight": 1.0, "identity_interval": 1, "contrastive_reduction": "mean",
    "image_pool": 0, "flip_equivariance": False,
}  # fmt: skip
SELECTION: dict[str, Any] = {
    "attention": "global", "attention_taps": ("block1", "block5"), "significance": "entropy", "routing": "cross",
    "similarity": "dot", "similarity_temperature": None, "pool_attention_to": None, "window": 7,
    "detach_attention": False, "backend": None, "formulation": "equations",
}  # fmt: skip
CYCLEGAN: dict[str, Any] = {
    **GAME, "image_pool": 50, "cycle_weight": 10.0, "identity_weight": 0.5, "optimiser": {**ADAM, "epochs": 200},
}  # fmt: skip
DCLGAN: dict[str, Any] = {
    **GAME, **CONTRAST, "gan_mode": "hinge", "image_pool": 0, "taps": ("down1", "down2", "block1", "block5"),
    "contrastive_weight": 2.0, "negatives": "batch", "identity_weight": 1.0, "projector_learning_rate": 1e-3,
    "projector_betas": (0.9, 0.999),
}  # fmt: skip
FSESIM: dict[str, Any] = {
    **GAME, "num_queries": 256, "patch_size": 64, "similarity": "dot", "feature_network": "vgg16", "feature_layers": (),
    "vgg16_weights": None, "download_weights": False, "image_pool": 50, "structure_weight": 10.0,
    "optimiser": {**ADAM, "learning_rate": 1e-4},
}  # fmt: skip
PUBLISHED: dict[str, dict[str, Any]] = {
    "qs_attn": {**CUT, **SELECTION},
    "cut": CUT,
    "fastcut": {
        **CUT, "contrastive_weight": 10.0, "identity_weight": 0.0, "flip_equivariance": True,
        "optimiser": {**ADAM, "epochs": 200, "constant_fraction": 0.75},
    },
    "sincut": {
        **CUT, "base_channels": 80, "discriminator_channels": 32, "blocks": 6, "discriminator_layers": 4,
        "gan_mode": "nonsaturating", "r1_weight": 1.0, "taps": ("input", "down", "block2"), "num_queries": 1,
        "negatives": "batch", "contrastive_weight": 4.0, "identity_weight": 4.0, "pixel_identity_weight": 1.0,
        "optimiser": {**ADAM, "learning_rate": 2e-3, "beta1": 0.0, "beta2": 0.99, "epochs": 16},
    },
    "cyclegan": CYCLEGAN,
    "cyclegan_qs_attn": {**CYCLEGAN, **CONTRAST, **SELECTION},
    "dclgan": DCLGAN,
    "dclgan_qs_attn": {**DCLGAN, **SELECTION},
    "multi_domain_qs_attn": {**CUT, **SELECTION, "domains": ()},
    "munit": {
        **GAME, "blocks": 4, "discriminator_layers": 4, "style_channels": 8, "perceptron_width": 256,
        "discriminator_scales": 3, "reconstruction_weight": 10.0, "content_weight": 1.0, "style_weight": 1.0,
        "cycle_weight": 0.0,
        "optimiser": {**ADAM, "learning_rate": 1e-4, "weight_decay": 1e-4, "epochs": 750, "schedule": "halving"},
    },
    "fsesim": FSESIM,
    "lsesim": {**FSESIM, "temperature": 0.07, "contrastive_weight": 1.0, "projector_width": None},
    "monce": {**CUT, "transport_temperature": 1.0, "negative_weight": 1.0, "transport_iterations": 50},
    "hneg_src": {
        **CUT, "contrastive_weight": 0.1, "identity_weight": 0.1, "relation_weight": 0.05, "mining": "similarity",
        "decoupled": True, "relation_temperature": 50.0, "final_relation_temperature": 10.0,
    },
    "enco": {
        **GAME, "taps": ("stem", "halved1", "block2"), "num_queries": 256, "sampling": "discriminator",
        "oversampling": 4, "random_share": 0.5, "projector_width": 256, "content_weight": 2.0, "identity_weight": 10.0,
        "identity_share": None, "discriminator_learning_rate_factor": 4.0,
        "optimiser": {**ADAM, "learning_rate": 5e-5, "epochs": 200},
    },
    "santa": {
        **GAME, "code_channels": 8, "noise": 1.0, "shortest_interval": 0.05, "longest_interval": 0.1,
        "reconstruction_weight": 5.0, "identity_weight": 5.0, "latent_weight": 0.01, "path_weight": 0.01,
    },
}  # fmt: skip
"""Method -> every setting. A change here changes what a name in the table means."""


@pytest.mark.parametrize("name", METHODS)
def test_defaults_are_the_published_settings(name: str) -> None:
    assert dataclasses.asdict(METHODS[name].Config()) == PUBLISHED[name]


COUNTS = (
    "base_channels", "discriminator_channels", "discriminator_layers", "num_queries", "patch_size", "oversampling",
    "style_channels", "perceptron_width", "discriminator_scales", "code_channels", "transport_iterations",
    "head_channels", "identity_interval",
)  # fmt: skip
NOT_NEGATIVE = (
    "adversarial_weight", "gradient_penalty_weight", "contrastive_weight", "identity_weight", "cycle_weight",
    "reconstruction_weight", "content_weight", "style_weight", "structure_weight", "relation_weight", "latent_weight",
    "path_weight", "r1_weight", "pixel_identity_weight", "noise",
    "patch_weight", "augment_noise",
)  # fmt: skip
ABOVE_ZERO = (
    "temperature", "relation_temperature", "final_relation_temperature", "negative_weight", "projector_learning_rate",
    "discriminator_learning_rate_factor",
)  # fmt: skip
LIMITS: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    **dict.fromkeys(COUNTS, ((1, 3), (0, -1))),
    **dict.fromkeys(NOT_NEGATIVE, ((0.0, 0.5), (-0.1, INF, NAN))),
    **dict.fromkeys(ABOVE_ZERO, ((1e-6, 50.0), (0.0, -1.0, INF, NAN))),
    "identity_share": ((0.0, 1.0, None), (-0.01, 1.01, NAN)),
    "random_share": ((0.0, 1.0), (-0.01, 1.01, NAN)),
    "transport_temperature": ((0.05, 2.0), (0.049, INF, NAN)),
    "image_pool": ((0, 1), (-1,)),
    "augment_shift": ((0.0, 0.5), (-0.01, 0.51, NAN)),
    "projector_betas": (((0.0, 0.0), (0.9, 0.9999)), ((0.9, 1.0), (1.0, 0.9), (-0.1, 0.9), (0.9, -0.1))),
    "window": ((1, 3), (0, -1, 2, 4)),
    "pool_attention_to": ((2, None), (1, 0)),
    "similarity_temperature": ((1e-3, None), (0.0, -1.0, NAN)),
    "backend": (("reference", "blocked", None), ("referance",)),
    "shortest_interval": ((0.01, 0.1), (0.0, 0.11, -0.1)),
    "longest_interval": ((0.05, 0.5), (0.04, 0.51)),
}  # fmt: skip
"""Setting -> values that it may have, and values that are refused with its name, for every method that has it."""
OWN_LIMITS: dict[tuple[str, str], tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    ("santa", "blocks"): ((2, 3), (1, 0)),
    ("enco", "blocks"): ((5, 6), (4, 0)),  # block2 faces block (blocks - 2), which has to come after it
    ("enco", "projector_width"): ((2, 4), (0, 1, 3, -2)),
    ("lsesim", "projector_width"): ((1, None), (0,)),
    ("multi_domain_qs_attn", "image_pool"): ((0,), (-1, 1)),
    ("multi_domain_qs_attn", "flip_equivariance"): ((False,), (True,)),
    ("multi_domain_qs_attn", "domains"): (((), ("a", "b")), (("a",), ("a", "b", "a"))),
    ("fsesim", "vgg16_weights"): ((Path("vgg16.pth"), None), ()),
}
CHECKED = sorted(
    {(method, name) for method, settings in PUBLISHED.items() for name in settings if name in LIMITS}
    | {(method, name) for method in PUBLISHED for name in ("blocks", "projector_width") if name in PUBLISHED[method]}
    | set(OWN_LIMITS)
)


@pytest.mark.parametrize(("method", "name"), CHECKED)
def test_settings_have_their_limits_on_both_sides(method: str, name: str) -> None:
    allowed, refused = OWN_LIMITS.get((method, name)) or LIMITS.get(name, ((1, 3), (0, -1)))
    for value in allowed:
        assert getattr(METHODS[method].Config(**{name: value}), name) == value
    for value in refused:
        with pytest.raises(ConfigError) as caught:
            METHODS[method].Config(**{name: value})
        said = "taps" if (method, name) == ("enco", "blocks") and value else name
        assert said in str(caught.value), value


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("qs_attn", {"window": 4}, "window must be odd"),
        ("qs_attn", {"attention_taps": ("block2",)}, "not among the taps"),
        ("cyclegan_qs_attn", {"attention_taps": ("block2",)}, "not among the taps"),
        ("qs_attn", {"backend": "blockd"}, "there is no 'blockd'.*did you mean 'blocked'"),
        ("cut", {"blocks": 3}, r"no 'block5'.*'blocks'"),
        ("dclgan_qs_attn", {"blocks": 3}, r"no 'block5'.*'blocks'"),
        ("multi_domain_qs_attn", {"blocks": 3, "domains": ("a", "b")}, r"no 'block5'.*'blocks'"),
        ("multi_domain_qs_attn", {"domains": ()}, "at least two names are needed"),
        ("multi_domain_qs_attn", {"domains": ("a", "b", "a")}, "must name at least two, each once, not a, b, a"),
        ("multi_domain_qs_attn", {"image_pool": 5}, "image_pool and flip_equivariance are not offered"),
        ("dclgan", {"projector_betas": (0.9, 1.0)}, "projector_betas.1 must be below 1"),
        ("monce", {"transport_temperature": 0.01}, "transport_temperature must be at least 0.05"),
        ("enco", {"taps": ("block5",)}, r"'block5' has no counterpart.*block1, block2, block3, block4"),
        ("enco", {"taps": ("down1",)}, "'down1' has no counterpart"),
        ("enco", {"taps": ("block2",), "blocks": 2}, "with blocks = 2 these have: stem"),
        ("enco", {"random_share": 1.5}, "random_share must be at most 1"),
        ("enco", {"projector_width": 3}, "projector_width must be a multiple of 2"),
        ("santa", {"blocks": 1}, "blocks must be at least 2"),
        ("santa", {"shortest_interval": 0.2}, "must be ordered"),
        ("fsesim", {"feature_layers": ("relu9_1",)}, "feature_layers: VGG16 has no 'relu9_1'"),
        ("fsesim", {"feature_network": "lite0", "feature_layers": ("relu3_1",)}, "EfficientNet-Lite0 has no 'relu3_1'"),
        ("fsesim", {"feature_network": "vgg16_untrained", "vgg16_weights": Path("x.pth")}, "vgg16_weights: .*has none"),
    ],
)
def test_impossible_settings_are_refused_in_words(name: str, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        METHODS[name](METHODS[name].Config(**{"base_channels": 2, **changes}))


def test_every_weight_is_checked() -> None:
    weights = {name for settings in PUBLISHED.values() for name in settings if name.endswith("_weight")}
    assert weights <= set(LIMITS)


def test_wgangp_needs_its_penalty() -> None:
    config = METHODS["cut"].Config
    assert config(gradient_penalty_weight=0.0).gan_mode == "lsgan"
    assert config(gan_mode="wgangp").gradient_penalty_weight == 10.0
    with pytest.raises(ConfigError, match="gradient_penalty_weight: gan_mode 'wgangp' diverges"):
        config(gan_mode="wgangp", gradient_penalty_weight=0.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"similarity": "scaled"}, "supports similarity .dot. without temperature only"),
        ({"similarity_temperature": 2.0}, "supports similarity .dot. without temperature only"),
        ({"significance": "max_mean"}, "not 'max_mean'"),
    ],
)
def test_the_published_formulation_knows_what_its_code_has(changes: dict[str, Any], words: str) -> None:
    config = METHODS["qs_attn"].Config
    assert config(formulation="published", significance="random").formulation == "published"
    assert config(**changes).formulation == "equations"
    with pytest.raises(ConfigError, match=words):
        config(formulation="published", **changes)


OWN_NETWORKS = {
    "sincut": ("SinCUT", ("generator", "discriminator")), "munit": ("MUNIT", ("generator", "discriminator")),
    "multi_domain_qs_attn": ("Multi-domain QS-Attn", ("generator", "discriminator")),
    "santa": ("SANTA", ("generator",)),
}  # fmt: skip
NETWORKS = {
    "generator": ("resnet", "light", "light_smooth"),
    "discriminator": ("patch", "projected", "projected_patch"),
}


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("name", METHODS)
def test_networks_are_chosen_by_name_where_the_method_has_none_of_its_own(name: str, kind: str) -> None:
    title, own = OWN_NETWORKS.get(name, ("", ()))
    usual, *others = NETWORKS[kind]
    assert getattr(METHODS[name].Config(**{kind: usual}), kind) == usual
    for value in others:
        if kind in own:
            with pytest.raises(
                ConfigError, match=f"{kind}: {title} has a {kind} of its own; leave the setting at {usual}"
            ):
                METHODS[name].Config(**{kind: value})
        else:
            assert getattr(METHODS[name].Config(**{kind: value}), kind) == value
    with pytest.raises(ConfigError, match=f"{kind} must be '{NETWORKS[kind][0]}', .*not 'unet'"):
        METHODS[name].Config(**{kind: "unet"})


@pytest.mark.parametrize("kind", ["projected", "projected_patch"])
def test_the_wasserstein_penalty_is_for_the_patch_discriminator_alone(kind: str) -> None:
    for mode in ("hinge", "nonsaturating", "lsgan"):
        assert METHODS["cut"].Config(discriminator=kind, gan_mode=mode).discriminator == kind
    with pytest.raises(ConfigError, match=f"gan_mode: 'wgangp' needs discriminator 'patch'.*'{kind}'"):
        METHODS["cut"].Config(discriminator=kind, gan_mode="wgangp")


def test_a_config_for_translation_needs_no_frozen_network() -> None:
    config = METHODS["cut"].Config(discriminator="projected", backbone="dino", base_channels=8)
    assert config.for_translation() == dataclasses.replace(config, discriminator="patch")


def test_a_file_of_weights_is_for_the_network_that_reads_it() -> None:
    config = METHODS["fsesim"].Config
    assert config(feature_network="vgg16_untrained").vgg16_weights is None
    with pytest.raises(ConfigError, match="vgg16_weights: feature_network 'lite0' has none"):
        config(feature_network="lite0", vgg16_weights=Path("vgg16.pth"))


@pytest.mark.parametrize(
    ("name", "allowed", "refused"),
    [
        ("learning_rate", (1e-9, 1.0), (0.0, -1.0, INF, NAN)),
        ("beta1", (0.0, 0.99), (1.0, -0.1, NAN)),
        ("beta2", (0.0, 0.9999), (1.0, -0.1, NAN)),
        ("weight_decay", (0.0, 0.1), (-1e-9, INF, NAN)),
        ("epochs", (1, 10), (0, -1)),
        ("constant_fraction", (0.0, 1.0), (-0.01, 1.01, NAN)),
    ],
)
def test_adam_has_its_limits(name: str, allowed: tuple[Any, ...], refused: tuple[Any, ...]) -> None:
    for value in allowed:
        assert getattr(OptimiserConfig(**{name: value}), name) == value
    for value in refused:
        with pytest.raises(ConfigError, match=name):
            OptimiserConfig(**{name: value})
