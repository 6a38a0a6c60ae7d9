"""Large images: time per megapixel and peak memory against size; stripes and naive tiles beside the whole image.

    python benchmarks/bench_large_images.py --out benchmarks/results/large_images_cpu2_202611 --threads 2

Every size is a process of its own. Below the bound an image is translated whole, above it in stripes. The comparison
translates one scene whole, in stripes, and in tiles that are translated each alone (side by side, and with 32 more
pixels around which are cut off): largest and mean error in [-1, 1]; seam strength, the mean step across tile borders
over that between other neighbours (1: no seam); colour drift, the standard deviation over the tiles of their mean
error, in levels of 255. The scene is made of the embedded drawings on a gradient; the weights are a run's or random.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from PIL import Image
from torch import Tensor

from measure import Record, alone, in_turns, peak_gib, untrained
from unpaired.data import embedded_dataset, image_to_tensor, tensor_to_image
from unpaired.grids import image_grid
from unpaired.inference import Translator
from unpaired.inference.large_images import memory_needed, trace, translate_in_stripes, translate_within
from unpaired.methods import Method

TILE, OVERLAP = 256, 32


def scene(side: int) -> Image.Image:
    """A square picture whose regions differ: a gradient from light to dark with drawings of all sizes on it."""
    rng, ramp = np.random.default_rng(0), np.linspace(0, 1, side, dtype=np.float32)
    light = 255 * (1 - 0.75 * ramp)[:, None, None] * (0.6 + 0.4 * ramp)[None, :, None]
    picture = Image.fromarray(np.broadcast_to(light * np.array([1, 0.95, 0.85]), (side, side, 3)).astype(np.uint8))
    files = embedded_dataset("fluent").test.source
    for number in range(60):
        size = int(side * rng.uniform(0.05, 0.25))
        with Image.open(files[number * 3 % len(files)]) as file:
            drawing = file.convert("RGBA").resize((size, size), Image.Resampling.BICUBIC)
        picture.paste(drawing, tuple(int(x) for x in rng.integers(-size // 3, side - size // 3, 2)), drawing)
    return picture


def networks(run: Path | None, name: str, base_channels: int, blocks: int) -> Method:
    """A run's networks, or random ones whose last layer is scaled so that the output uses its range."""
    if run is not None:
        return Translator.from_pretrained(run, device="cpu").method
    method = untrained(name, base_channels=base_channels, blocks=blocks).eval().requires_grad_(False)
    for network in method.served_networks().values():
        head = getattr(network, "head", None)
        if isinstance(head, torch.nn.Conv2d):
            head.weight.mul_(0.15 / head.weight.std() / (head.in_channels / 8) ** 0.5 / 7)
    return method


def in_tiles(translate: Callable[[Tensor], Tensor], x_BCHW: Tensor, tile: int, overlap: int) -> Tensor:
    """Each tile alone, with its own statistics."""
    made, side = torch.empty_like(x_BCHW), x_BCHW.shape[-1]
    for top in range(0, side, tile):
        for left in range(0, side, tile):
            y, x = max(0, top - overlap), max(0, left - overlap)
            part = translate(x_BCHW[:, :, y : min(side, top + tile + overlap), x : min(side, left + tile + overlap)])
            made[:, :, top : top + tile, left : left + tile] = part[:, :, top - y :, left - x :][:, :, :tile, :tile]
    return made


def seam_strength(image_CHW: Tensor, tile: int) -> float:
    """Mean absolute step across tile borders over that between all other neighbours."""
    across, elsewhere = list[Tensor](), list[Tensor]()
    for dim in (1, 2):
        steps = image_CHW.diff(dim=dim).abs().mean(dim=(0, 3 - dim))
        border = torch.arange(len(steps)) % tile == tile - 1
        across.append(steps[border])
        elsewhere.append(steps[~border])
    return float(torch.cat(across).mean() / torch.cat(elsewhere).mean())


@torch.no_grad()
def compare(record: Record, method: Method, side: int, bound: int, tile: int) -> None:
    """Stripes and tiles against the whole image, and a picture of them."""
    x = image_to_tensor(scene(side))[None]
    whole = method.translate(x)
    made = {"whole": whole, "stripes": translate_in_stripes(trace(method, 3), x, bound),
            "naive": in_tiles(method.translate, x, tile, 0),
            "naive overlap": in_tiles(method.translate, x, tile, OVERLAP)}  # fmt: skip
    for name, each in made.items():
        error = each - whole
        drift = error[0].unfold(1, tile, tile).unfold(2, tile, tile).mean((3, 4)).flatten(1).std(1, correction=0)
        record.add(f"a scene of {side} px, tiles of {tile} px", how=name, largest_error=float(error.abs().max()),
                   mean_error=float(error.abs().mean()), seam_strength=seam_strength(each[0], tile),
                   colour_drift_255=float(127.5 * drift.mean()))  # fmt: skip
    shown = {"input": x, **made}
    grid = image_grid({name: [tensor_to_image(each[0].clamp(-1, 1))] for name, each in shown.items()}, cell=320)
    grid.quantize(256, dither=Image.Dither.NONE).save(record.out.with_suffix(".png"), optimize=True)


@torch.no_grad()
def measure(settings: tuple[Any, ...], side: int, memory_gib: float) -> dict[str, Any]:
    """One image of ``side`` pixels: seconds, memory, and how it was translated."""
    method, told, times = networks(*settings), list[float](), dict[str, Any]()
    x = torch.empty(1, 3, side, side)
    x[0] = image_to_tensor(scene(min(side, 1024)).resize((side, side)))

    def translate() -> None:
        work = {"": lambda: translate_within(method, x, int(memory_gib * 2**30), progress=told.append)}
        times.update(in_turns(work, 1, warm_up=0)[""].row())

    peak = peak_gib(translate)
    return {"side": side, "how": "stripes" if told else "whole", **times,
            "seconds_per_megapixel": times["seconds"] / side**2 * 1e6, "peak_gib": peak,
            "whole_estimate_gib": memory_needed(trace(method, 3), 1, side, side) / 2**30}  # fmt: skip


def main(
    out: Path, sizes: tuple[int, ...] = (256, 512, 1024, 2048, 4096, 8192), memory_gib: float = 6.0,
    compare_side: int = 1024, tile: int = TILE, run: Path | None = None, method: str = "qs_attn",
    base_channels: int = 64, blocks: int = 9, threads: int = 2,
) -> None:  # fmt: skip
    """Measure and write OUT.json, OUT.md and OUT.png.

    Args:
        out: Name of the result files, without suffix.
        sizes: Sides of the square images, in pixels.
        memory_gib: The bound.
        compare_side: Side of the scene on which stripes and tiles are compared, a multiple of the tile.
        tile: Side of a tile in pixels.
        run: A trained run; unset takes random weights of ``method``.
        method: Which networks.
        base_channels: Their width.
        blocks: Their residual blocks.
        threads: CPU threads.
    """
    torch.set_num_threads(threads)
    settings = (run, method, base_channels, blocks)
    record = Record(out, f"Large images: {run.name if run else f'{method}, base {base_channels}, random weights'}",
                    memory_gib=memory_gib, blocks=blocks)  # fmt: skip
    for side in sizes:
        record.add("sizes", **alone(measure, settings, side, memory_gib))
    with torch.no_grad():
        compare(record, networks(*settings), compare_side, int(memory_gib * 2**30), tile)


if __name__ == "__main__":
    tyro.cli(main)
