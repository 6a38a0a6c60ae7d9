"""Shared by the tests of large images: tiny methods with lively outputs, and plans that are forced on them."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from tiny import tiny_settings
from unpaired.inference.large_images.plan import make_plan, stripe_rows
from unpaired.inference.large_images.program import Program
from unpaired.inference.large_images.translate import Fit, run_plan
from unpaired.methods import METHODS, Method

TOLERANCE = 2e-5
"""Of outputs in [-1, 1], between two orders of summation in float32; up to 3e-6 was seen."""


def lively(name: str, *, channels: int = 3, **settings: object) -> Method:
    """A tiny untrained method whose translations use the range of [-1, 1]: at the usual start they are nearly gray.

    With ``generator="light"`` they are the image at the start.
    """
    torch.manual_seed(0)
    config = METHODS[name].Config(**{**tiny_settings(name), **settings})
    method = METHODS[name](config, channels=channels).eval().requires_grad_(False)
    for network in method.served_networks().values():
        for key, weight in network.named_parameters():
            if str(settings.get("generator")).startswith("light"):  # most of which norms take out again
                weight.copy_(torch.randn(weight.shape) * (0.03 if "head" in key else 0.2))
            elif name != "munit":  # whose weights are large enough
                weight.mul_(8.0 if "head" not in key else 3.0 if "cyclegan" in name else 30.0)
    return method


def picture(height: int, width: int, seed: int = 0, channels: int = 3) -> Tensor:
    """A smooth random image (1, C, H, W) in [-1, 1] whose halves differ: no stripe has the statistics of the whole."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, channels, 7, 7, generator=generator) * 2 - 1
    smooth = F.interpolate(coarse, (height, width), mode="bicubic").clamp(-1, 1)
    smooth[:, :, height // 2 :] *= 0.3
    return smooth


def in_stripes(program: Program, x: Tensor, folder: Path, *, memory: int, rows: int | None = None) -> Tensor:
    """Translate with so many bytes for stored maps and stripes of so many rows."""
    sizes = program.sizes(*x.shape[2:])
    plan = make_plan(program, sizes, memory, 2**40)
    assert plan is not None
    heights = [rows or stripe_rows(program, sizes, work, 2**30, 1) for work in plan.passes]
    return run_plan(program, Fit(plan, heights, memory), x, folder)
