"""The golden steps: this package's methods with the weights, images and draws of the authors' own steps.

``tests/golden`` holds the numbers (its README: how they were made). A step runs in float64 with the library's own
convolutions; random draws are replaced by the file's.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unpaired.engine.step import make_optimizers, training_step
from unpaired.methods import METHODS, ImageBatch, Method, image_seeds
from unpaired.ops.winograd import direct_convolutions

FOLDER = Path(__file__).parents[1] / "golden"


def _load_fills() -> Any:
    spec = importlib.util.spec_from_file_location("golden_fills", FOLDER / "fills.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fills = _load_fills()


def read(name: str) -> dict[str, Any]:
    """A golden file, by name without its ending."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


SMALL = {"base_channels": 8, "num_queries": 32}
CUT_NETWORKS = {"G": "generator", "D": "discriminator", "F": "projector"}
CUT_LOSSES = {"D": ("discriminator", 1.0), "G_GAN": ("adversarial", 1.0), "NCE": ("contrastive", 0.5),
              "NCE_Y": ("identity", 0.5)}  # fmt: skip
FASTCUT_LOSSES = {"D": ("discriminator", 1.0), "G_GAN": ("adversarial", 1.0), "NCE": ("contrastive", 1.0)}
TWO_WAY_NETWORKS = {"G_A": "generator_ab", "G_B": "generator_ba", "D_A": "discriminator_b", "D_B": "discriminator_a"}


@dataclasses.dataclass(frozen=True)
class Golden:
    """How a golden file is replayed.

    Attributes:
        file: Its name.
        method: A key of ``METHODS``.
        settings: Of the method.
        networks: The authors' network -> ours.
        losses: The authors' loss -> our term and its factor there.
        parameters: A network of ours -> its parameters in the authors' order, where that is not their own.
        tolerance: Relative, of a case whose projected features are divided by their length + 1e-7.
    """

    file: str
    method: str
    settings: dict[str, Any]
    networks: dict[str, str]
    losses: dict[str, tuple[str, float]]
    parameters: Callable[[Method, str], list[nn.Parameter]] | None = None
    tolerance: float = 1e-9


def _santa_parameters(method: Any, network: str) -> list[nn.Parameter]:
    if network == "discriminator":
        return list(method.discriminator.parameters())
    generator = method.generator
    resnet = generator.resnet
    encoder = [resnet.stem, resnet.down1, resnet.down2, *resnet.blocks]
    decoder = [part for block in generator.blocks for part in (block.conv1, block.norm1, block.conv2, block.norm2)]
    last = [resnet.up1, generator.norm1, resnet.up2, generator.norm2, resnet.head]
    return [p for part in (*encoder, *decoder, *last) for p in part.parameters()] + [generator.ends_2S]


def _munit_parameters(method: Any, network: str) -> list[nn.Parameter]:
    if network.startswith("discriminator"):
        return list(getattr(method, network).parameters())
    style, content, decoder = (
        getattr(method, f"{part}_{network[-1]}") for part in ("style_encoder", "content_encoder", "decoder")
    )
    convolutions = [decoder.blocks, decoder.norm1, decoder.up1, decoder.norm2, decoder.up2, decoder.head]
    return [p for part in (style, content, *convolutions, decoder.perceptron) for p in part.parameters()]


def enco_losses(identity: bool) -> dict[str, tuple[str, float]]:
    if not identity:
        return {"D": ("discriminator", 1.0), "G_GAN": ("adversarial", 1.0), "BYOL": ("content", 1.0)}
    return {"D": ("discriminator", 1.0), "G_GAN": ("adversarial", 1.0), "BYOL": ("content", 0.5),
            "BYOL_Y": ("identity", 0.5)}  # fmt: skip


QS = {**SMALL, "base_channels": 2, "discriminator_channels": 8}
PUBLISHED = {**QS, "formulation": "published"}
GOLDEN = {
    each.file: each
    for each in (
        Golden("cut", "cut", SMALL, CUT_NETWORKS, CUT_LOSSES),
        Golden("fastcut", "fastcut", SMALL, CUT_NETWORKS, FASTCUT_LOSSES),
        Golden("qs_attn_global", "qs_attn", QS, CUT_NETWORKS, CUT_LOSSES),
        Golden(
            "qs_attn_local_published", "qs_attn", {**PUBLISHED, "attention": "local"}, CUT_NETWORKS, CUT_LOSSES
        ),
        Golden(
            "qs_attn_local_global_published",
            "qs_attn",
            {**PUBLISHED, "attention": "local_global"},
            CUT_NETWORKS,
            CUT_LOSSES,
        ),
        Golden("monce", "monce", SMALL, CUT_NETWORKS, CUT_LOSSES),
        Golden(  # the authors report another value than the one whose gradient they take: it is compared by gradients
            "hneg_src",
            "hneg_src",
            SMALL,
            CUT_NETWORKS,
            {"D": ("discriminator", 1.0), "G_GAN": ("adversarial", 1.0), "SRC": ("relation", 1.0)},
            tolerance=1e-6,  # its authors divide by the length + 1e-7 once more before they take relations
        ),
        Golden("enco", "enco", SMALL, CUT_NETWORKS, {}),
        Golden(
            "santa",
            "santa",
            {"base_channels": 8, "noise": 1.7},
            {"G": "generator", "D": "discriminator"},
            {"D": ("discriminator", 1.0), "G_GAN": ("adversarial", 1.0), "G_rec": ("reconstruction", 5.0),
             "G_idt": ("identity", 5.0), "G_kl": ("latent", 0.01), "G_path": ("path", 0.01)},
            _santa_parameters,
        ),
        Golden(
            "fsesim",
            "fsesim",
            {**SMALL, "feature_network": "vgg16_untrained"},
            {"G": "generator", "D": "discriminator"},
            {"D": ("discriminator", 1.0), "G_GAN": ("adversarial", 1.0), "G_s": ("structure", 1.0)},
        ),
        Golden(
            "cyclegan",
            "cyclegan",
            {"base_channels": 8},
            TWO_WAY_NETWORKS,
            {"D_A": ("discriminator_b", 1.0), "D_B": ("discriminator_a", 1.0), "G_A": ("adversarial_ab", 1.0),
             "G_B": ("adversarial_ba", 1.0), "cycle_A": ("cycle_ab", 1.0), "cycle_B": ("cycle_ba", 1.0),
             "idt_A": ("identity_ab", 1.0), "idt_B": ("identity_ba", 1.0)},
        ),
        Golden(
            "dclgan",
            "dclgan",
            SMALL,
            {**TWO_WAY_NETWORKS, "F1": "projector_a", "F2": "projector_b"},
            {"D_A": ("discriminator_b", 1.0), "D_B": ("discriminator_a", 1.0), "G_A": ("adversarial_ab", 0.5),
             "G_B": ("adversarial_ba", 0.5), "NCE1": ("contrastive_ab", 0.5), "NCE2": ("contrastive_ba", 0.5),
             "idt_A": ("identity_ab", 0.5), "idt_B": ("identity_ba", 0.5)},
        ),
        Golden(
            "munit",
            "munit",
            {"base_channels": 8},
            {"gen_a": "generator_a", "gen_b": "generator_b", "dis_a": "discriminator_a", "dis_b": "discriminator_b"},
            {"dis_a": ("discriminator_a", 1.0), "dis_b": ("discriminator_b", 1.0),
             "gen_adv_a": ("adversarial_ba", 1.0), "gen_adv_b": ("adversarial_ab", 1.0),
             "gen_recon_x_a": ("reconstruction_a", 10.0), "gen_recon_x_b": ("reconstruction_b", 10.0),
             "gen_recon_c_a": ("content_ab", 1.0), "gen_recon_c_b": ("content_ba", 1.0),
             "gen_recon_s_a": ("style_ba", 1.0), "gen_recon_s_b": ("style_ab", 1.0)},
            _munit_parameters,
        ),
    )
}  # fmt: skip


class StandInForVGG(nn.Module):
    """The feature network of the golden FSeSim step (tests/golden/README.md)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 5, stride=4, padding=2)
        self.second = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.third = nn.Conv2d(32, 32, 3, padding=1)

    def forward(self, x_BCHW: Tensor) -> list[Tensor]:
        mean, deviation = (
            torch.tensor(each, dtype=torch.float64)[:, None, None]
            for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        )
        maps = [self.first(((x_BCHW + 1) / 2 - mean) / deviation).relu()]
        maps.append(self.second(maps[0]).relu())
        return [*maps, self.third(maps[1]).relu()]


def parameters_of(golden: Golden, method: Method, network: str) -> list[nn.Parameter]:
    """A network's parameters in the order of the authors' module."""
    if golden.parameters is not None:
        return golden.parameters(method, network)
    return list(getattr(method, network).parameters())


def build(golden: Golden, file: dict[str, Any], case: dict[str, Any]) -> Any:
    """The method of a case in float64, with the file's weights."""
    settings = dict(golden.settings)
    if "eps" in case:
        settings["transport_temperature"] = case["eps"]
    if golden.file == "fsesim":
        settings["patch_size"] = case["patch_size"]
    method: Any = METHODS[golden.method](METHODS[golden.method].Config(**settings)).double()
    if golden.file == "fsesim":
        network = StandInForVGG().double()
        fills.fill(network.parameters(), file["networks"]["features"]["fill_number"])
        method._frozen = network.requires_grad_(False)
    if case.get("normalise_epsilon") == 0.0 and golden.method != "dclgan":
        method.projector.epsilon = 0.0
    for name, ours in golden.networks.items():
        entry = file["networks"][name]
        found = parameters_of(golden, method, ours)
        theirs = [_without_ones(shape) for _, shape in entry["tensors"]]  # a linear layer may be a 1 x 1 convolution
        assert [_without_ones(p.shape) for p in found] == theirs, name
        fills.fill(found, entry["fill_number"], entry["gains"])
    return method


def _without_ones(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(side for side in shape if side != 1)


def images(number: int, case: dict[str, Any], progress: float = 0.0) -> ImageBatch:
    """The batch of step ``number``."""
    source, target = (fills.image(domain, number, case["batch"]) for domain in (0, 1))
    seeds = image_seeds(0, range(case["batch"]))
    return ImageBatch(source, target, seeds, progress=torch.tensor(progress, dtype=torch.float64))


def replace_draws(patch: pytest.MonkeyPatch, golden: Golden, step: dict[str, Any], number: int) -> None:
    """Let the random draws of a step be those of the file."""
    queue: list[Sequence[int]] = []

    def ranks(seeds: Tensor, positions: int) -> Tensor:
        order = queue.pop(0)
        keys = torch.arange(positions, dtype=torch.int64) + len(order)
        keys[torch.tensor(order)] = torch.arange(len(order))
        return keys.expand(len(seeds), -1)

    if golden.method == "dclgan":
        queue.extend(each for term in step["locations"].values() for each in term)
        patch.setattr("unpaired.ops.query_selection.location_keys", ranks)
    elif "locations" in step and isinstance(step["locations"][0], list) and isinstance(step["locations"][0][0], list):
        taps = zip(*step["locations"], strict=True)  # per random tap, the locations of X and those of Y

        def of_all_terms(seeds: Tensor, positions: int) -> Tensor:
            terms = next(taps)
            queue.extend(terms)
            return torch.cat([ranks(part, positions) for part in seeds.chunk(len(terms))])

        patch.setattr("unpaired.ops.query_selection.location_keys", of_all_terms)
        patch.setattr("unpaired.methods.cut.coin_flips", lambda seeds: [step.get("mirrored", False)] * len(seeds))
    elif golden.method == "enco":
        queue.extend(each[kind] for each in step["locations"] for kind in ("candidates", "by_chance"))
        patch.setattr("unpaired.methods.enco.location_draws", ranks)
    elif golden.method == "fsesim":
        queue.extend(step["locations"])
        patch.setattr("unpaired.methods.fsesim.location_draws", ranks)
    elif golden.method == "santa":
        later, earlier = (torch.full((1,), place, dtype=torch.float64) for place in step["places"])
        patch.setattr(METHODS["santa"], "near_positions", lambda self, seeds: (later, earlier))
        patch.setattr(
            "unpaired.methods.santa.normal_draws",
            lambda seeds, count: fills.hashed(61 + 3001 * number, len(seeds) * count).reshape(len(seeds), count),
        )
    elif golden.method == "munit":
        domains: Iterator[int] = iter((0, 1))
        patch.setattr(
            "unpaired.methods.munit.normal_draws",
            lambda seeds, count: 1.6 * fills.hashed(71 + 101 * number + 13 * next(domains), count)[None],
        )


@dataclasses.dataclass
class Taken:
    """What a step did: its loss terms, and by network of ours the gradients at the moment of the optimizer's step."""

    terms: dict[str, Tensor]
    gradients: dict[str, list[Tensor]]


def take_step(method: Any, golden: Golden, optimizers: dict[str, Any], batch: ImageBatch) -> Taken:
    """One training step of the engine."""
    gradients: dict[str, list[Tensor]] = {}

    def watch(optimizer: torch.optim.Optimizer) -> Any:
        def look(*_: Any) -> None:
            own = {id(p) for group in optimizer.param_groups for p in group["params"]}
            for network in golden.networks.values():
                found = parameters_of(golden, method, network)
                if id(found[0]) in own:
                    gradients[network] = [p.grad.clone() for p in found]

        return optimizer.register_step_pre_hook(look)

    hooks = [watch(optimizer) for optimizer in optimizers.values()]
    with direct_convolutions():
        terms = training_step(method, optimizers, batch)
    for hook in hooks:
        hook.remove()
    return Taken({name: term.detach() for name, term in terms.items()}, gradients)


def progress_of(file: dict[str, Any], step_or_case: dict[str, Any]) -> float:
    """The share of training done when the epoch of a case, counted from 1, begins."""
    settings = file["settings"]
    return (int(step_or_case["epoch"]) - 1) / (settings["n_epochs"] + settings["n_epochs_decay"])


__all__ = ["GOLDEN", "Golden", "build", "fills", "images", "make_optimizers", "parameters_of", "progress_of", "read",
           "replace_draws", "take_step"]  # fmt: skip
