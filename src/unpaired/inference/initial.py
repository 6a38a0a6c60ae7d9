"""Weights of another run or of the Hub with which a run begins instead of random ones (``unpaired train --init``)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from unpaired.config import from_dict, settings, to_dict
from unpaired.engine.checkpoint import CheckpointFolder, load_weights
from unpaired.errors import CheckpointError, UserError
from unpaired.files import write_atomically
from unpaired.inference.hub import fetch, is_repo_id
from unpaired.inference.hub.bundle import check_digests, file_digest
from unpaired.inference.loading import check_weights, kind_of_weights, networks_of, read_description
from unpaired.methods import METHODS, Method

INITIAL = "initial.safetensors"
"""File of a run folder: the weights that the run began with, so that their source is not needed again."""


@settings
class InitialWeights:
    """What a run begins with. All but the first two are filled in when it does.

    Attributes:
        source: A run folder, the ``weights`` folder of one, or ``owner/name[@revision]`` on the Hub.
        weights: ``ema``, ``last`` or ``best``, of the networks that translate.
        sha256: Of the copy of all that was taken, 64 hex digits.
        revision: The commit on the Hub.
        checkpoint: Name of the checkpoint from which the other networks were taken.
        networks: All networks that were taken.
    """

    source: str
    weights: Literal["ema", "last", "best"] = "ema"
    sha256: str | None = None
    revision: str | None = None
    checkpoint: str | None = None
    networks: tuple[str, ...] = ()

    def is_asked_for_by(self, other: InitialWeights) -> bool:
        """Whether ``other``, from a command line, names the same source; its folder need not be there any more."""
        here = self.source == other.source or Path(self.source).absolute() == Path(other.source).absolute()
        return here and self.weights == other.weights and other.sha256 in (None, self.sha256)


def take_initial(
    asked: InitialWeights, method: Method, config: Any, channels: int, out: Path
) -> tuple[InitialWeights, str]:
    """Read the weights, check that they fit, and keep a copy of them in the run folder ``out``.

    Args:
        asked: Where from.
        method: The method that is to be trained; it is not changed.
        config: Its settings.
        channels: Of its networks' images.
        out: The run folder.

    Returns:
        What was taken, and the same in one line for the person.

    Raises:
        CheckpointError: Nothing usable lies there, it does not fit, or it is not what ``asked.sha256`` says.
        OSError: The copy cannot be written.
    """
    snapshot = fetch(asked.source, asked.weights, revision=asked.revision) if is_repo_id(asked.source) else None
    place = Path(asked.source) if snapshot is None else snapshot.folder
    is_run = (place / "weights" / "model.json").exists()
    folder = place / "weights" if is_run else place
    description = read_description(folder)
    kind = kind_of_weights(description, asked.weights)
    check_weights(folder, kind)
    check_digests(folder, kind)
    taken = load_weights(folder / f"{kind}.safetensors")
    _check_fit(asked.source, taken, method, config, channels, description)
    served = list(method.served_networks())
    words: list[str] = []
    others = [name for name in _trained_networks(method) if name not in served]
    found = CheckpointFolder(place / "checkpoints", description["method"]).newest(words.append) if is_run else None
    from_checkpoint = _fitting(found[1]["state"].get("method"), method, others) if found else {}
    also = [name for name in others if any(key.startswith(f"{name}.") for key in from_checkpoint)]
    checkpoint = found[0].name if found and also else None
    copy = safetensors_bytes({key: value.clone().contiguous() for key, value in (taken | from_checkpoint).items()})
    digest = hashlib.sha256(copy).hexdigest()
    if asked.sha256 not in (None, digest):
        raise CheckpointError(
            f"init: the weights in {asked.source} have changed: they are not those of this run (sha256 "
            f"{str(asked.sha256)[:12]}..., found {digest[:12]}...); restore them, or give them again with --init"
        )
    write_atomically(out / INITIAL, copy)
    fresh = [name for name in others if name not in also]
    line = f"Begins with {_listed(served)} ({kind}) of {asked.source}"
    line += f" and {_listed(also)} of its {checkpoint}" if also else ""
    line += f"; {_listed([*fresh, 'optimizers', 'average (EMA)'])} start fresh."
    record = replace(
        asked,
        sha256=digest,
        revision=snapshot.revision if snapshot else None,
        checkpoint=checkpoint,
        networks=(*served, *also),
    )
    return record, " ".join([*(f"{word}." for word in words), line])


def load_initial(method: Method, initial: InitialWeights, out: Path) -> None:
    """Put the copy that :func:`take_initial` made into ``method``.

    Raises:
        CheckpointError: It is missing or damaged.
    """
    path = out / INITIAL
    if not path.exists() or file_digest(path) != initial.sha256:
        raise CheckpointError(
            f"{path}, the weights that this run began with, is missing or damaged; restore it, or choose another --out"
        )
    tensors, state = load_weights(path), method.state_dict()
    for key, value in tensors.items():
        if key not in state or state[key].shape != value.shape:
            raise CheckpointError(f"{path} does not belong to this run: it holds '{key}'; choose another --out")
        state[key].copy_(value)


def _trained_networks(method: Method) -> list[str]:
    return list(dict.fromkeys(name for phase in method.phases for name in phase.networks))


def _fitting(state: Any, method: Method, networks: list[str]) -> dict[str, Tensor]:
    """Those of the networks whose names and shapes are all the same in a checkpoint's state, whole networks only."""
    taken: dict[str, Tensor] = {}
    entries = state.items() if isinstance(state, Mapping) else ()
    tensors = {str(key): value for key, value in entries if isinstance(value, Tensor)}
    for name in networks:
        prefix = f"{name}."
        wanted = {prefix + key: value.shape for key, value in getattr(method, name).state_dict().items()}
        there = {key: value for key, value in tensors.items() if key.startswith(prefix)}
        if {key: value.shape for key, value in there.items()} == wanted:
            taken |= there
    return taken


def _check_fit(
    source: str,
    tensors: Mapping[str, Tensor],
    method: Method,
    config: Any,
    channels: int,
    description: Mapping[str, Any],
) -> None:
    """Compare the networks that translate by names and shapes; where they differ, say which setting is to blame.

    Raises:
        CheckpointError: They differ.
    """
    there = {key: tuple(value.shape) for key, value in tensors.items()}
    here = _served_shapes(method)
    if there == here:
        return
    reasons = []
    if description["channels"] != channels:
        reasons.append(f"its images have {description['channels']} channels, those of this run {channels}")
    theirs = description["model"]
    alike = bool({key.split(".")[0] for key in there} & {key.split(".")[0] for key in here})
    for key, value in to_dict(config).items() if alike else ():  # no setting turns one set of networks into another
        if key in theirs and theirs[key] != value and _matters(method, config, key, theirs[key], channels):
            reasons.append(f"{key} is {theirs[key]} there and {value} here")
    missing = [name for name in method.served if name not in networks_of(description, method)]
    if missing and set(method.served) & set(networks_of(description, method)):
        reasons.append(f"it was imported without {_listed(missing)}")
    if not reasons and description["method"] in METHODS:
        names = [", ".join(sorted({key.split(".")[0] for key in shapes})) for shapes in (there, here)]
        other = METHODS[description["method"]].title
        reasons.append(f"the networks of {other} ({names[0]}) and of {method.title} ({names[1]}) are built differently")
    if not reasons:
        key = next(key for key in (*there, *here) if there.get(key) != here.get(key))
        reasons.append(f"'{key}' is {there.get(key, 'missing')} there and {here.get(key, 'missing')} here")
    raise CheckpointError(
        f"init: the weights of {source} do not fit this run: {'; '.join(reasons)}; change that, or give other weights"
    )


def _served_shapes(method: Method) -> dict[str, tuple[int, ...]]:
    return {
        f"{name}.{key}": tuple(value.shape)
        for name, network in method.served_networks().items()
        for key, value in network.named_parameters()
    }


def _matters(method: Method, config: Any, key: str, value: Any, channels: int) -> bool:
    """Whether a setting's other value would give the networks that translate other names or shapes."""
    try:
        changed: Any = from_dict(type(config), {**to_dict(config), key: value}, "model.json")
        with torch.device("meta"):
            other = type(method)(changed, channels=channels)
    except UserError:  # it does not go together with this run's other settings
        return True
    return _served_shapes(other) != _served_shapes(method)


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
