"""Exported generators on the CPU: ONNX Runtime against eager PyTorch, in turns in one process.

    python benchmarks/bench_export.py --out benchmarks/results/export_cpu1_202611 --threads 1

``eager, plain`` is PyTorch with its own convolutions, ``eager, ours`` what ``Translator`` runs (with Winograd
convolutions), ``onnx, cpu`` and ``onnx, any`` the two targets of ``unpaired export``, ``torch program`` the .pt2 file.
The share of the peak counts direct convolutions; Winograd needs fewer, so it may exceed 1.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor

from measure import Record, alone, gemm_tflops, gflop, in_turns, peak_gib, untrained
from unpaired.config import to_dict
from unpaired.data import PixelFormat
from unpaired.inference.export import OnnxGenerator, write_generator
from unpaired.ops.winograd import direct_convolutions

FILES: dict[str, dict[str, Any]] = {
    "onnx, cpu": {"target": "cpu"},
    "onnx, any": {"target": "any"},
    "onnx, cpu, float16": {"precision": "float16"},
    "torch program": {"format": "torch"},
}


def memory(path: Path, side: int) -> float:
    """Peak memory of one translation."""
    generator, x_BCHW = OnnxGenerator(path), torch.rand(1, 3, side, side) * 2 - 1
    return peak_gib(lambda: generator.translate(x_BCHW))


@torch.no_grad()
def main(out: Path, sizes: tuple[int, ...] = (256, 512), method: str = "qs_attn", base_channels: int = 64,
         blocks: int = 9, threads: int = 1, rounds: int = 7, memory_side: int = 1024) -> None:  # fmt: skip
    """Measure and write OUT.json and OUT.md.

    Args:
        out: Name of the result files, without suffix.
        sizes: Sides of the square images, in pixels.
        method: Which networks.
        base_channels: Their width.
        blocks: Their residual blocks.
        threads: CPU threads of PyTorch and of ONNX Runtime.
        rounds: Of all contenders.
        memory_side: Side of the image whose peak memory is measured.
    """
    torch.set_num_threads(threads)
    networks = untrained(method, base_channels=base_channels, blocks=blocks).eval().requires_grad_(False)
    record = Record(out, f"Export: {method}, base {base_channels}, {blocks} blocks", rounds=rounds)
    pixels = PixelFormat(3)
    description = {"method": method, "channels": 3, "image_size": 256, "background": [255] * 3, "model": {},
                   "source": to_dict(pixels), "target": to_dict(pixels)}  # fmt: skip

    def plain(x_BCHW: Tensor) -> Tensor:
        with direct_convolutions():
            return networks.translate(x_BCHW)

    runs = {"eager, plain": plain, "eager, ours": networks.translate}
    with tempfile.TemporaryDirectory() as folder:
        for label, options in FILES.items():
            path = Path(folder) / f"{label}{'.pt2' if 'torch' in label else '.onnx'}"
            done = write_generator(networks, description, (pixels, pixels), path, **options)
            peak = alone(memory, path, memory_side) if label in ("onnx, cpu", "onnx, any") else None
            record.add("files", file=label, megabytes=path.stat().st_size / 1e6, difference=done.difference,
                       rounding=done.rounding, **{f"peak_gib_at_{memory_side}_px": peak})  # fmt: skip
            if "float16" not in label:
                runs[label] = torch.export.load(path).module() if "torch" in label else OnnxGenerator(path).translate
        peak_tflops = gemm_tflops()
        for side in sizes:
            x = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(side)) * 2 - 1
            times = in_turns({name: partial(run, x) for name, run in runs.items()}, rounds)
            wanted, count = plain(x), gflop(partial(networks.translate, x))
            for name, each in times.items():
                record.add("time", side=side, contender=name, **each.row(),
                           faster_than_plain=each.ratio(times["eager, plain"]),
                           faster_than_ours=each.ratio(times["eager, ours"]),
                           share_of_peak=count / 1e3 / each.row()["seconds"] / peak_tflops,
                           difference=float((runs[name](x) - wanted).abs().max()))  # fmt: skip


if __name__ == "__main__":
    tyro.cli(main)
