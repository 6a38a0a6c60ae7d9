"""The folder that is uploaded: description, safe weights, digests, samples, scores, card."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unpaired.errors import CheckpointError, DataError
from unpaired.files import last_part, lies_within, open_file, read_json, without_folders, write_atomically
from unpaired.inference.hub.card import RECORDS, Licences, model_card, newest_record
from unpaired.inference.hub.fetch import DESCRIPTION, DIGESTS

_BLOCK = 2**22


@dataclass(frozen=True)
class Bundle:
    """A folder that is ready to be uploaded.

    Attributes:
        folder: Where it lies.
        weights: The kinds of weights in it.
        digests: Name of a file -> SHA-256, 64 hex digits.
    """

    folder: Path
    weights: tuple[str, ...]
    digests: dict[str, str]


def write_bundle(
    weights_folder: str | Path,
    out: str | Path,
    repo_id: str,
    description: dict[str, Any],
    *,
    title: str,
    citation: str,
    weights: Sequence[str] = ("ema",),
    licences: Licences | None = None,
    samples: bool = False,
) -> Bundle:
    """Write what :func:`unpaired.inference.hub.upload` uploads. The paths of this machine do not go along.

    Args:
        weights_folder: Holds ``model.json`` and safetensors files; the run's records lie in the folder above it.
        out: A new or empty folder.
        repo_id: ``owner/name``.
        description: What ``model.json`` holds.
        title: Name of the method.
        citation: Its paper.
        weights: Which to take along: ``ema``, ``last``, ``best``.
        licences: Of the model and of the data.
        samples: Whether the last sample grid goes along, which shows training images.

    Raises:
        CheckpointError: Weights are missing, a file leads out of the run folder, or ``out`` is not empty or cannot be
            written.
    """
    weights_folder, out = Path(weights_folder).absolute(), Path(out)
    run = weights_folder.parent if weights_folder.name == "weights" else weights_folder
    for name in weights:
        if not (weights_folder / f"{name}.safetensors").is_file():
            raise CheckpointError(f"{weights_folder} holds no {name} weights to upload")
    grid = max(run.glob("samples/*.png"), default=None) if samples else None
    names = (*(f"{name}.safetensors" for name in weights), DESCRIPTION, *(["best.json"] if "best" in weights else ()))
    for path in (*(weights_folder / name for name in names), run / RECORDS, *([grid] if grid else ())):
        _check_own(path, run)
    if grid is not None:
        _check_picture(grid)
    try:
        if out.exists() and any(out.iterdir()):
            raise CheckpointError(f"{out} is not empty; choose another folder")
        out.mkdir(parents=True, exist_ok=True)
        for name in weights:
            shutil.copyfile(weights_folder / f"{name}.safetensors", out / f"{name}.safetensors")
        if "best" in weights and (weights_folder / "best.json").is_file():
            with contextlib.suppress(ValueError):  # damaged
                best = _tidied(read_json(weights_folder / "best.json"))
                write_atomically(out / "best.json", json.dumps(best, indent=2).encode())
        write_atomically(out / DESCRIPTION, json.dumps(description, indent=2).encode())
        if grid is not None:
            shutil.copyfile(grid, out / "samples.png")
        record = newest_record(run)
        if record is not None:
            write_atomically(out / "scores.json", json.dumps(_without_paths(record), indent=1).encode())
        digests = {f"{name}.safetensors": file_digest(out / f"{name}.safetensors") for name in weights}
        write_atomically(out / DIGESTS, json.dumps({"sha256": digests}, indent=2).encode())
        card = model_card(
            repo_id, description, title=title, citation=citation, weights=weights, licences=licences or Licences(),
            record=record, samples=grid is not None,
        )  # fmt: skip
        write_atomically(out / "README.md", card.encode())
    except OSError as error:
        raise CheckpointError(
            f"cannot write the model to {out}: {error.strerror or error}; choose another folder"
        ) from error
    return Bundle(out, tuple(weights), digests)


def _check_own(path: Path, run: Path) -> None:
    """Raise ``CheckpointError`` where a file is there and is none of the run's own: who made the run may have linked it
    to any file of this machine."""
    owner = run.parents[1] if run.parent.name == "snapshots" else run  # the Hub's cache links to files beside these
    if os.path.lexists(path) and not lies_within(path, owner):
        raise CheckpointError(
            f"{path} is no file of this run (a link that leads out of its folder?); put a copy in its place, or move "
            "it elsewhere"
        )


def _check_picture(path: Path) -> None:
    from unpaired.data.reading import describe  # slow: it needs PyTorch

    try:
        describe(path)
    except DataError as error:
        raise CheckpointError(f"the sample grid cannot be uploaded: {error}") from error


def file_digest(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits."""
    digest = hashlib.sha256()
    with open_file(path) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def check_digests(folder: Path, name: str) -> str:
    """Compare a weights file with ``model.json`` and ``digests.json``, as far as they name its digest.

    Returns:
        Its SHA-256.

    Raises:
        CheckpointError: It is another file than the one that was exported or uploaded, or cannot be read.
    """
    path = folder / f"{name}.safetensors"
    for pause in (0.1, 0.3, 1.0, 3.0, None):
        try:
            found = file_digest(path)
            named = read_json(folder / DESCRIPTION).get("sha256", {path.name: found})
            fits = named.get(path.name) == found
        except OSError as error:
            raise CheckpointError(f"cannot read the weights {path}: {error.strerror or error}") from error
        except (ValueError, AttributeError) as error:
            raise CheckpointError(f"{folder / DESCRIPTION} cannot be read ({error})") from error
        if fits:
            break
        if pause is None:
            raise CheckpointError(
                f"{path} is not the file that {DESCRIPTION} describes: the training that wrote it was killed between "
                "the two, or one of them was replaced; run the same training command again, which exports both"
            )
        time.sleep(pause)  # a training may be writing them at this moment
    try:
        expected = read_json(folder / DIGESTS)["sha256"].get(f"{name}.safetensors")
    except FileNotFoundError:
        return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder / DIGESTS} cannot be read ({error}); fetch the model again") from error
    if expected != found:
        raise CheckpointError(
            f"{folder / f'{name}.safetensors'} is not the file that {DIGESTS} describes (damaged, or replaced); "
            "fetch the model again"
        )
    return found


def _without_paths(record: dict[str, Any]) -> dict[str, Any]:
    """The record with the name of the data set only, and nothing about the machine or its folders."""
    data = {**record.get("data", {}), "name": last_part(str(record.get("data", {}).get("name", "")))}
    return _tidied({key: value for key, value in record.items() if key != "environment"} | {"data": data})


def _tidied(record: dict[str, Any]) -> dict[str, Any]:
    """What was read from JSON without folders of this machine."""
    remove = without_folders()

    def tidied(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: tidied(each) for key, each in value.items()}
        if isinstance(value, list):
            return [tidied(each) for each in value]
        return remove(value) if isinstance(value, str) else value

    return {key: tidied(each) for key, each in record.items()}
