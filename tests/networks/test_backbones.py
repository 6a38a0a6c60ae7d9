"""Frozen networks by name: their maps, files of their weights, and one line where something does not fit."""

from __future__ import annotations

import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from unpaired.errors import BackendError, ConfigError
from unpaired.networks.backbones import Backbone, _build, backbone_channels, load_backbone

VIT = "timm:vit_tiny_patch16_224"
SLOW = pytest.mark.slow


def untrained(name: str) -> Backbone:
    """The network with random weights: nothing is fetched."""
    return _build(name, None, pretrained=False)


def pictures(height: int, width: int) -> Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


def state_of(name: str) -> dict[str, Tensor]:
    """Weights as the library names them, of a network of its own."""
    kind, _, model = name.partition(":")
    torch.manual_seed(5)
    if kind == "timm":
        import timm

        return timm.create_model(model).state_dict()
    from torchvision import models

    return models.get_model(model, weights=None).state_dict()


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("torchvision:resnet18", (64, 128, 256)),
        ("torchvision:mobilenet_v3_small", (72, 96, 288)),
        ("torchvision:efficientnet_b0", (144, 240, 672)),
        pytest.param("torchvision:vgg16", (256, 512, 512), marks=SLOW),
        pytest.param("torchvision:convnext_tiny", (96, 192, 384), marks=SLOW),
        ("timm:resnet18", (64, 128, 256)),
        ("timm:efficientnet_lite0", (24, 40, 112)),
    ],
)
def test_maps_of_convolutional_networks_lie_at_three_strides(name: str, channels: tuple[int, ...]) -> None:
    found = untrained(name)
    assert found.channels == backbone_channels(name) == channels
    x = pictures(64, 96).requires_grad_()
    maps = found.network.eval()(x)
    assert [tuple(each.shape) for each in maps] == [
        (2, width, 64 // stride, 96 // stride) for width, stride in zip(channels, (4, 8, 16), strict=True)
    ]
    (gradient,) = torch.autograd.grad(sum(each.square().mean() for each in maps), x)
    assert gradient.abs().amax() > 0


@pytest.mark.parametrize(
    ("name", "width"),
    [(VIT, 192), pytest.param("dino", 384, marks=SLOW), pytest.param("clip", 768, marks=SLOW)],
)
def test_a_vit_gives_its_last_blocks_for_images_of_any_size(name: str, width: int) -> None:
    found = untrained(name)
    assert found.channels == (width,) * 3
    network = found.network.eval()
    for size, grid in (((32, 32), (2, 2)), ((72, 100), (5, 7)), ((128, 160), (8, 10))):
        maps = network(pictures(*size))
        assert [tuple(each.shape) for each in maps] == [(2, width, *grid)] * 3
    assert not torch.allclose(maps[0], maps[2])


def test_lite0_is_the_one_of_the_package() -> None:
    found = load_backbone("lite0")
    assert found.channels == (24, 40, 112)
    assert [each.shape[1:] for each in found.network(pictures(32, 64))] == [(24, 8, 16), (40, 4, 8), (112, 2, 4)]


@pytest.mark.parametrize("name", ["torchvision:mobilenet_v3_small", "timm:resnet18"])
def test_images_are_scaled_as_imagenets(name: str) -> None:
    network: Any = untrained(name).network.eval()
    seen: list[Tensor] = []
    first = next(module for module in network.modules() if isinstance(module, torch.nn.Conv2d))
    first.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    x = pictures(32, 32)
    network(x)
    mean, deviation = (
        torch.tensor(values).view(1, 3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    torch.testing.assert_close(seen[0], ((x + 1) / 2 - mean) / deviation, rtol=1e-5, atol=1e-5)


def test_knowing_the_channels_draws_nothing() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    backbone_channels("torchvision:mobilenet_v3_small")
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "name",
    ["torchvision:mobilenet_v3_small", "timm:resnet10t", VIT],
)
def test_a_file_of_weights_is_taken_over(name: str, suffix: str, tmp_path: Path) -> None:
    state, path = state_of(name), tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(state, path)
    else:
        save_file({key: value.contiguous() for key, value in state.items()}, path)
    networks = []
    for seed in (6, 7):  # with what it would have begun
        torch.manual_seed(seed)
        networks.append(load_backbone(name, path).network.eval())
    x = pictures(32, 48)
    for one, other in zip(*(network(x) for network in networks), strict=True):
        assert torch.equal(one, other)
    loaded = [value for value in networks[0].state_dict().values() if value.ndim == 4]
    originals = [value for value in state.values() if value.ndim == 4]
    shared = sum(any(a.shape == b.shape and torch.equal(a, b) for b in loaded) for a in originals)
    assert shared >= 0.6 * len(originals)  # layers behind the last map are left out


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("torchvision:mobilenet_v3_small", "torchvision:squeezenet1_1"),
        (VIT, "timm:resnet10t"),
        ("timm:resnet10t", VIT),
    ],
)
def test_a_file_that_does_not_fit_is_named_in_one_line(name: str, other: str, tmp_path: Path) -> None:
    missing, damaged, foreign, text = (tmp_path / f"{word}.pth" for word in ("missing", "damaged", "foreign", "text"))
    torch.save(state_of(other), foreign)
    damaged.write_bytes(foreign.read_bytes()[:5000])
    text.write_text("not found")
    truncated = tmp_path / "damaged.safetensors"
    truncated.write_bytes(b"\x10\0\0\0\0\0\0\0garbage")
    for path in (missing, damaged, foreign, text, truncated, tmp_path):
        with pytest.raises(BackendError) as caught:
            load_backbone(name, path)
        words = str(caught.value)
        assert str(path) in words
        assert name in words
        assert "--backbone-weights" in words
        assert "\n" not in words
    with pytest.raises(BackendError, match="missing"):
        load_backbone("lite0", missing)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lite", "backbone: there is no 'lite' (did you mean 'lite0'?); known: lite0, dino, clip, timm:<model>"),
        ("resnet18", "backbone: there is no 'resnet18'"),
        ("timm:", "backbone: there is no 'timm:'"),
        ("torchvision:resnet19", "backbone: torchvision has no 'resnet19' (did you mean 'resnet18'?)"),
        ("timm:resnet19", "backbone: timm has no 'resnet19' (did you mean 'resnet"),
        ("timm:resnet18.a1_in1", "timm has no 'resnet18.a1_in1' (did you mean 'resnet18."),
    ],
)
def test_wrong_names_name_the_nearest(name: str, words: str) -> None:
    for function in (backbone_channels, load_backbone):
        with pytest.raises(ConfigError) as caught:
            function(name)
        assert words in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("torchvision:vit_b_32", marks=SLOW),
        "timm:mixer_s32_224",
        "timm:levit_128s",
    ],
)
def test_networks_of_one_size_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"'{name}' gives no feature maps for arbitrary image sizes") as caught:
        backbone_channels(name)
    assert "\n" not in str(caught.value)


def test_weights_that_cannot_be_fetched_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(
        BackendError, match=r"weights of 'torchvision:mobilenet_v3_small' cannot be loaded .*--backbone-"
    ):
        load_backbone("torchvision:mobilenet_v3_small")
