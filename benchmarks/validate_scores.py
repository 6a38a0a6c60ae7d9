"""Do the scores mean what they say? Images are degraded step by step; a score that means something rises every time.

    python benchmarks/validate_scores.py --out benchmarks/results/scores_202612 --count 80

``distances``: one half of real photos (zebras) is degraded and scored against the other half, also with a share of
images of the wrong domain (horses); ``kid_random`` has random weights, the floor for any pretrained network.
``boxes``: photos of horses are degraded outside boxes around the animals, and scored against themselves by what must
not change; ``inside only`` degrades what may change alone, and has to give 0. ``shared``: the same by the regions that
both domains share, and how well these agree with the boxes (area under the ROC curve over pixels). ``paper``: the same
on the blank paper of the embedded drawings, what their true partners change there (the floor), and trained runs.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from PIL import Image
from scipy.stats import mannwhitneyu, spearmanr
from torch import Tensor

import mobilenet_judge
from measure import SHARED, Record, shown
from unpaired.data import DataConfig, embedded_dataset, image_to_tensor, list_images, load_for_protocol, pair_by_name
from unpaired.data import tensor_to_image as as_image
from unpaired.evaluation import ImageSets, ScoringNetworks, evaluate_images, evaluate_run, evenly_spaced
from unpaired.evaluation.masks import read_kept
from unpaired.evaluation.metrics.distances import kernel_distance
from unpaired.evaluation.metrics.shared_regions import at_pixels, shared_weights
from unpaired.evaluation.metrics.unchanged import blank_paper
from unpaired.networks.pretrained import PRETRAINED

BOXES = Path(__file__).parent / "horse2zebra_boxes.json"
NAMES = ["kid_lite0_x1e3", "fd_lite0", "swd_progan_x1e3", "colour_shift_lab", "diversity_lite0", "structure_lite0"]


def blur(image: Tensor, sigma: float) -> Tensor:
    radius = int(np.ceil(3 * sigma))
    taps = torch.exp(-(torch.arange(-radius, radius + 1.0) ** 2) / (2 * sigma**2))
    taps = (taps / taps.sum()).view(1, 1, 1, -1).expand(3, 1, 1, -1)
    padded = F.pad(image[None], (radius,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, taps, groups=3), taps.transpose(2, 3), groups=3)[0]


def noise(image: Tensor, levels: float) -> Tensor:
    seed = int(image.double().sum().abs() * 1e3)  # another one for every image
    return image + torch.randn(image.shape, generator=torch.Generator().manual_seed(seed)) * levels / 127.5


def jpeg(image: Tensor, quality: float) -> Tensor:
    held = io.BytesIO()
    as_image(image).save(held, "JPEG", quality=int(quality))
    return image_to_tensor(Image.open(held).convert("RGB"))


def checkerboard(image: Tensor, levels: float) -> Tensor:
    """The artefact of strided transposed convolutions: every other pixel brighter, the others darker."""
    rows, columns = (torch.arange(side) for side in image.shape[1:])
    return image + (1.0 - 2.0 * ((rows[:, None] + columns) % 2)) * levels / 127.5


def ripples(image: Tensor, levels: float) -> Tensor:
    """A wave of 6 px across the image, as random locations left them on sky and hills."""
    return image + levels / 127.5 * torch.sin(2 * torch.pi * torch.arange(float(image.shape[2])) / 6)


def cast(image: Tensor, levels: float) -> Tensor:
    """More red, less blue."""
    return image + levels / 127.5 * torch.tensor([1.0, 0.0, -1.0])[:, None, None]


def wash(image: Tensor, levels: float) -> Tensor:
    """Darker towards one side."""
    ramp = torch.linspace(0.0, 1.0, image.shape[1])[:, None]
    return image - 2 * levels / 127.5 * ramp * torch.tensor([0.0, 0.5, 1.0])[:, None, None]


Part = Literal["distances", "boxes", "shared", "paper"]
Ladders = Mapping[Callable[[Tensor, float], Tensor], tuple[float, ...]]
STRONG: Ladders = {blur: (0.5, 1, 2, 4), noise: (5, 10, 20, 40), jpeg: (80, 50, 25, 10), checkerboard: (2, 4, 8, 16)}
"""Function -> steps: sigma in pixels, levels of 255, or quality."""
WEAK: Ladders = {
    ripples: (2, 4, 8, 16), checkerboard: (2, 4, 8, 16), noise: (2, 5, 10, 20), blur: (0.5, 1, 2, 4),
    jpeg: (95, 80, 50, 20), cast: (2, 5, 10, 20), wash: (2, 5, 10, 20),
}  # fmt: skip


def degraded(images: Sequence[Tensor], change: Any, step: float, where: Sequence[Tensor] | None = None) -> list[Tensor]:
    """Images degraded in proportion to ``where`` (H, W) and rounded to 8 bits."""
    made = [change(image, step).clamp(-1, 1) for image in images]
    if where is not None:
        made = [x + (y - x) * w for x, y, w in zip(images, made, where, strict=True)]
    return [image_to_tensor(as_image(image)) for image in made]


def load(paths: Sequence[Path], side: int) -> list[Tensor]:
    data = DataConfig(image_size=side, load_size=side)
    return [load_for_protocol(path, data) for path in paths]


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


@torch.no_grad()
def distances(record: Record, count: int, side: int) -> None:
    """Distances between the halves of a set, and their rank correlation with KID (Lite0)."""
    root, networks = SHARED / "horse2zebra", ScoringNetworks()
    real = evenly_spaced([*list_images(root / "testB"), *list_images(root / "trainB")], 2 * count)
    half, rest = load(real[::2], side), load(real[1::2], side)
    wrong = load(evenly_spaced(list_images(root / "trainA"), len(half)), side)
    names = [*NAMES, *(["kid_mobilenet_x1e3"] if networks.at_hand("mobilenet") else [])]
    calls, untrained = networks.callables(names), random_lite0()

    def features(network: Callable[[Tensor], Tensor], images: Sequence[Tensor]) -> Tensor:
        return torch.cat([network(torch.stack([*images[i : i + 32]])) for i in range(0, len(images), 32)])

    known = {(name, "real"): features(calls[name], rest) for name in ("lite0", "mobilenet") if name in calls}
    floor = features(untrained, rest)

    def score(images: list[Tensor]) -> dict[str, float]:
        sets = ImageSets(images, rest, source=half, networks=calls, known=known, intervals=False)
        found = {name: each.value for name, each in evaluate_images(sets, names).items()}
        return found | {"kid_random": 1e3 * kernel_distance(features(untrained, images), floor, resamples=0)[0].value}

    ladders = {change.__name__: {f"{step:g}": degraded(half, change, step) for step in steps}
               for change, steps in STRONG.items()}  # fmt: skip
    cut = {share: share * len(half) // 100 for share in (25, 50, 75, 100)}
    ladders["wrong domain"] = {f"{share} %": [*wrong[:n], *half[n:]] for share, n in cut.items()}
    start, every = score(half), []
    for ladder, steps in ladders.items():
        found = [start, *(score(images) for images in steps.values())]
        every += found[1:]
        for name in start:
            values = [each[name] for each in found]
            sign = -1 if name == "diversity_lite0" else 1
            record.add("distances", ladder=ladder, steps=["0", *steps], score=name, values=values,
                       rises=all(sign * a < sign * b for a, b in pairwise(values)))  # fmt: skip
    for name in start:
        pair = [[each[key] for each in (start, *every)] for key in ("kid_lite0_x1e3", name)]
        record.add("rank correlation with KID (Lite0)", score=name, spearman=float(spearmanr(*pair).statistic))


def unchanged(record: Record, title: str, sets: ImageSets, kept: str, inside: Sequence[Tensor]) -> None:
    """Scores of what must not change: outside degraded step by step, and inside alone by the last step."""
    assert sets.source is not None
    outside = [1.0 - mask for mask in inside]
    for change, steps in WEAK.items():
        made = [degraded(sets.source, change, step, outside) for step in steps]
        made.append(degraded(sets.source, change, steps[-1], inside))
        found = [values(evaluate_images(replace(sets, fake=fake, _of_this={}), names_of(kept))) for fake in made]
        for part in ("colour", "detail"):
            row = [each[part] for each in found]
            record.add(title, ladder=change.__name__, part=part, steps=[*steps], values=row[:-1], inside_only=row[-1],
                       rises=all(a < b for a, b in pairwise(row[:-1])))  # fmt: skip


def names_of(kept: str) -> list[str]:
    return [f"unchanged_colour_{kept}_de", f"unchanged_detail_{kept}_de"]


def values(scores: Mapping[str, Any]) -> dict[str, float]:
    """Colour, detail and the two parts of detail of one set."""
    colour, detail = scores.values()
    return {"colour": colour.value, "detail": detail.value, **detail.per_level}


def photos(record: Record, count: int, side: int, parts: Sequence[str]) -> None:
    """Ladders outside the boxes and in shared regions, and how far the two agree."""
    paths = list_images(SHARED / "horse2zebra" / "testA")
    masks = read_kept(BOXES, paths, (side, side))
    boxed = evenly_spaced([index for index in range(len(paths)) if masks[index] is not None], count)
    every, kept = load(paths, side), [masks[index].float() for index in boxed]
    source, inside = [every[index] for index in boxed], [1.0 - mask for mask in kept]
    if "boxes" in parts:
        sets = ImageSets([], source=source, kept=kept, intervals=False)
        unchanged(record, "outside the boxes", sets, "masks", inside)
    if "shared" in parts:
        maps = ScoringNetworks().callables(["unchanged_colour_shared_de"])
        real = load(list_images(SHARED / "horse2zebra" / "testB"), side)
        weights = shared_weights(every, real, maps["lite0.last_maps"])
        at = torch.stack([at_pixels(weights[index], side, side) for index in boxed]).numpy()
        outside = torch.stack(kept).numpy() > 0.5
        product = outside.sum() * (~outside).sum()
        record.add("shared regions against the boxes", photos=len(boxed),
                   auc=float(mannwhitneyu(at[outside], at[~outside]).statistic / product),
                   weight_outside=float(at[outside].mean()), weight_inside=float(at[~outside].mean()))  # fmt: skip
        sets = ImageSets([], real, source=source, networks=maps, intervals=False)
        sets.of_inputs["shared"] = [weights[index] for index in boxed]
        unchanged(record, "shared regions, degraded outside the boxes", sets, "shared", inside)


def paper(record: Record, count: int, side: int, runs: Sequence[Path]) -> None:
    """Ladders on blank paper of the embedded drawings, their true partners, and what trained runs make of them."""
    files = embedded_dataset().test
    paths = evenly_spaced(files.source, count)
    pairs = dict(pair_by_name(files.source, files.target))
    source = load(paths, side)
    blank = [mask.float() for mask in blank_paper(torch.stack(source))]
    sets = ImageSets([], source=source, on_paper=True, intervals=False)
    truths = evaluate_images(replace(sets, fake=load([pairs[path] for path in paths], side)), names_of("paper"))
    record.add("blank paper", who="true partners", share=float(torch.stack(blank).mean()), **values(truths))
    for run in runs:
        found = evaluate_run(run, files, device="cpu", names=names_of("paper"), intervals=False).scores
        for row in ("ema", "last"):
            record.add("blank paper", who=f"{run.name}, {row}", **values(found[row]))
    unchanged(record, "on blank paper", sets, "paper", [1.0 - mask for mask in blank])


def main(
    out: Path, parts: tuple[Part, ...] = ("distances", "boxes", "shared", "paper"), count: int = 60,
    photo_size: int = 256, drawing_size: int = 64, runs: tuple[Path, ...] = (), threads: int = 1,
) -> None:  # fmt: skip
    """Degrade, score and write OUT.json and OUT.md.

    Args:
        out: Name of the result files, without suffix.
        parts: What to do.
        count: Images of each set.
        photo_size: Side of the photos in pixels.
        drawing_size: Side of the drawings in pixels.
        runs: Run folders on the embedded drawings.
        threads: CPU threads.
    """
    mobilenet_judge.register()
    torch.set_num_threads(threads)
    record = Record(out, "Do the scores mean what they say?", images=count, sizes=shown([photo_size, drawing_size]))
    if "distances" in parts:
        distances(record, count, photo_size)
    if {"boxes", "shared"} & {*parts}:
        photos(record, count, photo_size, parts)
    if "paper" in parts:
        paper(record, count, drawing_size, runs)


if __name__ == "__main__":
    tyro.cli(main)
