"""``unpaired push``: a trained run to the Hugging Face Hub, with a model card."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from unpaired.cli.options import parse
from unpaired.errors import ConfigError
from unpaired.inference.hub import Licences, is_repo_id, upload


@dataclass(frozen=True)
class Push:
    """Upload a trained run to the Hugging Face Hub with a model card.

    The card shows the scores of the newest 'unpaired evaluate' with their protocol, data, licence and how to use the
    model. What you do not give is stated as unknown. All files are listed before any is sent, and no image is among
    them without --samples. Log in first: 'hf auth login'.

    Example: unpaired push runs/mine owner/zebras --licence cc-by-4.0
    """

    run: Positional[Annotated[Path, arg(metavar="RUN", help="A run folder (the --out of 'unpaired train').")]]
    name: Positional[Annotated[str, arg(metavar="NAME", help="owner/name on the Hub; made if it does not exist.")]]
    weights: tuple[Literal["ema", "last", "best"], ...] = ("ema",)
    """Which weights to upload: the averaged ones, those of the last step, those that scored best."""
    licence: str | None = None
    """Licence of the weights, an SPDX name such as cc-by-4.0."""
    samples: bool = False
    """Upload the last sample grid of training, too; it shows images of your training sets."""
    data_name: str | None = None
    """What the training images are, in words."""
    data_licence: str | None = None
    """Licence of the training images, in words."""
    private: bool = False
    """Make a new page private."""
    dry_run: Path | None = None
    """Upload nothing: write what would be uploaded into this new folder."""


def main(argv: Sequence[str]) -> int:
    """Upload, or write what would be uploaded."""
    options = parse(Push, argv, "unpaired push")
    if not is_repo_id(options.name) or "@" in options.name:
        raise ConfigError(f"name is '{options.name}': it must be owner/name, not a path on this machine")
    if not options.weights:
        raise ConfigError("weights: name at least one of ema, last and best")
    licences = Licences(options.licence, options.data_licence, options.data_name)
    from unpaired.inference import Translator

    translator = Translator.from_pretrained(options.run, weights=options.weights[0], device="cpu")
    with tempfile.TemporaryDirectory(prefix="unpaired-hub-") as temporary:
        bundle = translator.bundle(
            options.dry_run or Path(temporary) / "model",
            options.name,
            weights=options.weights,
            licences=licences,
            samples=options.samples,
        )
        files = sorted(bundle.folder.iterdir())
        for file in files:
            print(f"{file.stat().st_size / 1e6:9.2f} MB  {file.name}")
        if options.dry_run is not None:
            print(f"wrote {len(files)} files to {bundle.folder}; nothing was uploaded")
            return 0
        print(f"uploading {len(files)} files to {options.name} ...", flush=True)
        commit = upload(bundle, options.name, private=options.private)
    print(f"uploaded to https://huggingface.co/{options.name} (commit {commit[:12]})")
    print(f"use it: unpaired translate {options.name} INPUT --out DIR")
    return 0
