"""What ``bench_selection.py`` writes: the machine, the tables, and the picture of memory against map size."""

from __future__ import annotations

import io
import os
import platform
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont

from unpaired.ops.backends import blocked

TARGETS = {
    "global 64x64": "≥ 4x, ≥ 8x less memory",
    "local 7x7 64x64": "≥ 20x, ≥ 4x less memory",
    "local+global 64x64": "≥ 15x",
    "global 128x128": "≥ 6x, ≤ 150 MiB",
    "global, five taps of a 256 px input": "runs, ≤ 1024 MiB",
}
"""What each line is to reach."""
QUIET = 0.7
"""Load average at the start above which somebody else was at work."""
NOT_QUIET = "**Provisional: other programs were running. Memory and ratios at one thread stand; seconds do not.**"


def machine() -> dict[str, Any]:
    """The processor and what runs on it."""
    entries = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
    fields = {key.strip(): value.strip() for key, _, value in entries}
    return {
        "cpu": f"{fields.get('model name', platform.machine())}, family {fields.get('cpu family')}, "
        f"model {fields.get('model')}",
        "cores": os.cpu_count(),
        "avx512": "avx512f" in fields.get("flags", ""),
        "torch": torch.__version__,
        "torch_cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "tile_logits": blocked._TILE_LOGITS_CPU,
    }


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]


def _load(values: Any) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


def markdown(result: dict[str, Any]) -> str:
    """The page."""
    lines = [
        "# Query selection beside the published formulation, CPU",
        "",
        "Written by `benchmarks/bench_selection.py`, whose first lines say how time and memory are measured.",
        f"{result['cpu']}; {result['cores']} cores; AVX-512: {'yes' if result['avx512'] else 'no'}; torch "
        f"{result['torch']}; {result['date']}; load average {_load(result['load_average_at_start'])} at the start, "
        f"{_load(result['load_average_at_end'])} at the end ({result['minutes']:.1f} minutes).",
        *(["", NOT_QUIET] if result["load_average_at_start"][0] > QUIET else []),
        "",
        f"Forward and backward, source and target, N = {result['num_queries']}, C = 256 where not said otherwise. "
        "Seconds are medians; the speed-up is the median (lowest to highest) of the ratios of neighbours in time.",
        "",
        *_table(
            ["work", "threads", "ours, s", "published, s", "speed-up", "pairs", "to reach"],
            [
                [
                    each["work"],
                    str(each["threads"]),
                    f"{each['ours_seconds_median']:.3f}",
                    f"{each['published_seconds_median']:.3f}" if "speed_up" in each else "does not fit",
                    f"{each['speed_up']:.1f}x ({each['speed_up_range'][0]:.1f} to {each['speed_up_range'][1]:.1f})"
                    if "speed_up" in each
                    else "",
                    str(len(each["ours_seconds"])),
                    TARGETS[each["work"]],
                ]
                for each in result["times"]
            ],
        ),
        "Peak memory over the features, gradients included:",
        "",
    ]
    peaks: dict[str, dict[str, dict[str, Any]]] = {}
    for each in result["memory"]:
        peaks.setdefault(each["work"], {})[each["contender"]] = each
    rows = []
    for work, of in peaks.items():
        mine, theirs = of["ours"]["peak_mib"], of["published"]["peak_mib"] if "published" in of else None
        rows.append(
            [
                work,
                f"{of['ours']['features_mib']:.0f} MiB",
                f"{mine:.0f} MiB",
                f"{theirs:.0f} MiB" if theirs else "",
                f"{theirs / mine:.1f}x less" if theirs else "",
                TARGETS[work],
            ]
        )
    lines += _table(["work", "features", "ours", "published", "", "to reach"], rows)
    lines += _anatomy(result["anatomy"])
    if result["growth"]:
        lines += _growth(result)
    return "\n".join(lines).rstrip() + "\n"


def _anatomy(entries: list[dict[str, Any]]) -> list[str]:
    if not entries:
        return []
    rows = [
        [
            f"{each['side']}x{each['side']}",
            str(each["threads"]),
            f"{each['gemm_peak_gflops']:.0f}",
            f"{each['products_gflops']:.0f}",
            f"{each['selection_gflops']:.0f}",
            f"{each['selection_gflops'] / each['gemm_peak_gflops']:.0%}",
            f"{each['selection_gflop']:.1f} of {each['selection_gflop_without_symmetry']:.1f}",
            f"{each['products_seconds']:.3f} of {each['selection_seconds']:.3f}",
            f"{each['nanoseconds_per_logit_outside_products']:.2f}",
        ]
        for each in entries
    ]
    return [
        "Global selection alone (no gradient), GFLOP/s against the best matrix product of 2048 x 2048 in the same run:",
        "",
        *_table(
            [
                "map",
                "threads",
                "peak",
                "tile products",
                "selection",
                "of peak",
                "GFLOP computed, of the matrix's",
                "products' seconds, of all",
                "ns per logit besides",
            ],
            rows,
        ),
        "Why the gap: symmetry halves the products, not the rest: s_ij enters the sums of row i and of row j with",
        "another shift. Of what is outside the products about a third is `exp`, a fifth the search for the two largest",
        "logits; the rest is passes over the cache: shift, clamp, multiply, and sums in a fixed order, without which",
        "equal features would get unequal keys. One compiled kernel of all that took 40 % of the time in a trial, and",
        "half a minute to compile.",
        "",
    ]


def _growth(result: dict[str, Any]) -> list[str]:
    mine = [each for each in result["growth"] if each["contender"] == "ours"]
    theirs = {each["side"]: each for each in result["growth"] if each["contender"] == "published"}
    rows = [
        [
            f"{each['side']}x{each['side']}",
            f"{each['features_mib']:.0f} MiB",
            f"{each['peak_mib']:.0f} MiB",
            f"{each['peak_mib'] * 1024 / each['side'] ** 2:.1f} KiB",
            f"{each['seconds']:.2f} s",
            f"{theirs[each['side']]['peak_mib']:.0f} MiB" if each["side"] in theirs else "",
        ]
        for each in mine
    ]
    header = ["map", "features", "ours", "per position", "one run", "published"]
    first, last = mine[0], mine[-1]
    positions, peaks = (last["side"] / first["side"]) ** 2, last["peak_mib"] / first["peak_mib"]
    return [
        "Growth with the map, global, C = 256, peak memory over the features (one run each in a fresh process):",
        "",
        *_table(header, rows),
        f"{positions:.0f} times the positions take {peaks:.1f} times the memory: linear, besides 12 MiB of tiles.",
        "",
    ]


def growth_png(entries: list[dict[str, Any]]) -> bytes:
    """Peak memory against H*W: ours to the end, the published formulation until it leaves the paper."""
    width, height, left, right, top, bottom = 900, 560, 96, 50, 70, 80
    most_x = max(each["side"] for each in entries) ** 2
    smallest = min(each["side"] for each in entries)  # where the published formulation is to be seen
    most_y = 1.15 * max(e["peak_mib"] for e in entries if e["contender"] == "ours" or e["side"] == smallest)
    image = Image.new("RGB", (width, height), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    small, large = ImageFont.load_default(16), ImageFont.load_default(20)

    def at(side: int, mib: float) -> tuple[float, float]:
        return left + side**2 / most_x * (width - left - right), height - bottom - mib / most_y * (
            height - top - bottom
        )

    draw.text(
        (left, 20), "Peak memory over the features, global attention, C = 256, forward + backward", "black", large
    )
    step = next(s for s in (10, 20, 50, 100, 200, 500, 1000, 2000) if most_y / s <= 7)
    for mib in range(0, int(most_y) + 1, step):
        y = at(0, mib)[1]
        draw.line([(left, y), (width - right, y)], (225, 225, 225), 1)
        draw.text((left - 10, y), f"{mib} MiB", "black", small, anchor="rm")
    for side in sorted({each["side"] for each in entries}):
        x = at(side, 0)[0]
        draw.text((x, height - bottom + 10), f"{side}x{side}", "black", small, anchor="mt")
    draw.text(((left + width - right) / 2, height - 26), "positions H x W", "black", small, anchor="mm")
    for contender, colour in (("published", (224, 121, 31)), ("ours", (61, 133, 198))):
        points = [(each["side"], each["peak_mib"]) for each in entries if each["contender"] == contender]
        inside = [at(*point) for point in points if point[1] <= most_y]
        # The first point above the paper: the line goes to it and is cut.
        beyond = next((at(*point) for point in points if point[1] > most_y), None)
        if beyond is not None and inside:
            (x0, y0), (x1, y1) = inside[-1], beyond
            share = (y0 - top) / (y0 - y1)
            draw.line([inside[-1], (x0 + share * (x1 - x0), top)], colour, 3)
        draw.line(inside, colour, 3)
        for x, y in inside:
            draw.ellipse([x - 5, y - 5, x + 5, y + 5], fill=colour)
        last = inside[-1] if inside else at(*points[0])
        above = ""
        if beyond is not None:
            side, mib = points[len(inside)]
            above = f" (then {mib:.0f} MiB at {side} x {side})"
        where = (last[0] - 8, last[1] - 12) if contender == "ours" else (last[0] + 14, last[1])
        draw.text(where, contender + above, colour, small, anchor="rb" if contender == "ours" else "lm")
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return stream.getvalue()
