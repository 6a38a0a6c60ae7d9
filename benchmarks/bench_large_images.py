"""Large images: time per megapixel and peak memory against size; stripes and naive tiles beside the whole image.

    python benchmarks/bench_large_images.py --out benchmarks/results/large_images_cpu2_202611 --threads 2
    python benchmarks/bench_large_images.py --out /tmp/small --sizes 256 512 --base-channels 16 --compare 512

Every size is a process of its own, so that peak memory is that size's. Below the bound an image is translated whole,
above it in stripes; ``--stripes-from`` forces stripes earlier. The comparison translates one scene whole, in stripes,
and in tiles that are translated each alone (``naive``: side by side; ``naive overlap``: with 32 more pixels around,
which are cut off), and measures against the whole-image result:

- error: largest and mean absolute difference, in [-1, 1];
- seam strength: mean absolute step across tile borders over the mean step between other neighbours (1: no seam);
- colour drift: standard deviation over the tiles of the tile's mean colour error, in levels of 255.

The scene is made of the embedded drawings on a gradient (MIT, see src/unpaired/data/fluent), the weights are a run's
(``--run``) or random ones whose last layer is scaled so that the output uses its range.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from PIL import Image, ImageDraw
from torch import Tensor

from unpaired.data import embedded_dataset, image_to_tensor
from unpaired.environment import environment
from unpaired.inference import Translator
from unpaired.inference.large_images import memory_needed, trace, translate_in_stripes, translate_within
from unpaired.methods import METHODS, Method

TILE, OVERLAP = 256, 32


def scene(side: int, seed: int = 0) -> Image.Image:
    """A square picture whose regions differ: a gradient from light to dark with drawings of all sizes on it."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 1, side, dtype=np.float32)
    light = 255 * (1 - 0.75 * ramp)[:, None, None] * (0.6 + 0.4 * ramp)[None, :, None]
    picture = Image.fromarray(np.broadcast_to(light * np.array([1, 0.95, 0.85]), (side, side, 3)).astype(np.uint8))
    files = embedded_dataset("fluent").test.source
    for number in range(60):
        size = int(side * rng.uniform(0.05, 0.25))
        drawing = Image.open(files[number * 3]).convert("RGBA").resize((size, size), Image.Resampling.BICUBIC)
        picture.paste(drawing, tuple(int(x) for x in rng.integers(-size // 3, side - size // 3, 2)), drawing)
    return picture


def method_of(run: Path | None, name: str, base_channels: int, blocks: int) -> Method:
    """A run's networks, or random ones."""
    if run is not None:
        return Translator.from_pretrained(run, device="cpu").method
    torch.manual_seed(0)
    known = METHODS[name].Config.__dataclass_fields__
    settings: dict[str, Any] = {"base_channels": base_channels, "blocks": blocks, "domains": ("a", "b", "c")}
    config = METHODS[name].Config(**{key: value for key, value in settings.items() if key in known})
    method = METHODS[name](config, channels=3).eval().requires_grad_(False)
    with torch.no_grad():
        for network in method.served_networks().values():
            head = getattr(network, "head", None)
            if isinstance(head, torch.nn.Conv2d):
                head.weight.mul_(0.15 / head.weight.std() / (head.in_channels / 8) ** 0.5 / 7)
    return method


def in_tiles(translate: Callable[[Tensor], Tensor], x_BCHW: Tensor, overlap: int) -> Tensor:
    """Each tile alone, with its own statistics."""
    made, side = torch.empty_like(x_BCHW), x_BCHW.shape[-1]
    for top in range(0, side, TILE):
        for left in range(0, side, TILE):
            y, x = max(0, top - overlap), max(0, left - overlap)
            tile = translate(x_BCHW[:, :, y : min(side, top + TILE + overlap), x : min(side, left + TILE + overlap)])
            made[:, :, top : top + TILE, left : left + TILE] = tile[:, :, top - y :, left - x :][:, :, :TILE, :TILE]
    return made


def seam_strength(image_CHW: Tensor) -> float:
    """Mean absolute step across tile borders over that between all other neighbours."""
    across, elsewhere = list[Tensor](), list[Tensor]()
    for dim in (1, 2):
        steps = image_CHW.diff(dim=dim).abs().mean(dim=(0, 3 - dim))
        border = torch.zeros(len(steps), dtype=torch.bool)
        border[TILE - 1 :: TILE] = True
        across.append(steps[border])
        elsewhere.append(steps[~border])
    return float(torch.cat(across).mean() / torch.cat(elsewhere).mean())


def colour_drift(image_CHW: Tensor, whole_CHW: Tensor) -> float:
    """Standard deviation over the tiles of their mean colour error, averaged over the channels, in levels of 255."""
    errors = (image_CHW - whole_CHW).unfold(1, TILE, TILE).unfold(2, TILE, TILE).mean((3, 4))
    return float(127.5 * errors.flatten(1).std(dim=1, correction=0).mean())


@torch.no_grad()
def compare(method: Method, side: int, memory_gib: float, picture: Path | None) -> dict[str, dict[str, float]]:
    """Stripes and tiles against the whole image, on a scene of ``side`` pixels (a multiple of the tile's)."""
    x = image_to_tensor(scene(side))[None]
    whole = method.translate(x)
    made = {
        "whole": whole,
        "stripes": translate_in_stripes(trace(method, 3), x, int(memory_gib * 2**30)),
        "naive": in_tiles(method.translate, x, 0),
        "naive overlap": in_tiles(method.translate, x, OVERLAP),
    }
    if picture is not None:
        shown = {"input": x, **made}
        write_picture({name: shown[name] for name in ("input", "whole", "stripes", "naive")}, picture)
    return {
        name: {
            "largest_error": float((each - whole).abs().max()),
            "mean_error": float((each - whole).abs().mean()),
            "seam_strength": seam_strength(each[0]),
            "colour_drift_255": colour_drift(each[0], whole[0]),
        }
        for name, each in made.items()
    }


def write_picture(images: dict[str, Tensor], path: Path, cell: int = 320) -> None:
    """The images side by side, with their names below."""
    sheet = Image.new("RGB", (len(images) * (cell + 8) - 8, cell + 20), "white")
    for number, (name, image) in enumerate(images.items()):
        pixels = ((image[0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
        shown = Image.fromarray(np.ascontiguousarray(pixels)).resize((cell, cell), Image.Resampling.BOX)
        sheet.paste(shown, (number * (cell + 8), 0))
        ImageDraw.Draw(sheet).text((number * (cell + 8) + 4, cell + 4), name, fill="black")
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def measure(method: Method, side: int, memory_gib: float, stripes: bool) -> dict[str, Any]:
    """One image of ``side`` pixels in this process: seconds, memory, and how it was translated."""
    import time

    x = torch.empty(1, 3, side, side)
    x[0] = image_to_tensor(scene(min(side, 1024)).resize((side, side)))
    told: list[float] = []
    bound = int(memory_gib * 2**30)
    before = _peak_gib()
    started, cpu_started = time.perf_counter(), time.process_time()
    last = [started]

    def progress(share: float) -> None:
        told.append(share)
        if time.perf_counter() - last[0] > 30:
            last[0] = time.perf_counter()
            left = (last[0] - started) * (1 - share) / max(share, 1e-9)
            print(f"{side} px: {100 * share:.1f} %, {left:.0f} s left", file=sys.stderr, flush=True)

    with torch.no_grad():
        if stripes:
            translate_in_stripes(trace(method, 3), x, bound, progress=progress)
        else:
            translate_within(method, x, bound, progress=progress)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu_started
    peak = _peak_gib()
    megapixels = side * side / 1e6
    return {
        "side": side, "how": "stripes" if told else "whole", "seconds": seconds, "cpu_seconds": cpu,
        "seconds_per_megapixel": seconds / megapixels, "peak_memory_gib": peak, "memory_before_gib": before,
        "whole_estimate_gib": memory_needed(trace(method, 3), 1, side, side) / 2**30,
    }  # fmt: skip


def _peak_gib() -> float:
    """Most memory that this process has had; not getrusage's, which is the parent's where that had more."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 2**20


def main(
    out: Path,
    sizes: tuple[int, ...] = (256, 512, 1024, 2048, 4096, 8192),
    memory_gib: float = 6.0,
    stripes_from: int = 100_000,
    compare_side: int = 1024,
    run: Path | None = None,
    method: str = "qs_attn",
    base_channels: int = 64,
    blocks: int = 9,
    threads: int = 2,
    picture: Path | None = None,
    one: int = 0,
) -> None:
    """Measure and write OUT.json and OUT.md.

    Args:
        out: Name of the result files, without suffix.
        sizes: Sides of the square images, in pixels.
        memory_gib: The bound.
        stripes_from: From this side on in stripes even where the whole would fit.
        compare_side: Side of the scene on which stripes and tiles are compared; a multiple of 256, 0 leaves it out.
        run: A trained run; unset takes random weights of ``method``.
        method: Which networks.
        base_channels: Their width.
        blocks: Their residual blocks.
        threads: CPU threads.
        picture: Where to write the comparison as a picture (PNG).
        one: Only this size, in this process; prints JSON.
    """
    torch.set_num_threads(threads)
    networks = method_of(run, method, base_channels, blocks)
    if one:
        print(json.dumps(measure(networks, one, memory_gib, one >= stripes_from)))
        return
    load, rows = [os.getloadavg()[0]], []
    options = [f"--memory-gib={memory_gib}", f"--stripes-from={stripes_from}", f"--method={method}"]
    options += [f"--base-channels={base_channels}", f"--blocks={blocks}", f"--threads={threads}"]
    options += [f"--run={run}"] if run is not None else []
    for side in sizes:
        command = [sys.executable, __file__, f"--out={out}", f"--one={side}", *options]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rows.append(json.loads(answer.stdout.splitlines()[-1]))
        load.append(os.getloadavg()[0])
        print(rows[-1], flush=True)
    compared = compare(networks, compare_side, memory_gib, picture) if compare_side else {}
    facts = {
        "memory_gib": memory_gib, "method": method, "run": None if run is None else run.name, "threads": threads,
        "base_channels": base_channels, "blocks": blocks, "compare_side": compare_side, "tile": TILE,
        "overlap": OVERLAP, "load_average": load, "environment": environment(),
    }  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps({**facts, "sizes": rows, "compared": compared}, indent=1) + "\n")
    out.with_suffix(".md").write_text(report(facts, rows, compared))


def report(facts: dict[str, Any], rows: list[dict[str, Any]], compared: dict[str, dict[str, float]]) -> str:
    """The results as a page."""
    networks = (
        facts["run"] or f"{facts['method']}, base {facts['base_channels']}, {facts['blocks']} blocks, random weights"
    )
    lines = [
        f"# Large images: {networks}",
        "",
        f"Bound {facts['memory_gib']} GiB, {facts['threads']} thread(s), load average at most "
        f"{max(facts['load_average']):.1f}; every size in a process of its own.",
        "",
        "| side | how | seconds | CPU s | s per megapixel | peak memory GiB | whole would take about, GiB |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {row['side']} | {row['how']} | {row['seconds']:.1f} | {row['cpu_seconds']:.1f} | "
            f"{row['seconds_per_megapixel']:.1f} | {row['peak_memory_gib']:.2f} | {row['whole_estimate_gib']:.1f} |"
            for row in rows
        ),
        "",
    ]
    if compared:
        lines += [
            f"A scene of {facts['compare_side']} pixels a side, tiles of {TILE}, against the whole image:",
            "",
            "| | largest error | mean error | seam strength | colour drift, levels |",
            "|---|---|---|---|---|",
            *(
                f"| {name} | {row['largest_error']:.1e} | {row['mean_error']:.1e} | {row['seam_strength']:.2f} | "
                f"{row['colour_drift_255']:.2f} |"
                for name, row in compared.items()
            ),
            "",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    tyro.cli(main)
