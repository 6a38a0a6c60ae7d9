"""Error of instance norm and ReLU in bf16 on the CPU against float64, with statistics in bf16 and in float32.

    python benchmarks/norm_precision.py --out benchmarks/results/norm_precision_202611

Relative errors (root mean square) of result and gradient on normal maps (2, 256, 64, 64), channels last, whose mean is
so many deviations; ours beside torch's batch norm without scale and shift, which keeps its statistics in bf16.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor

from measure import Record
from unpaired.networks.layers import instance_norm


def plain(x_BCHW: Tensor) -> Tensor:
    """Torch's batch norm of each image, without scale and shift."""
    return torch.cat([F.batch_norm(each, None, None, training=True) for each in x_BCHW.split(1)])


def main(out: Path, means: tuple[float, ...] = (0.0, 0.5, 3.0)) -> None:
    """Measure and write OUT.json and OUT.md."""
    record = Record(out, "Error of instance norm and ReLU in bf16 against float64")
    for mean in means:
        torch.manual_seed(0)
        x, gradient = torch.randn(2, 2, 256, 64, 64).bfloat16()
        x = (x + mean).contiguous(memory_format=torch.channels_last)
        gradient = gradient.contiguous(memory_format=torch.channels_last)

        def results(norm: Callable[[Tensor], Tensor], x: Tensor, gradient: Tensor) -> list[Tensor]:
            leaf = x.clone().requires_grad_()
            made = F.relu(norm(leaf))
            return [made.double(), torch.autograd.grad(made, leaf, gradient)[0].double()]

        exact = results(instance_norm, x.double(), gradient.double())
        for name, norm in (("statistics in bf16", plain), ("ours", instance_norm)):
            errors = [(a - b).norm() / b.norm() for a, b in zip(results(norm, x, gradient), exact, strict=True)]
            record.add("error", mean=mean, norm=name, result=errors[0].item(), gradient=errors[1].item())


if __name__ == "__main__":
    tyro.cli(main)
