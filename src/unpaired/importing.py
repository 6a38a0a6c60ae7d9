"""Generators as the authors of CUT, CycleGAN and their family publish them, as run folders of this package.

Their files are state dicts of an ``nn.Sequential`` named ``model``: names count its modules. From the image on these
are reflection padding (0), a 7 x 7 convolution (1), norm, ReLU, two halvings, residual blocks, two doublings, padding,
a 7 x 7 convolution, Tanh. Where maps are halved and doubled with blur (CUT), the filter is a module of its own behind
(before) the convolution, norm and ReLU, and its values stand in the file; with strided and transposed convolutions
(CycleGAN) there is none, which is how the two are told apart.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unpaired.config import Depth, Width, settings
from unpaired.data import DataConfig, DatasetConfig
from unpaired.data.sizes import Channels
from unpaired.engine.checkpoint import export_weights
from unpaired.errors import CheckpointError, ConfigError, nearest
from unpaired.inference.hub.bundle import file_digest
from unpaired.inference.loading import build_method, load_into
from unpaired.methods import METHODS
from unpaired.networks import ResnetGenerator
from unpaired.networks.layers import Resampling
from unpaired.networks.weights import WeightsFile
from unpaired.training import RunConfig, describe

_FILE = WeightsFile(
    "a published generator",
    "Give a *_net_G.pth, *_net_G_A.pth or *_net_G_B.pth, a state dict of a ResNet generator; nothing else is read, "
    "since a pickle can run code",
)
_TIED = 16
"""How many times the size of a file its tensors may have, some of which may share their values."""
_RUNNING = ("running_mean", "running_var", "num_batches_tracked")
"""Of instance norms in files of old torch; the authors' own code drops them, too."""
_WORDS: Mapping[Resampling, str] = {"blur": "blur (as CUT)", "strided": "strided convolutions (as CycleGAN)"}


@settings
class _Sizes:
    """What the sizes of a generator may be, checked before one is made."""

    channels: Channels
    base_channels: Width
    blocks: Depth


@dataclass(frozen=True)
class PublishedGenerator:
    """A generator read from a file.

    Attributes:
        path: The file.
        sha256: Of the file, 64 hex digits.
        channels: Of the images that it reads and writes.
        base_channels: Width of its stem.
        blocks: Residual blocks.
        resampling: How it halves and doubles.
        tensors: Its parameters by the names of :class:`~unpaired.networks.ResnetGenerator`, float32.
    """

    path: Path
    sha256: str
    channels: int
    base_channels: int
    blocks: int
    resampling: Resampling
    tensors: dict[str, Tensor]

    @property
    def shape(self) -> str:
        """Its architecture, in words."""
        return (
            f"{self.channels} channels, base_channels {self.base_channels}, {self.blocks} blocks, "
            f"{_WORDS[self.resampling]}"
        )


def published_names(blocks: int, resampling: Resampling) -> dict[str, str]:
    """Modules of the authors' generator -> the same of ours, in order.

    >>> list(published_names(9, "blur"))[-3:], list(published_names(9, "strided"))[-3:]
    (['model.22', 'model.26', 'model.30'], ['model.19', 'model.22', 'model.26'])
    """
    blur = int(resampling == "blur")  # a module more per halving and doubling
    first = 10 + 2 * blur
    behind = first + blocks
    return {
        "model.1": "stem",
        "model.4": "down1",
        f"model.{7 + blur}": "down2",
        **{
            f"model.{first + number}.conv_block.{place}": f"blocks.{number}.conv{half}"
            for number in range(blocks)
            for half, place in ((1, 1), (2, 5))
        },
        f"model.{behind + blur}": "up1",
        f"model.{behind + 3 + 2 * blur}": "up2",
        f"model.{behind + 7 + 2 * blur}": "head",
    }


def published_filters(blocks: int, width: int) -> dict[str, Tensor]:
    """Blur filters in a file of CUT: name -> (C, 1, k, k), binomial, [1, 2, 1] / 4 before halving, [1, 3, 3, 1] / 4
    after doubling along each axis."""
    small, large = torch.tensor([1.0, 2.0, 1.0]) / 4, torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
    return {
        f"model.{place}.filt": torch.outer(row, row).repeat(channels, 1, 1, 1)
        for place, row, channels in (
            (7, small, 2 * width),
            (11, small, 4 * width),
            (12 + blocks, large, 4 * width),
            (16 + blocks, large, 2 * width),
        )
    }


def read_published(path: Path) -> PublishedGenerator:
    """Read a file; no code of it is run.

    Raises:
        BackendError: It is missing, or no state dict.
        CheckpointError: It holds another network than the ResNet generator with plain instance normalisation.
    """
    _FILE.locate(path)
    state = {key: value for key, value in _FILE.read(path).items() if not key.endswith(_RUNNING)}
    if sum(value.numel() * value.element_size() for value in state.values()) > _TIED * path.stat().st_size:
        raise _refused(path, "its tensors are far larger than the file, which holds a few values for many")
    blocks = _blocks(path, state)
    strided, blurred = (published_names(blocks, resampling) for resampling in ("strided", "blur"))
    fits = [{f"{name}.weight" for name in names} <= state.keys() for names in (strided, blurred)]
    if not any(fits):
        raise _refused(path, _why_no_layout(state, blocks))
    resampling: Resampling = "strided" if fits[0] else "blur"
    names = strided if fits[0] else blurred
    stem, head = state["model.1.weight"], state[f"{list(names)[-1]}.weight"]
    if stem.ndim != 4 or head.ndim != 4:
        raise _refused(path, f"'model.1.weight' is {tuple(stem.shape)} and the last one {tuple(head.shape)}, not 4D")
    channels, width = stem.shape[1], stem.shape[0]
    try:
        _Sizes(channels, width, blocks)
    except ConfigError as error:
        raise _refused(path, str(error)) from error
    if head.shape[0] != channels:
        raise _refused(
            path, f"it reads {channels} channels and writes {head.shape[0]}; these numbers have to be equal here"
        )
    with torch.device("meta"):
        ours = ResnetGenerator(channels, channels, base_channels=width, blocks=blocks, resampling=resampling)
    shapes = {name: value.shape for name, value in ours.named_parameters()}
    theirs = {f"{name}.{kind}": f"{own}.{kind}" for name, own in names.items() for kind in ("weight", "bias")}
    filters = published_filters(blocks, width) if resampling == "blur" else {}
    expected = {name: shapes[own] for name, own in theirs.items()}
    _FILE.check(path, state, expected | {name: value.shape for name, value in filters.items()})
    for name, value in filters.items():
        if not torch.allclose(state[name].float(), value, rtol=0, atol=1e-6):
            raise _refused(path, f"the blur filter '{name}' is not the binomial one, which our networks have")
    tensors = {own: state[name].float().contiguous() for name, own in theirs.items()}
    return PublishedGenerator(path, file_digest(path), channels, width, blocks, resampling, tensors)


def _blocks(path: Path, state: Mapping[str, Tensor]) -> int:
    """The number of residual blocks. Raises ``CheckpointError`` if the file holds another architecture."""
    if any(key.startswith("model.model.") for key in state):
        raise _refused(path, "it is a U-Net; only ResNet generators are read")
    if any(key.startswith("mlp_") for key in state):
        raise _refused(path, "it is a projector (net_F); give the generator")
    if (first := state.get("model.0.weight")) is not None and first.ndim == 4:
        raise _refused(path, "it begins with a convolution, as discriminators (net_D) do; give the generator")
    learned = sorted(key for key, value in state.items() if re.search(r"\.\d+\.weight$", key) and value.ndim == 1)
    if learned:
        raise _refused(
            path, f"its normalisation has learned scales ('{learned[0]}'); only instance norm without them is read"
        )
    found = {(int(m[1]), int(m[2])) for key in state if (m := re.match(r"model\.(\d+)\.conv_block\.(\d+)\.", key))}
    if not found:
        raise _refused(path, "it has no residual blocks (names such as 'model.12.conv_block.1.weight')")
    places = sorted({place for _, place in found})
    if places != [1, 5]:
        words = {(1, 6): "have dropout", (0, 3): "pad with zeros", (0, 4): "pad with zeros and have dropout"}
        raise _refused(
            path,
            f"its residual blocks {words.get((places[0], places[-1]), 'are built otherwise')}: their convolutions are "
            f"modules {' and '.join(map(str, places))} of conv_block, expected 1 and 5",
        )
    return len({number for number, _ in found})


def _why_no_layout(state: Mapping[str, Tensor], blocks: int) -> str:
    """Why the layout is neither that of CUT nor that of CycleGAN."""
    first = min(int(m[1]) for key in state if (m := re.match(r"model\.(\d+)\.conv_block\.", key)))
    down = {10: "strides", 12: "blur"}.get(first)
    up = next(
        (how for place, how in ((first + blocks, "transposed convolutions"), (first + blocks + 1, "blur"))
         if f"model.{place}.weight" in state), None
    )  # fmt: skip
    if down and up:
        return f"it halves with {down} and doubles with {up}; both must be blur (as CUT) or neither (as CycleGAN)"
    return f"its {blocks} residual blocks begin at module {first}; with two halvings they begin at 10 or, with blur, 12"


def import_published(
    file: str | Path, method: str, out: str | Path, *, reverse: str | Path | None = None, image_size: int = 256
) -> dict[str, Any]:
    """Write a run folder with the generators of the authors' files.

    Args:
        file: The generator from the source to the target domain.
        method: A key of ``METHODS`` that has such a generator.
        out: A new or empty folder; it gets ``weights/model.json`` and ``weights/last.safetensors``.
        reverse: For methods that go both ways, the generator from the target to the source domain; unset takes
            ``*_net_G_B.pth`` beside ``*_net_G_A.pth`` and the other way round, and without one the run goes one way.
        image_size: Side of the images that it was trained on; evaluations bring images to it.

    Returns:
        What ``model.json`` holds.

    Raises:
        UserError: A file, the method or the folder cannot be used.
    """
    served, file, out = _served(method), Path(file), Path(out)
    files = {served[0]: file}
    if len(served) == 2:
        other = Path(reverse) if reverse is not None else sibling(file)
        files |= {served[1]: other} if other is not None else {}
    elif reverse is not None:
        raise ConfigError(f"reverse: {METHODS[method].title} translates one way; leave it out")
    found = {name: read_published(path) for name, path in files.items()}
    first = found[served[0]]
    for one in found.values():
        if one.shape != first.shape:
            raise CheckpointError(f"{first.path} ({first.shape}) and {one.path} ({one.shape}) are not a pair")
        if one.resampling != _resampling(method):
            able = ", ".join(name for name in importable() if _resampling(name) == one.resampling)
            raise CheckpointError(
                f"{one.path} resamples with {_WORDS[one.resampling]}, but the generator of {METHODS[method].title} "
                f"with {_WORDS[_resampling(method)]}; give --method one of {able}"
            )
    settings: Any = METHODS[method].Config
    config = RunConfig(
        method,
        DatasetConfig(),
        DataConfig(image_size=image_size, channels=first.channels),
        settings(base_channels=first.base_channels, blocks=first.blocks),
    )
    description = describe(config) | {
        "imported": {name: {"file": one.path.name, "sha256": one.sha256} for name, one in found.items()},
    }
    tensors = {f"{name}.{key}": value for name, one in found.items() for key, value in one.tensors.items()}
    load_into(build_method(out, description), tensors, file, list(found))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"out: {out} is not an empty folder; choose another --out")
    export_weights(out / "weights", description, {"last": tensors})
    return description


def sibling(file: Path) -> Path | None:
    """The generator of the other direction beside a file of CycleGAN or DCLGAN, if it is there."""
    match = re.fullmatch(r"(.*_net_G_)([AB])(\.pth)", file.name)
    other = file.with_name(f"{match[1]}{'AB'['BA'.index(match[2])]}{match[3]}") if match else None
    return other if other is not None and other.is_file() else None


def importable() -> list[str]:
    """Methods whose generators are ResNet generators."""
    return [name for name in METHODS if _generators(name)]


def _served(method: str) -> tuple[str, ...]:
    if method not in METHODS:
        raise ConfigError(f"method: there is no '{method}'{nearest(method, METHODS)}; use {', '.join(importable())}")
    if not _generators(method):
        raise ConfigError(
            f"method: the generator of {METHODS[method].title} is no ResNet generator; use {', '.join(importable())}"
        )
    return METHODS[method].served


def _resampling(method: str) -> Resampling:
    return "strided" if isinstance(_generators(method)[0].up1, torch.nn.ConvTranspose2d) else "blur"


@functools.cache
def _generators(method: str) -> tuple[ResnetGenerator, ...]:
    """The networks that translate, without weights; none if they are no ResNet generators."""
    settings: Any = METHODS[method].Config
    if "domain" in METHODS[method].supports:
        return ()
    with torch.device("meta"):
        networks = list(METHODS[method](settings(), channels=3).served_networks().values())
    found = tuple(one for one in networks if isinstance(one, ResnetGenerator))
    return found if len(found) == len(networks) else ()


def _refused(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{path}: {reason}")
