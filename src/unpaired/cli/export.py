"""``unpaired export``: a trained generator as one file that runs without this package."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from unpaired.cli.options import parse
from unpaired.errors import ConfigError
from unpaired.inference.hub import is_repo_id

_SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}


@dataclass(frozen=True)
class Export:
    """Write the generator of a run as one file that runs without this package.

    Batch size, height and width of the images are dynamic. Before the file is saved, its output is compared with
    PyTorch's at several sizes; its metadata describes input and output (docs/export.md).

    Example: unpaired export runs/mine --out generator.onnx
    """

    run: Positional[
        Annotated[
            str,
            arg(
                metavar="RUN",
                help="A run folder (the --out of 'unpaired train'), or owner/name[@revision] on the Hub.",
            ),
        ]
    ]
    format: Literal["onnx", "torch"] = "onnx"
    """onnx: one .onnx file. torch: a .pt2 program that torch loads by itself."""
    out: Path | None = None
    """The file; unset writes model.onnx or model.pt2 into the run folder."""
    weights: Literal["ema", "last", "best"] = "ema"
    """The averaged weights, those of the last step, or those that scored best on held-out images during training."""
    precision: Literal["float32", "float16"] = "float32"
    """float16: weights of half the size; images and sums stay float32 (onnx only)."""
    target: Literal["cpu", "any"] = "cpu"
    """Where an .onnx file is to be fast. cpu: wide convolutions as products of matrices (Winograd). any: plain
    convolutions, which GPUs, phones and browsers have faster code for."""
    reverse: bool = False
    """The generator from the target to the source domain, with methods that go both ways."""
    domain: str | None = None
    """The domain that the file translates into, with methods that know several; unset takes the second."""
    data_licence: str | None = None
    """Licence of the training images, stored in the file."""


def main(argv: Sequence[str]) -> int:
    """Load, write, compare, say what was written."""
    options = parse(Export, argv, "unpaired export", {"device": "an export is made on the CPU"})
    path = options.out
    if path is None:
        if is_repo_id(options.run):
            raise ConfigError(
                f"out: there is no folder {options.run} here; for a model of the Hub name the file with --out"
            )
        path = Path(options.run) / f"model{_SUFFIXES[options.format]}"
    elif path.suffix != _SUFFIXES[options.format]:
        raise ConfigError(f"out: {path} should end in {_SUFFIXES[options.format]}, or choose another --format")
    from unpaired.inference import Translator

    translator = Translator.from_pretrained(options.run, weights=options.weights, device="cpu")
    print("exporting and comparing with PyTorch ...", file=sys.stderr)
    done = translator.export(
        path,
        format=options.format,
        precision=options.precision,
        target=options.target,
        reverse=options.reverse,
        domain=options.domain,
        data_licence=options.data_licence,
    )
    size = path.stat().st_size / 1e6
    print(f"wrote {path} ({size:.1f} MB); largest difference from PyTorch {done.difference:.1e} (allowed: 1e-4)")
    if done.rounding:
        print(f"weights in float16 change a translation by up to {done.rounding:.1e} (of values in [-1, 1])")
    if options.format == "onnx":
        print(f"use it: unpaired translate {shlex.quote(str(path))} INPUT --out DIR")
    return 0
