"""Checkpoints: every object with state in one file, written atomically, the newest valid one found again.

Servable weights are kept apart (``export_weights``): safetensors beside a JSON description, no pickle.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load as load_safetensors_bytes
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from unpaired.errors import CheckpointError, TrainingError
from unpaired.files import contents, read_json, write_atomically
from unpaired.networks.weights import load_plain

_FOOTER = b"unpaired-sha256:"
_FORMAT = 1
_KINDS = {"method": str, "images_seen": int, "state": dict}
"""What a checkpoint holds."""


class Stateful(Protocol):
    """Anything whose state belongs in a checkpoint."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Any, /) -> Any: ...


class CheckpointFolder:
    """The checkpoints of one run: ``checkpoint_<images seen>.pt``, the last ``keep`` of them.

    Each file is what ``torch.save`` writes, followed by its SHA-256, so a truncated or altered file is recognised.

    Args:
        folder: Where the files lie; made when first written to.
        method: Name of the method; a checkpoint of another one is refused.
        keep: How many files stay.
    """

    def __init__(self, folder: Path, method: str, keep: int = 3) -> None:
        self.folder = folder
        self.method = method
        self.keep = keep

    def files(self) -> list[Path]:
        """Checkpoint files, oldest first."""
        found = {}
        for path in self.folder.glob("checkpoint_*.pt"):
            if match := re.fullmatch(r"checkpoint_(\d+)\.pt", path.name):
                found[int(match[1])] = path
        return [found[images] for images in sorted(found)]

    def save(self, objects: Mapping[str, Stateful], images_seen: int) -> Path:
        """Write one checkpoint and remove those beyond ``keep``.

        Raises:
            TrainingError: It cannot be written (a full disk, say); the earlier checkpoints are untouched.
        """
        buffer = io.BytesIO()
        state = {name: value.state_dict() for name, value in objects.items()}
        torch.save(
            {"format": _FORMAT, "method": self.method, "images_seen": images_seen, "state": state},
            buffer,
        )
        payload = buffer.getbuffer()
        path = self.folder / f"checkpoint_{images_seen:09d}.pt"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, payload, _FOOTER + hashlib.sha256(payload).digest())
        except OSError as error:
            kept = self.files()
            last = f"the last good checkpoint is {kept[-1]}" if kept else "there is no earlier checkpoint"
            raise TrainingError(
                f"cannot save the checkpoint {path}: {error.strerror or error}; {last}. "
                "Make room (or choose another --out), then run the same command to continue"
            ) from error
        files = self.files()
        passed_over = files[files.index(path) + 1 :]  # of a later image, so damaged: this run went on from before them
        for old in passed_over:
            old.unlink(missing_ok=True)
        self._remove_old(path)
        return path

    def _remove_old(self, newest: Path) -> None:
        """Remove the checkpoints beyond ``keep``, ``newest`` and those before it."""
        files = self.files()
        for old in files[: max(0, files.index(newest) + 1 - self.keep)]:
            old.unlink(missing_ok=True)

    def newest(self, report: Callable[[str], None]) -> tuple[Path, dict[str, Any]] | None:
        """The newest valid checkpoint and what it holds; None if there is none. Damaged ones go to ``report``."""
        for path in reversed(self.files()):
            try:
                return path, read_checkpoint(path)
            except CheckpointError as error:
                report(f"{error}; trying the one before it")
        return None

    def restore(
        self, objects: Mapping[str, Stateful], report: Callable[[str], None], optional: Collection[str] = ()
    ) -> int:
        """Load the newest valid checkpoint into ``objects``, and remove those beyond ``keep``.

        Damaged ones are reported, passed over and left where they lie.

        Args:
            objects: As they were saved.
            report: Called with one sentence per damaged checkpoint.
            optional: Names of objects that checkpoints of earlier versions lack; they stay as they are.

        Returns:
            Images seen at that checkpoint; 0 when there is none.

        Raises:
            CheckpointError: It belongs to another method, or every checkpoint is damaged.
        """
        if (found := self.newest(report)) is not None:
            path, payload = found
            if payload["method"] != self.method:
                raise CheckpointError(
                    f"{path} is a checkpoint of the method '{payload['method']}', not of '{self.method}': "
                    "choose another --out or the method it was made with"
                )
            for name, value in objects.items():
                if name in optional and name not in payload["state"]:
                    continue
                try:
                    _load(value, payload["state"][name])
                except Exception as error:  # torch raises many kinds at content that is not its own
                    first = str(error).strip().splitlines() or [type(error).__name__]
                    raise CheckpointError(
                        f"{path} does not fit this run: '{name}' cannot be loaded ({' '.join(first[:2])[:200]}); "
                        "choose another --out or the settings it was made with"
                    ) from error
            self._remove_old(path)  # left where a session was killed right after it had saved
            return payload["images_seen"]
        if self.files():
            raise CheckpointError(
                f"every checkpoint in {self.folder} is damaged; rename that folder to train from the start"
            )
        return 0


def _load(value: Stateful, state: Any) -> None:
    """Load a state; of an optimizer only what it has counted, since its options come from the settings of the run."""
    if not isinstance(value, torch.optim.Optimizer):
        value.load_state_dict(state)
        return
    parameters = [parameter for group in value.param_groups for parameter in group["params"]]
    for number, counted in state["state"].items():
        parameter = parameters[number]
        if counted.keys() != {"step", "exp_avg", "exp_avg_sq"}:
            raise ValueError(f"Adam's state holds {', '.join(map(str, counted))}, not step, exp_avg, exp_avg_sq")
        for name, tensor in counted.items():
            if tensor.shape != (() if name == "step" else parameter.shape) or not tensor.isfinite().all():
                raise ValueError(
                    f"{name} of a parameter {tuple(parameter.shape)} is {tuple(tensor.shape)}, or not finite"
                )
            if name != "exp_avg" and (tensor < 0).any():  # a number of steps, and a mean of squares
                raise ValueError(f"{name} of a parameter {tuple(parameter.shape)} is negative")
    own = value.state_dict()["param_groups"]
    if [group["params"] for group in state["param_groups"]] != [group["params"] for group in own]:
        raise ValueError("its parameters are not numbered as those of this run")
    value.load_state_dict({"state": state["state"], "param_groups": own})


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read and verify one checkpoint file.

    Raises:
        CheckpointError: It cannot be read, is truncated, or was altered.
    """
    try:
        raw = contents(path)
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error.strerror or error}") from error
    body, footer = raw[: -len(_FOOTER) - 32], raw[-len(_FOOTER) - 32 :]
    if footer != _FOOTER + hashlib.sha256(body).digest():
        raise CheckpointError(f"the checkpoint {path} is damaged (its checksum does not match)")
    try:
        payload = load_plain(io.BytesIO(body))
    except Exception as error:  # torch raises many kinds here, all of which mean the same to the reader
        raise CheckpointError(f"the checkpoint {path} cannot be decoded ({type(error).__name__})") from error
    if not isinstance(payload, dict) or payload.get("format") != _FORMAT:
        found = payload.get("format") if isinstance(payload, dict) else None
        raise CheckpointError(f"the checkpoint {path} has format {found}; this version reads {_FORMAT}")
    wrong = next((key for key, kind in _KINDS.items() if type(payload.get(key)) is not kind), None)
    if wrong is not None or payload["images_seen"] < 0:
        raise CheckpointError(
            f"the checkpoint {path} was not written by this package: its {wrong or 'images_seen'} is wrong"
        )
    return payload


def export_weights(
    folder: Path,
    description: Mapping[str, Any],
    weights: Mapping[str, Mapping[str, Tensor]],
    best: tuple[Mapping[str, Any], Mapping[str, Tensor]] | None = None,
) -> None:
    """Write servable weights as one unit: ``model.json``, written last, names the SHA-256 of all weights.

    Readers refuse a file that is not the one it names, so whatever interrupts this function, weights of two times are
    never mixed. Files that are right already are left alone.

    Args:
        folder: Where to; made if missing. ``best.safetensors`` and ``best.json`` that lie there stay.
        description: Method, settings, channels, versions: whatever ``Translator`` needs to rebuild the networks.
        weights: Name of the file (without suffix) -> tensors by name.
        best: How the best weights were chosen, and the weights, where they have changed.

    Raises:
        TrainingError: A file cannot be written.
    """
    digests = {}

    def write(name: str, content: bytes) -> None:
        if name.endswith(".safetensors"):
            digests[name] = hashlib.sha256(content).hexdigest()
        if not (folder / name).is_file() or (folder / name).read_bytes() != content:
            write_atomically(folder / name, content)

    try:
        folder.mkdir(parents=True, exist_ok=True)
        if best is not None:
            write("best.safetensors", _safetensors(best[1], best[0]))
            write("best.json", json.dumps({**best[0], "sha256": digests["best.safetensors"]}, indent=2).encode())
        elif (digest := _kept_best(folder)) is not None:
            digests["best.safetensors"] = digest
        for name, tensors in weights.items():
            write(f"{name}.safetensors", _safetensors(tensors, description))
        write("model.json", json.dumps({**description, "sha256": digests}, indent=2).encode())
    except OSError as error:
        raise TrainingError(f"cannot write the weights in {folder}: {error.strerror or error}; make room") from error


def _kept_best(folder: Path) -> str | None:
    """The SHA-256 of the best weights that lie there; None unless they are those that ``best.json`` describes."""
    try:
        digest = hashlib.sha256(contents(folder / "best.safetensors")).hexdigest()
        return digest if read_json(folder / "best.json").get("sha256", digest) == digest else None
    except (OSError, ValueError, AttributeError):
        return None


def _safetensors(tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> bytes:
    metadata = {key: str(description[key]) for key in ("images_seen",) if key in description}
    plain = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    return safetensors_bytes(plain, metadata or None)


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        CheckpointError: It is missing or damaged.
    """
    try:
        return load_safetensors_bytes(contents(path))
    except OSError as error:
        raise CheckpointError(f"cannot read the weights {path}: {error.strerror or error}") from error
    except Exception as error:  # safetensors' own error type differs between versions
        raise CheckpointError(
            f"the weights {path} are damaged ({error}); rename the folder {path.parent} and run the training command "
            "again to write them from the checkpoint"
        ) from error
