"""Reading the folder of a trained model, and choosing the device that it runs on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from unpaired.config import CountOrZero, Side, from_dict, settings
from unpaired.data import Formats, PixelFormat
from unpaired.data.sizes import Byte, Channels
from unpaired.errors import CheckpointError, ConfigError, PluginError, nearest
from unpaired.files import read_json
from unpaired.inference.hub import Snapshot
from unpaired.methods import METHODS, Method
from unpaired.plugins import check_plugins

_AGAIN = "copy the weights folder of the run again"
_PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")


@settings
class _Described:
    """What of model.json loading depends on."""

    method: str
    model: dict[str, Any]
    channels: Channels
    image_size: Side | tuple[Side, Side]
    background: tuple[Byte, Byte, Byte]
    source: PixelFormat | None = None
    target: PixelFormat | None = None
    imported: dict[str, dict[str, str]] | None = None
    sha256: dict[str, str] | None = None
    images_seen: CountOrZero = 0


@dataclass(frozen=True)
class Origin:
    """Where weights came from.

    Attributes:
        folder: Holds ``model.json`` and the weights.
        weights: ``ema``, ``last`` or ``best``.
        sha256: Of the file, 64 hex digits.
        repo_id: ``owner/name`` where it came from the Hub.
        revision: The commit on the Hub, 40 hex digits.
    """

    folder: Path
    weights: str
    sha256: str
    repo_id: str | None = None
    revision: str | None = None


def read_description(folder: Path) -> dict[str, Any]:
    path = folder / "model.json"
    if not path.exists():
        missing = "no such folder" if not folder.exists() else "it has no weights/model.json and no model.json"
        raise CheckpointError(f"{folder} is not a trained run: {missing}; give the --out folder of 'unpaired train'")
    try:
        description = read_json(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); {_AGAIN}") from error
    if not isinstance(description, dict) or description.get("format") != 1:
        found = description.get("format") if isinstance(description, dict) else None
        raise CheckpointError(f"{path} has format {found}, but this version of unpaired reads 1; install a newer one")
    check_description(description, path)
    return description


def check_description(description: Any, where: Path) -> None:
    """Check what ``model.json``, or the metadata of an exported file, says of a model.

    Raises:
        CheckpointError: It is damaged, or of another version.
        ConfigError: It needs a plug-in that is not loaded.
    """
    known = {field.name for field in fields(_Described)}
    if not isinstance(description, dict):
        raise CheckpointError(f"{where}: its description is {description!r:.60}, not named values; {_AGAIN}")
    try:
        from_dict(_Described, {key: value for key, value in description.items() if key in known}, str(where))
    except ConfigError as error:
        raise CheckpointError(f"{error}; {_AGAIN}") from error
    check_plugins(description.get("plugins"), str(where))
    if (name := description["method"]) not in METHODS:
        known_ones = ", ".join(METHODS)
        raise CheckpointError(
            f"{where}: unknown method '{name}'{nearest(name, METHODS)}; this version knows {known_ones}; {_AGAIN}"
        )
    try:
        formats_of(description, where)
    except ConfigError as error:
        raise CheckpointError(f"{error}; {_AGAIN}") from error


def build_method(folder: Path, description: dict[str, Any]) -> Method:
    """The networks that translate of the method that a description names, without memory for their weights.

    Raises:
        CheckpointError: Its settings are none.
        PluginError: They name code of a plug-in that is not loaded.
    """
    where, method_class = folder / "model.json", METHODS[description["method"]]
    try:
        config: Any = from_dict(method_class.Config, description["model"], f"{where}: model")
        if hasattr(config, "for_translation"):
            config = config.for_translation()
        own = description.get("plugins")  # networks of anyone's may compute with what they make
        with nullcontext() if own else torch.device("meta"), nullcontext() if own else _Undrawn():
            method = method_class(config, channels=description["channels"])
    except PluginError:
        raise
    except ConfigError as error:
        raise CheckpointError(f"{error}; {_AGAIN}") from error
    wanted = networks_of(description, method)
    for name in [name for name, _ in method.named_children() if name not in wanted]:
        setattr(method, name, nn.Identity())
    if not set(method.served) <= set(wanted):
        method.supports = method.supports - {"reverse"}  # imported, of one direction
    return method


class _Undrawn(TorchFunctionMode):
    """Leaves initial weights undrawn; without memory torch would load two seconds of Python to draw nothing."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        if getattr(func, "__name__", "").endswith("normal_"):
            return args[0] if args else named["tensor"]
        return func(*args, **named)


def check_offered(method: Method, asked: Sequence[str]) -> None:
    """Raise ``ConfigError`` unless a method offers what is asked for: ``reverse``, ``style``, ``domain``."""
    words = {"reverse": "the reverse direction", "style": "styles", "domain": "a choice of domains"}
    for name in asked:
        if name in type(method).supports - method.supports:
            raise ConfigError("this model was imported with one direction only; import the other as well")
        if name not in method.supports:
            able = ", ".join(key for key, row in METHODS.items() if name in row.supports)
            raise ConfigError(f"{method.title} does not offer {words[name]}; methods that do: {able}")


def networks_of(description: Mapping[str, Any], method: Method) -> tuple[str, ...]:
    """The networks whose weights belong to a description: all that translate, unless it was imported with fewer."""
    return tuple(description.get("imported", method.served))


def kind_of_weights(description: Mapping[str, Any], asked: str) -> str:
    """``last`` where the average (``ema``) is asked for and there can be none, since the model was imported."""
    return "last" if asked == "ema" and "imported" in description else asked


def load_into(method: Method, tensors: dict[str, Tensor], path: Path, networks: Sequence[str] | None = None) -> None:
    """Copy the weights of ``networks`` (unset: all that are served), all of them and nothing else."""
    expected = {
        f"{name}.{key}": value
        for name, net in method.served_networks().items()
        if networks is None or name in networks
        for key, value in net.named_parameters()
    }
    for key in expected.keys() | tensors.keys():
        if key not in tensors or key not in expected:
            where = "lacks" if key not in tensors else "has the unknown tensor"
            raise CheckpointError(f"{path} does not fit model.json: it {where} '{key}'")
        if tensors[key].shape != expected[key].shape:
            raise CheckpointError(
                f"{path} does not fit model.json: '{key}' is {tuple(tensors[key].shape)}, "
                f"expected {tuple(expected[key].shape)}"
            )
        if tensors[key].dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
            raise CheckpointError(f"{path}: '{key}' holds {tensors[key].dtype}, which weights are not; {_AGAIN}")
        if not tensors[key].isfinite().all():
            raise CheckpointError(
                f"{path}: the weights '{key}' are not finite (training diverged, or the file is damaged); use other "
                "weights of the run (--weights), or another run"
            )
    for name, net in method.served_networks().items():
        state = {key: tensors[f"{name}.{key}"].float() for key, _ in net.named_parameters()}
        net.load_state_dict(state, strict=False, assign=True)


def formats_of(description: dict[str, Any], where: Path | str = "model.json") -> Formats:
    """What source and target images are made of; 8-bit images where a description of older versions does not say.

    Raises:
        CheckpointError: Formats and networks do not fit each other.
    """
    if "source" not in description or "target" not in description:
        plain = PixelFormat(description["channels"], background=tuple(description["background"]))
        return plain, plain
    source, target = (from_dict(PixelFormat, description[name], f"{where}: {name}") for name in ("source", "target"))
    if max(source.channels, target.channels) != description["channels"]:
        raise CheckpointError(
            f"{where}: source and target have {source.channels} and {target.channels} channels, but the networks "
            f"{description['channels']}; {_AGAIN}"
        )
    return source, target


def origin_of(folder: Path, weights: str, digest: str, snapshot: Snapshot | None) -> Origin:
    """Where weights came from, as :class:`Origin` says it."""
    if snapshot is None:
        return Origin(folder, weights, digest)
    return Origin(folder, weights, digest, snapshot.repo_id, snapshot.revision)


def check_weights(folder: Path, weights: str) -> None:
    """Raise ``CheckpointError`` with the reason where the weights that were asked for are not there."""
    if (folder / f"{weights}.safetensors").exists():
        return
    if weights == "best":
        raise CheckpointError(
            f"{folder} holds no best weights: they are kept when held-out images are scored during training "
            "(--score-every); use ema or last"
        )
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
    if pickles:
        raise CheckpointError(
            f"{folder} holds {pickles[0]} but no {weights}.safetensors: a pickle can run code, so none is loaded; "
            "export the weights with unpaired"
        )
