"""``unpaired push``: a trained run to the Hugging Face Hub, with a model card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional, arg

from unpaired.errors import ConfigError
from unpaired.inference import Translator
from unpaired.inference.hub import Licences, is_repo_id


@dataclass(frozen=True)
class Push:
    """Upload a trained run to the Hugging Face Hub with a model card.

    The card shows the last samples of training, the scores of the newest 'unpaired evaluate' with their protocol, data,
    licence and how to use the model. What is not given is said to be unknown. Log in first: 'hf auth login'.
    """

    run: Positional[Annotated[Path, arg(help="A run folder (the --out of 'unpaired train').")]]
    name: Positional[Annotated[str, arg(help="owner/name on the Hub; made if it does not exist.")]]
    weights: tuple[Literal["ema", "last", "best"], ...] = ("ema",)
    """Which weights to upload: the averaged ones, those of the last step, those that scored best."""
    licence: str | None = None
    """Licence of the weights, an identifier of the Hub such as cc-by-4.0."""
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
    options = tyro.cli(Push, args=list(argv), prog="unpaired push")
    if not is_repo_id(options.name) or "@" in options.name:
        raise ConfigError(f"name is '{options.name}': it must be owner/name, and no path on this machine")
    if not options.weights:
        raise ConfigError("weights: name at least one of ema, last and best")
    translator = Translator.from_pretrained(options.run, weights=options.weights[0], device="cpu")
    licences = Licences(options.licence, options.data_licence, options.data_name)
    if options.dry_run is not None:
        bundle = translator.bundle(options.dry_run, options.name, weights=options.weights, licences=licences)
        print(f"wrote {len(list(bundle.folder.iterdir()))} files to {bundle.folder}; nothing was uploaded")
        return 0
    commit = translator.push_to_hub(options.name, weights=options.weights, licences=licences, private=options.private)
    print(f"uploaded to https://huggingface.co/{options.name} (commit {commit[:12]})")
    print(f"use it: unpaired translate {options.name} INPUT --out DIR")
    return 0
