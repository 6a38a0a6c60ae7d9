"""``unpaired import``: the authors' published generators as run folders."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from unpaired.cli.options import parse
from unpaired.config import Side, settings


@settings
class Import:
    """Make a run folder from a generator published by the authors of CUT, CycleGAN, DCLGAN or a related method.

    All commands accept the folder like that of a run trained with this package; 'unpaired train --init' starts from it.
    Width, blocks and channels are read from the file. It has no averaged weights, so its only ones (last) are used.

    Example: unpaired import latest_net_G.pth --method cut --out runs/theirs
    """

    file: Positional[
        Annotated[
            Path,
            arg(
                metavar="FILE",
                help="A state dict, such as latest_net_G.pth or latest_net_G_A.pth; no code of it is run.",
            ),
        ]
    ]
    method: Annotated[str, arg(help="What it was trained with: cut, fastcut, qs_attn, cyclegan, dclgan, ...")]
    out: Annotated[Path, arg(help="The run folder to make.")]
    reverse: Annotated[
        Path | None,
        arg(
            help="The generator of the other direction, with methods that have one; unset takes *_net_G_B.pth beside "
            "*_net_G_A.pth (and A beside B)."
        ),
    ] = None
    image_size: Annotated[Side, arg(help="Side of the images that it was trained on, in pixels.")] = 256


def main(argv: Sequence[str]) -> int:
    """Read, check, write, say what was found."""
    options = parse(Import, argv, "unpaired import")
    from unpaired.importing import import_published

    description = import_published(
        options.file, options.method, options.out, reverse=options.reverse, image_size=options.image_size
    )
    model = description["model"]
    print(
        f"{options.method} with {description['channels']} channels, base_channels {model['base_channels']}, "
        f"{model['blocks']} blocks, for images of {description['image_size']} pixels"
    )
    for name, origin in description["imported"].items():
        print(f"  {name}: {origin['file']} (sha256 {origin['sha256'][:12]})")
    if list(description["imported"]) == ["generator_ab"]:
        print("  one direction only; --reverse FILE brings in the other")
    print(f"translate: unpaired translate {shlex.quote(str(options.out))} INPUT --out DIR")
    return 0
