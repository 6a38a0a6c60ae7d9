"""Frozen networks, by name, whose maps at several strides a discriminator may look through."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unpaired.errors import BackendError, ConfigError, nearest
from unpaired.networks import efficientnet_lite

DEFAULT_STRIDES = (4, 8, 16)
"""Strides of the maps that are looked at."""
KNOWN_STRIDES = (4, 8, 16, 32)
SHORT_NAMES = {
    "dino": "timm:vit_small_patch16_224.dino",
    "clip": "timm:vit_base_patch16_clip_224.openai",
}
"""Short names of networks of timm."""
_KINDS = ("lite0", *SHORT_NAMES, "timm:<model>", "torchvision:<model>")
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Backbone(NamedTuple):
    """A frozen network with what must be known of its maps.

    Attributes:
        network: Images (B, 3, H, W) in [-1, 1] -> a list of maps, the finest first; gradients flow to the images.
        channels: Of each map.
    """

    network: nn.Module
    channels: tuple[int, ...]


def backbone_channels(name: str, strides: Sequence[int] = DEFAULT_STRIDES) -> tuple[int, ...]:
    """Channels of each map of a backbone, the finest first; no weights are needed to know them.

    Args:
        name: As of :func:`load_backbone`.
        strides: As of :func:`load_backbone`.

    Raises:
        ConfigError: There is no such network.
        BackendError: Its package is missing.
    """
    if name == "lite0":
        return tuple(efficientnet_lite.PYRAMID_CHANNELS[f"stride{stride}"] for stride in strides)
    return _build(name, None, strides, pretrained=False).channels


def load_backbone(name: str, path: Path | None = None, strides: Sequence[int] = DEFAULT_STRIDES) -> Backbone:
    """Load a frozen network.

    Args:
        name: ``lite0`` (EfficientNet-Lite0, whose weights come with a package), ``torchvision:<model>``,
            ``timm:<model>``, or a short name of one of timm's, ``dino`` or ``clip``.
        path: A file with its weights; ``None`` takes those of the library, which fetches them if they are missing.
        strides: Of the maps that are wanted, in ascending order; those of a vision transformer all have one.

    Raises:
        ConfigError: There is no such network.
        BackendError: Its package or its weights are missing or do not fit; the message says what to do.
    """
    if name == "lite0":
        network = efficientnet_lite.load(path)
        return Backbone(_Pyramid(network, strides), backbone_channels(name, strides))
    return _build(name, path, strides, pretrained=True)


class _Pyramid(nn.Module):
    def __init__(self, network: efficientnet_lite.EfficientNetLite0, strides: Sequence[int]) -> None:
        super().__init__()
        self.network, self.names = network, [f"stride{stride}" for stride in strides]

    def forward(self, x_BCHW: Tensor) -> list[Tensor]:
        return self.network.pyramid(x_BCHW, self.names)


class _Scaled(nn.Module):
    """A network that wants its images scaled: (x - mean) / deviation of values in [0, 1]."""

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


def _build(name: str, path: Path | None, strides: Sequence[int], *, pretrained: bool) -> Backbone:
    kind, _, model = SHORT_NAMES.get(name, name).partition(":")
    if kind not in ("timm", "torchvision") or not model:
        raise ConfigError(f"backbone: there is no '{name}'{nearest(name, _KINDS)}; known: {', '.join(_KINDS)}")
    try:
        made = (_timm if kind == "timm" else _torchvision)(model, path, strides, pretrained=pretrained)
    except (OSError, RuntimeError, KeyError) as error:
        words = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BackendError(
            f"backbone: the weights of '{name}' cannot be loaded ({words}); give their file with --backbone-weights"
        ) from error
    return made


def _timm(model: str, path: Path | None, strides: Sequence[int], *, pretrained: bool) -> Backbone:
    try:
        import timm
    except ImportError as error:
        raise BackendError("backbone: networks of timm need the package timm: pip install timm") from error
    if model.split(".")[0] not in timm.list_models():
        raise ConfigError(f"backbone: timm has no '{model}'{nearest(model, timm.list_models(pretrained=True))}")
    options: dict[str, Any] = {"pretrained": pretrained and path is None, "features_only": True}
    if path is not None:
        options |= {"pretrained": True, "pretrained_cfg_overlay": {"file": str(path)}}
    if "vit" in model:  # all maps of a ViT have one stride; images keep their size
        options |= {"dynamic_img_size": True, "out_indices": 3}
    network: Any = timm.create_model(model, **options)
    info = network.feature_info
    chosen = [k for k, stride in enumerate(info.reduction()) if stride in strides]
    data = timm.data.resolve_data_config({}, model=network)
    scaled = _Scaled(network, chosen, data["mean"], data["std"])
    return Backbone(scaled, tuple(info.channels()[k] for k in chosen))


def _torchvision(model: str, path: Path | None, strides: Sequence[int], *, pretrained: bool) -> Backbone:
    from torchvision import models
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

    if model not in models.list_models(models):
        raise ConfigError(f"backbone: torchvision has no '{model}'{nearest(model, models.list_models(models))}")
    network: Any = models.get_model(model, weights="DEFAULT" if pretrained and path is None else None).eval()
    if path is not None:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    every = create_feature_extractor(network, get_graph_node_names(network)[1])
    side = 8 * max(KNOWN_STRIDES)
    with torch.no_grad():
        maps = every(torch.zeros(1, 3, side, side))
    last = {side // each.shape[-1]: name for name, each in maps.items() if each.ndim == 4 and each.shape[-1] > 1}
    names = [last[stride] for stride in strides if stride in last]
    if not names:
        raise ConfigError(
            f"backbone: torchvision's '{model}' has no maps at strides {tuple(strides)}; take a convolutional one"
        )
    extractor = create_feature_extractor(network, {name: name for name in names})
    return Backbone(_Scaled(extractor, names, *_IMAGENET), tuple(maps[name].shape[1] for name in names))
