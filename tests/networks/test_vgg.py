"""The frozen feature networks: VGG16 against its plain formula, its file, and the stand-in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unpaired.errors import BackendError, ConfigError
from unpaired.networks import efficientnet_lite, vgg
from unpaired.networks.feature_maps import DEFAULT_LAYERS, MapProjector, layer_channels, load_feature_maps

CONVOLUTIONS = {0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256), 12: (256, 256), 14: (256, 256),
                17: (256, 512), 19: (512, 512), 21: (512, 512), 24: (512, 512), 26: (512, 512),
                28: (512, 512)}  # fmt: skip
"""Configuration D of the paper: position in torchvision's list -> channels in and out."""
POOLINGS = (4, 9, 16, 23)


def state(last: int = 28) -> dict[str, Tensor]:
    """Random weights under torchvision's names, up to one convolution."""
    generator, found = torch.Generator().manual_seed(5), {}
    for position, (inputs, outputs) in CONVOLUTIONS.items():
        if position <= last:
            weight = torch.randn(outputs, inputs, 3, 3, generator=generator) * (2 / (9 * inputs)) ** 0.5
            found[f"features.{position}.weight"] = weight
            found[f"features.{position}.bias"] = 0.1 * torch.randn(outputs, generator=generator)
    return found


def plain(weights: dict[str, Tensor], images: Tensor, last: int) -> Tensor:
    """The output of the ReLU after the convolution at ``last``, step by step."""
    mean, deviation = (torch.tensor(x)[:, None, None] for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    x = ((images + 1) / 2 - mean) / deviation
    for position in range(last + 1):
        if position in CONVOLUTIONS:
            x = F.conv2d(x, weights[f"features.{position}.weight"], weights[f"features.{position}.bias"], padding=1)
            x = x.clamp(min=0)
        elif position in POOLINGS:
            x = F.max_pool2d(x, 2, 2)
    return x


def test_layers_channels_and_parameters() -> None:
    counts = enumerate((2, 2, 3, 3, 3), start=1)
    assert list(vgg.LAYERS) == [f"relu{stage}_{number}" for stage, count in counts for number in range(1, count + 1)]
    assert list(vgg.LAYERS.values()) == [outputs for _, outputs in CONVOLUTIONS.values()]
    by_position = {position: 9 * inputs * outputs + outputs for position, (inputs, outputs) in CONVOLUTIONS.items()}
    with torch.device("meta"):
        for layers, last, figure in ((("relu5_3",), 28, 14_714_688), (("relu3_1", "relu4_1"), 17, 2_915_648)):
            network = vgg.VGG16Features(layers)
            expected = sum(count for position, count in by_position.items() if position <= last)
            assert sum(p.numel() for p in network.parameters()) == expected == figure


@pytest.mark.parametrize("size", [32, 37])
def test_a_local_file_gives_the_maps_of_the_plain_formula(size: int, tmp_path: Path) -> None:
    weights = state(last=17)
    torch.save({**weights, "classifier.0.weight": torch.zeros(2, 2)}, tmp_path / "mine.pth")
    network = load_feature_maps("vgg16", ("relu1_1", "relu2_2", "relu3_1", "relu4_1"), tmp_path / "mine.pth")
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    maps = network(images)
    assert [tuple(x.shape[1:]) for x in maps] == [
        (64, size, size), (128, size // 2, size // 2), (256, size // 4, size // 4), (512, size // 8, size // 8)
    ]  # fmt: skip
    for found, last in zip(maps, (0, 7, 10, 17), strict=True):
        torch.testing.assert_close(found, plain(weights, images, last), rtol=1e-4, atol=1e-4)


def hub(folder: Path, monkeypatch: pytest.MonkeyPatch, fetch: Any) -> Path:
    """Torch hub in an empty folder, with another downloader; where the file would lie."""
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(folder))
    monkeypatch.setattr("torch.hub.download_url_to_file", fetch)
    return folder / "checkpoints" / "vgg16-397923af.pth"


def test_missing_weights_are_one_line_that_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    hub(tmp_path, monkeypatch, lambda *given, **_: calls.append(given))
    with pytest.raises(BackendError, match=r"VGG16.* not on this machine") as caught:
        load_feature_maps("vgg16", ("relu3_1",))
    for words in ("vgg16-397923af.pth", "checkpoints", "curl ", vgg.URL, "vgg16_weights", "download_weights", "lite0"):
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not calls
    with pytest.raises(BackendError, match=r"none\.pth does not exist.*vgg16_weights"):
        load_feature_maps("vgg16", ("relu3_1",), tmp_path / "none.pth", allow_download=True)
    assert not calls


def test_weights_are_fetched_where_that_is_allowed_and_found_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def fetch(url: str, path: str, hash_prefix: str) -> None:
        calls.append((url, hash_prefix))
        torch.save(state(last=2), path)

    place = hub(tmp_path, monkeypatch, fetch)
    first = load_feature_maps("vgg16", ("relu1_2",), allow_download=True)
    assert calls == [(vgg.URL, "397923af")]
    assert place.is_file()
    again = load_feature_maps("vgg16", ("relu1_2",), allow_download=True)  # it lies there now
    assert len(calls) == 1
    images = torch.rand(1, 3, 16, 16)
    assert torch.equal(first(images)[0], again(images)[0])


def test_a_failed_download_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    place = hub(tmp_path, monkeypatch, fetch)
    with pytest.raises(BackendError, match=r"could not be downloaded.*no route to host.*vgg16_weights") as caught:
        load_feature_maps("vgg16", ("relu1_2",), allow_download=True)
    assert str(place) in str(caught.value)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    torch.save(state(last=5), tmp_path / "short.pth")
    with pytest.raises(
        BackendError, match=r"short\.pth: not the weights of VGG16.*names missing \('features\.10\.bias'"
    ):
        load_feature_maps("vgg16", ("relu3_1",), tmp_path / "short.pth")
    torch.save({**state(last=0), "features.0.bias": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(BackendError, match=r"another shape \('features\.0\.bias'\)"):
        load_feature_maps("vgg16", ("relu1_1",), tmp_path / "other.pth")


def test_untrained_weights_are_a_function_of_their_seed() -> None:
    torch.manual_seed(0)
    first = vgg.untrained(("relu2_1",))
    torch.manual_seed(1)
    second, other = vgg.untrained(("relu2_1",)), vgg.untrained(("relu2_1",), seed=1)
    images = torch.rand(1, 3, 16, 16)
    assert torch.equal(first(images)[0], second(images)[0])
    assert not torch.equal(first(images)[0], other(images)[0])
    assert first.features[5].weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)


@pytest.mark.parametrize(
    ("network", "layers", "words"),
    [
        ("vgg16", ("relu3_4",), "VGG16 has no 'relu3_4'.*relu1_1, relu1_2"),
        ("vgg16", ("relu4_1", "relu3_1"), "once each, in this order"),
        ("vgg16_untrained", (), "once each, in this order"),
        ("lite0", ("relu3_1",), "EfficientNet-Lite0 has no 'relu3_1'.*stride4, stride8, stride16"),
    ],
)
def test_layers_that_do_not_exist_are_refused(network: Any, layers: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        layer_channels(network, layers)
    with pytest.raises(ConfigError, match=words):
        load_feature_maps(network, layers)


@pytest.mark.parametrize("name", DEFAULT_LAYERS)
def test_default_layers_have_strides_4_and_8_and_the_channels_said(
    name: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = hub(tmp_path, monkeypatch, None)
    place.parent.mkdir()
    torch.save(state(last=21), place)
    layers = DEFAULT_LAYERS[name]
    maps = load_feature_maps(name, layers)(torch.rand(2, 3, 32, 40) * 2 - 1)
    sizes = [(8, 10), (4, 5)] if name == "lite0" else [(8, 10), (4, 5), (4, 5)]
    assert [tuple(x.shape[2:]) for x in maps] == sizes
    assert [x.shape[1] for x in maps] == list(layer_channels(name, layers).values())


def test_maps_of_the_stand_in_are_those_of_its_blocks_at_every_size() -> None:
    network = efficientnet_lite.load()
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(2)) * 2 - 1
    (found,) = network.pyramid(images, ("stride16",))
    torch.testing.assert_close(found, network.maps(images), rtol=1e-4, atol=1e-4)
    seen: dict[int, Tensor] = {}
    for number in (1, 2, 4):
        network.network.blocks[number].register_forward_hook(lambda m, i, o, number=number: seen.__setitem__(number, o))
    names = ("stride4", "stride8", "stride16")
    small = images[:, :, :37, :42].clone().requires_grad_(True)
    maps = network.pyramid(small, names)
    for found, number, name in zip(maps, (1, 2, 4), names, strict=True):
        stride = int(name.removeprefix("stride"))
        assert torch.equal(found, seen[number])
        channels = efficientnet_lite.PYRAMID_CHANNELS[name]
        assert found.shape == (2, channels, -(-37 // stride), -(-42 // stride))
    sum(x.square().mean() for x in maps).backward()
    assert small.grad is not None
    assert small.grad.abs().amax(dim=(1, 2, 3)).min() > 0


def test_the_projector_is_two_pointwise_layers_per_map() -> None:
    projector = MapProjector(layer_channels("vgg16", ("relu3_1", "relu4_1")))
    quarter = (256 * 64 + 64) + (64 * 64 + 64) + (512 * 128 + 128) + (128 * 128 + 128)
    assert sum(p.numel() for p in projector.parameters()) == quarter == 102_784
    small = MapProjector({"stride4": 24}, 5)
    features = torch.rand(1, 24, 3, 2)
    first, _, last = small.layers["stride4"]
    pixel = (first.weight[:, :, 0, 0] @ features[0, :, 2, 1] + first.bias).relu()
    expected = last.weight[:, :, 0, 0] @ pixel + last.bias
    torch.testing.assert_close(small("stride4", features)[0, :, 2, 1], expected)
    assert MapProjector({"stride4": 24})("stride4", features).shape == (1, 32, 3, 2)  # at least 32
