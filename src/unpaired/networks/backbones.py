"""Frozen networks, by name, whose multi-scale features a discriminator can use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unpaired.errors import BackendError, ConfigError, nearest
from unpaired.networks import efficientnet_lite
from unpaired.networks.weights import WeightsFile

STRIDES = (4, 8, 16)
"""Strides of the feature maps that are used."""
SHORT_NAMES = {
    "dino": "timm:vit_small_patch16_224.dino",
    "clip": "timm:vit_base_patch16_clip_224.openai",
}
"""Short names of networks of timm."""
_KINDS = ("lite0", *SHORT_NAMES, "timm:<model>", "torchvision:<model>")
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Backbone(NamedTuple):
    """A frozen network and its channels.

    Attributes:
        network: Images (B, 3, H, W) in [-1, 1] -> a list of maps, finest first; gradients flow to the images.
        channels: Of each map.
    """

    network: nn.Module
    channels: tuple[int, ...]


def backbone_channels(name: str) -> tuple[int, ...]:
    """Channels of each map of a backbone, finest first, without loading weights.

    Raises:
        ConfigError: There is no such network.
        BackendError: Its package is missing.
    """
    if name == "lite0":
        return tuple(efficientnet_lite.PYRAMID_CHANNELS.values())
    return _build(name, None, pretrained=False).channels


def load_backbone(name: str, path: Path | None = None) -> Backbone:
    """Load a frozen network.

    Args:
        name: ``lite0`` (EfficientNet-Lite0, whose weights come with a package), ``torchvision:<model>``,
            ``timm:<model>``, or ``dino`` or ``clip``, which are timm's.
        path: A file with its weights; ``None`` uses those of the library, which downloads them if they are missing.

    Raises:
        ConfigError: There is no such network.
        BackendError: Its package or its weights are missing or do not fit; the message says what to do.
    """
    if name == "lite0":
        network = efficientnet_lite.load(path)
        return Backbone(_Pyramid(network), backbone_channels(name))
    return _build(name, path, pretrained=True)


class _Pyramid(nn.Module):
    def __init__(self, network: efficientnet_lite.EfficientNetLite0) -> None:
        super().__init__()
        self.network = network

    def forward(self, x_BCHW: Tensor) -> list[Tensor]:
        return self.network.pyramid(x_BCHW, list(efficientnet_lite.PYRAMID_CHANNELS))


class _Scaled(nn.Module):
    """A network with normalised input: (x - mean) / deviation of values in [0, 1]."""

    shift: Tensor
    scale: Tensor

    def __init__(
        self, network: nn.Module, names: Sequence[Any], mean: Sequence[float], deviation: Sequence[float]
    ) -> None:
        super().__init__()
        self.network, self.names = network, names
        self.register_buffer("shift", torch.tensor([0.5 - m for m in mean]).view(1, -1, 1, 1))
        self.register_buffer("scale", torch.tensor(deviation).reciprocal().view(1, -1, 1, 1))

    def forward(self, x_BCHW: Tensor) -> list[Tensor]:
        maps = self.network((0.5 * x_BCHW + self.shift) * self.scale)
        return [maps[name] for name in self.names]


def _build(name: str, path: Path | None, *, pretrained: bool) -> Backbone:
    kind, _, model = SHORT_NAMES.get(name, name).partition(":")
    if kind not in ("timm", "torchvision") or not model:
        raise ConfigError(f"backbone: there is no '{name}'{nearest(name, _KINDS)}; known: {', '.join(_KINDS)}")
    try:
        with torch.random.fork_rng(devices=[]):  # initial weights of other networks do not depend on this one
            return (_timm if kind == "timm" else _torchvision)(name, model, path, pretrained)
    except (OSError, RuntimeError, KeyError) as error:
        raise BackendError(
            f"backbone: the weights of '{name}' cannot be loaded ({_first_line(error)}); give their file with "
            "--backbone-weights"
        ) from error


def _file_of(name: str, kind: str) -> WeightsFile:
    return WeightsFile(
        f"backbone '{name}'", f"Give {kind}'s own file for this network with --backbone-weights, or leave that out."
    )


def _timm(name: str, model: str, path: Path | None, pretrained: bool) -> Backbone:
    import timm

    known = timm.list_models(pretrained=True) if "." in model else timm.list_models()
    if model not in known:
        raise ConfigError(f"backbone: timm has no '{model}'{nearest(model, known)}")
    options: dict[str, Any] = {"pretrained": pretrained and path is None}
    if path is not None:
        weights = _file_of(name, "timm")
        state = weights.read(weights.locate(path))
        plain: Any = timm.create_model(model)
        heads = plain.pretrained_cfg.get("classifier") or ()
        heads = tuple(f"{head}." for head in ((heads,) if isinstance(heads, str) else heads))
        state = {key: value for key, value in state.items() if not key.startswith(heads)}
        shapes = {key: value.shape for key, value in plain.state_dict().items() if not key.startswith(heads)}
        weights.check(path, state, shapes)  # timm ignores what does not fit
        options = {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": state}}
    network = _timm_maps(model, options)
    info = network.feature_info
    chosen = [number for number, stride in enumerate(info.reduction()) if stride in STRIDES]
    scaling = timm.data.resolve_data_config({}, model=network)
    scaled = _Scaled(network, chosen, scaling["mean"], scaling["std"])
    return _checked(name, scaled, [info.channels()[number] for number in chosen])


def _timm_maps(model: str, options: dict[str, Any]) -> Any:
    """The network with its maps as outputs; for a ViT those of its last blocks, which have the same stride."""
    import timm

    try:
        return timm.create_model(
            model, features_only=True, out_indices=3, dynamic_img_size=True, dynamic_img_pad=True, **options
        )
    except TypeError:  # no such options: not a ViT
        return timm.create_model(model, features_only=True, **options)


def _torchvision(name: str, model: str, path: Path | None, pretrained: bool) -> Backbone:
    from torchvision import models
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

    known = models.list_models(models)
    if model not in known:
        raise ConfigError(f"backbone: torchvision has no '{model}'{nearest(model, known)}")
    network = models.get_model(model, weights="DEFAULT" if pretrained and path is None else None).eval()
    if path is not None:
        weights = _file_of(name, "torchvision")
        weights.load_into(network, weights.locate(path))
    side = 8 * max(STRIDES)
    try:
        every = create_feature_extractor(network, get_graph_node_names(network)[1])
        with torch.no_grad():
            maps = every(torch.zeros(1, 3, side, side))
    except _UNFIT as error:
        raise _unfit(name, error) from error
    square = {key: each for key, each in maps.items() if each.ndim == 4 and each.shape[2] == each.shape[3] > 1}
    last = {side // each.shape[3]: key for key, each in square.items()}
    names = [last[stride] for stride in STRIDES if stride in last]
    extractor = create_feature_extractor(network, {key: key for key in names}) if names else network
    return _checked(name, _Scaled(extractor, names, *_IMAGENET), [maps[key].shape[1] for key in names])


def _checked(name: str, network: nn.Module, channels: Sequence[int]) -> Backbone:
    """Check that the network returns maps with these channels for other image sizes. Raises ``ConfigError``."""
    if not channels:
        raise _unfit(name, f"no maps at strides {', '.join(map(str, STRIDES))}")
    try:
        with torch.no_grad():
            maps = network.eval()(torch.zeros(1, 3, 6 * max(STRIDES), 8 * max(STRIDES)))
    except _UNFIT as error:
        raise _unfit(name, error) from error
    found = [tuple(each.shape) for each in maps]
    if any(len(shape) != 4 or shape[1] != width for shape, width in zip(found, channels, strict=True)):
        raise _unfit(name, f"its outputs are {', '.join(map(str, found))}")
    return Backbone(network, tuple(channels))


_UNFIT = (AssertionError, RuntimeError, TypeError, ValueError)
"""Errors that networks raise for unsupported image sizes."""


def _unfit(name: str, reason: Exception | str) -> ConfigError:
    words = _first_line(reason) if isinstance(reason, Exception) else reason
    return ConfigError(
        f"backbone: '{name}' gives no feature maps for arbitrary image sizes ({words}); use a convolutional network, "
        "or a ViT of timm (vit_...)"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
