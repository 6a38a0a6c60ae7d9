"""Do the scores mean what they say? Severity ladders, wrong-domain mixtures, a second network, random weights.

    python benchmarks/validate_metrics.py --images ../shared/data/horse2zebra/testB ../shared/data/horse2zebra/trainB \
        --wrong ../shared/data/horse2zebra/trainA --out benchmarks/results/metrics_horse2zebra_202611

One half of real images is degraded step by step and scored against the other half, which stays as it is. A score that
means something rises with every step. The same is done with a share of images of the wrong domain. ``random`` is
EfficientNet-Lite0 with random weights, the floor for any pretrained network. Writes OUT.md and OUT.json.
"""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from PIL import Image
from torch import Tensor

import mobilenet_judge
from unpaired.data import DataConfig, image_to_tensor, list_images, load_for_protocol, tensor_to_image
from unpaired.environment import environment
from unpaired.evaluation import ImageSets, ScoringNetworks, evaluate_images, evenly_spaced
from unpaired.evaluation.metrics.distances import kernel_distance
from unpaired.networks.pretrained import PRETRAINED


@dataclass(frozen=True)
class Options:
    """What to validate on."""

    images: tuple[Path, ...]
    """Folders of real images; their files are taken together and dealt out to the two halves in turns."""
    wrong: Path
    """Folder of images of the wrong domain."""
    out: Path
    """Prefix of the files written."""
    count: int = 100
    """Images in each half."""
    image_size: int = 256
    """Side in pixels."""
    threads: int = 2
    """CPU threads."""
    network: tuple[str, ...] = ()
    """Files of further networks as NAME=PATH."""


def blur(image: Tensor, sigma: float) -> Tensor:
    radius = int(np.ceil(3 * sigma))
    taps = torch.exp(-(torch.arange(-radius, radius + 1.0) ** 2) / (2 * sigma**2))
    taps = (taps / taps.sum()).view(1, 1, 1, -1).expand(3, 1, 1, -1)
    padded = F.pad(image[None], (radius,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, taps, groups=3), taps.transpose(2, 3), groups=3)[0]


def noise(image: Tensor, levels: float, generator: torch.Generator) -> Tensor:
    return image + torch.randn(image.shape, generator=generator) * levels / 127.5


def jpeg(image: Tensor, quality: float) -> Tensor:
    held = io.BytesIO()
    tensor_to_image(image).save(held, "JPEG", quality=int(quality))
    return image_to_tensor(Image.open(held).convert("RGB"))


def checkerboard(image: Tensor, levels: float) -> Tensor:
    """The artefact of strided transposed convolutions: every other pixel brighter, the others darker."""
    rows, columns = (torch.arange(side) for side in image.shape[1:])
    return image + (1.0 - 2.0 * ((rows[:, None] + columns) % 2)) * levels / 127.5


LADDERS: dict[str, tuple[Callable[..., Tensor], tuple[float, ...], str]] = {
    "blur": (blur, (0.5, 1.0, 2.0, 4.0), "sigma in pixels"),
    "noise": (noise, (5.0, 10.0, 20.0, 40.0), "standard deviation in levels of 255"),
    "JPEG": (jpeg, (80.0, 50.0, 25.0, 10.0), "quality"),
    "checkerboard": (checkerboard, (2.0, 4.0, 8.0, 16.0), "levels of 255"),
}


def eight_bits(images: Sequence[Tensor]) -> list[Tensor]:
    return [image_to_tensor(tensor_to_image(image)) for image in images]


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    ranks = [np.argsort(np.argsort(x)).astype(float) for x in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


def random_lite0() -> Callable[[Tensor], Tensor]:
    """EfficientNet-Lite0 before it saw an image: He initialisation, batch statistics that leave values as they are."""
    torch.manual_seed(0)
    network = PRETRAINED["lite0"].load(None)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, mode="fan_in")
            if module.bias is not None:
                torch.nn.init.zeros_(module.bias)
    return network.eval()


def main() -> None:
    """Degrade, score, write."""
    options = tyro.cli(Options)
    mobilenet_judge.register()
    torch.set_num_threads(options.threads)
    load, started = os.getloadavg(), time.perf_counter()
    data = DataConfig(image_size=options.image_size, load_size=options.image_size)
    paths = evenly_spaced([p for folder in options.images for p in list_images(folder)], 2 * options.count)
    half, rest = ([load_for_protocol(p, data) for p in paths[start::2]] for start in (0, 1))
    wrong = [load_for_protocol(p, data) for p in evenly_spaced(list_images(options.wrong), len(half))]
    networks = ScoringNetworks({name: Path(path) for name, _, path in (x.partition("=") for x in options.network)})
    names = ["kid_lite0_x1e3", "fd_lite0", "swd_progan_x1e3", "colour_shift_lab", "diversity_lite0", "structure_lite0"]
    if networks.at_hand("mobilenet"):
        names.insert(2, "kid_mobilenet_x1e3")
    calls = networks.callables(names)
    untrained = random_lite0()

    def untrained_features(images: Sequence[Tensor]) -> Tensor:
        with torch.no_grad():
            return torch.cat([untrained(torch.stack(list(images[i : i + 32]))) for i in range(0, len(images), 32)])

    known = {(name, "real"): torch.cat([calls[name](torch.stack(rest[i : i + 32])) for i in range(0, len(rest), 32)])
             for name in ("lite0", "mobilenet") if name in calls}  # fmt: skip
    untrained_rest = untrained_features(rest)
    generator = torch.Generator().manual_seed(0)
    conditions: dict[str, list[tuple[str, list[Tensor]]]] = {"none": [("0", half)]}
    for name, (degrade, steps, _) in LADDERS.items():
        extra = (generator,) if name == "noise" else ()
        conditions[name] = [
            (f"{step:g}", eight_bits([degrade(image, step, *extra) for image in half])) for step in steps
        ]
    conditions["wrong domain"] = [
        (f"{share} %", [*wrong[: share * len(half) // 100], *half[share * len(half) // 100 :]])
        for share in (25, 50, 75, 100)
    ]
    values: dict[str, dict[str, dict[str, float]]] = {}
    for ladder, steps in conditions.items():
        for step, images in steps:
            sets = ImageSets(images, rest, source=half, networks=calls, known=known, intervals=False)
            found = {name: score.value for name, score in evaluate_images(sets, names).items()}
            found["kid_random"] = (
                1e3 * kernel_distance(untrained_features(images), untrained_rest, resamples=0)[0].value
            )
            values.setdefault(ladder, {})[step] = found
            print(ladder, step, {name: round(value, 3) for name, value in found.items()}, flush=True)

    start = values["none"]["0"]
    columns = list(start)
    lines = [
        f"# Validation of the scores, {len(half)} against {len(rest)} images of {options.image_size} px",
        "",
        "Values rise from left to right where a score sees the degradation; **bold**: with every step.",
        "",
        "| degradation | steps | " + " | ".join(columns) + " |",
        "|---" * (len(columns) + 2) + "|",
    ]
    monotone: dict[str, dict[str, bool]] = {}
    for ladder, found in values.items():
        if ladder == "none":
            continue
        cells = []
        for name in columns:
            row = [start[name], *(step[name] for step in found.values())]
            signs = np.diff(row) < 0 if name == "diversity_lite0" else np.diff(row) > 0
            monotone.setdefault(ladder, {})[name] = bool(signs.all())
            text = " ".join(f"{value:.3g}" for value in row)
            cells.append(f"**{text}**" if signs.all() else text)
        lines.append(f"| {ladder} | 0 {' '.join(found)} | " + " | ".join(cells) + " |")
    ranked = [(ladder, step) for ladder, found in values.items() for step in found]
    agreement = {
        name: spearman([values[a][b]["kid_lite0_x1e3"] for a, b in ranked], [values[a][b][name] for a, b in ranked])
        for name in columns
        if name not in ("kid_lite0_x1e3", "diversity_lite0")
    }
    lines += [
        "",
        f"Spearman correlation with kid_lite0 over the {len(ranked)} conditions: "
        + ", ".join(f"{name} {value:.3f}" for name, value in agreement.items()),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".md").write_text(text)
    facts = {
        "values": values,
        "monotone": monotone,
        "spearman_with_kid_lite0": agreement,
        "networks": networks.used(),
        "options": {key: str(value) for key, value in vars(options).items()},
        "minutes": (time.perf_counter() - started) / 60,
        "load_average": load,
        "environment": environment(),
    }
    options.out.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
