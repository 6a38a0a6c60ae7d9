"""The two segmenters of street scenes: structure, strict loading, and what they see on real photos where those are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from unpaired.errors import BackendError
from unpaired.evaluation.metrics.segmentation import confusion_matrices, segmentation_scores, snap_labels
from unpaired.networks.drn import DRND22, bilinear_kernel, load_drn_d_22
from unpaired.networks.espnet import ESPNet, load_espnet

SHARED = Path(__file__).parents[2].parent / "shared"
ESPNET = SHARED / "weights" / "espnet_p_2_q_8.pth"
PHOTOS = SHARED / "data" / "cityscapes"
needs_espnet = pytest.mark.skipif(not ESPNET.is_file(), reason="../shared has no weights/espnet_p_2_q_8.pth")


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def image(path: Path) -> Tensor:
    pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB")))
    return pixels.permute(2, 0, 1).float()[None] / 127.5 - 1


def pyramid(inputs: int, outputs: int, taps: int, norm: int) -> int:
    """Weights of an ESP module by the paper: reduction to a fifth, five 3 x 3 convolutions, ``norm`` per channel."""
    narrow = outputs // 5
    first = outputs - 4 * narrow
    return inputs * narrow * taps**2 + 9 * narrow * (first + 4 * narrow) + norm * outputs


def test_espnet_has_the_parameters_of_the_paper() -> None:
    norm_act = 3  # scale, shift, slope
    level1 = 3 * 16 * 9 + norm_act * 16
    level2 = norm_act * 19 + pyramid(19, 64, 3, norm_act) + 2 * pyramid(64, 64, 1, norm_act)
    level3 = norm_act * 131 + pyramid(131, 128, 3, norm_act) + 8 * pyramid(128, 128, 1, norm_act)
    encoder = level1 + level2 + level3 + norm_act * 256 + 256 * 20
    merging = norm_act * 40 + pyramid(40, 20, 1, norm_act)
    decoder = 131 * 20 + 2 * 20 + merging + 3 * 20 * 20 * 4 + norm_act * 20 + 36 * 20 * 9 + norm_act * 20
    network = ESPNet()
    assert count(network.encoder) == encoder
    assert count(network) == encoder + decoder
    assert round(count(network) / 1e6, 2) == 0.36  # table of the paper


@pytest.mark.parametrize("size", [(33, 47), (8, 8)])
def test_espnet_answers_at_the_size_of_the_images_whatever_the_batch(size: tuple[int, int]) -> None:
    network = ESPNet().eval()
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        labels = network(images)
        alone = network(images[1:])
    assert labels.shape == (2, *size)
    assert labels.dtype == torch.int64
    assert 0 <= int(labels.min()) <= int(labels.max()) <= 18
    assert torch.equal(labels[1:], alone)


def test_espnet_never_answers_with_the_ignored_class() -> None:
    class Constant(ESPNet):
        def scores(self, x_B3HW: Tensor) -> Tensor:
            best_is_ignored = torch.arange(20.0).view(1, 20, 1, 1)
            return best_is_ignored.expand(len(x_B3HW), -1, *x_B3HW.shape[-2:])

    assert Constant()(torch.zeros(1, 3, 16, 16)).unique().tolist() == [18]


def test_espnet_is_fed_as_it_was_trained() -> None:
    network = ESPNet()
    red = torch.tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1).expand(1, 3, 16, 16)
    prepared = network.prepare(red)
    assert prepared.shape == (1, 3, *network.input_size)
    blue_green_red = [
        (0 - 72.39239876) / 45.31922104,
        (0 - 82.90891754) / 46.15292812,
        (255 - 73.15835921) / 44.91483137,
    ]
    expected = torch.tensor(blue_green_red) / 255
    torch.testing.assert_close(prepared[0, :, 0, 0], expected, rtol=1e-5, atol=1e-6)


@needs_espnet
def test_espnet_reads_real_photos() -> None:
    names = ["1.jpg", "31.jpg", "61.jpg", "91.jpg"]
    if not all((PHOTOS / folder / name).is_file() for folder in ("trainA", "trainB") for name in names):
        pytest.skip("../shared has no data/cityscapes")
    network = load_espnet(ESPNET)
    with torch.no_grad():
        labels = network(torch.cat([image(PHOTOS / "trainB" / name) for name in names]))
    truth = torch.cat([snap_labels(image(PHOTOS / "trainA" / name)) for name in names])
    scores = segmentation_scores(confusion_matrices(truth, labels))
    assert scores["pixel_accuracy"].value > 0.80
    assert scores["mean_iou"].value > 0.25


@needs_espnet
def test_espnet_loads_strictly(tmp_path: Path) -> None:
    state = torch.load(ESPNET, weights_only=True, map_location="cpu")
    loaded = load_espnet(ESPNET).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())
    state["another.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "more.pth")
    with pytest.raises(BackendError, match=r"another\.weight"):
        load_espnet(tmp_path / "more.pth")


def plain(inputs: int, outputs: int, taps: int = 3) -> int:
    return inputs * outputs * taps**2 + 2 * outputs


def block(inputs: int, outputs: int) -> int:
    fitting = plain(inputs, outputs, 1) if inputs != outputs else 0
    return plain(inputs, outputs) + plain(outputs, outputs) + fitting


def test_drn_d_22_has_the_parameters_of_the_paper() -> None:
    levels = [plain(3, 16, 7), plain(16, 16), plain(16, 32)]
    for inputs, outputs in ((32, 64), (64, 128), (128, 256), (256, 512)):
        levels.append(block(inputs, outputs) + block(outputs, outputs))
    levels += [plain(512, 512), plain(512, 512)]
    network = DRND22()
    assert [count(level) for level in network.base] == levels
    assert count(network.base) == 15_880_752  # 16.4 million with the 1000 classes of ImageNet
    assert count(network.seg) == 512 * 19 + 19


def test_drn_d_22_has_stride_8_and_the_dilations_of_the_paper() -> None:
    network = DRND22().eval()
    dilations = [
        sorted({m.dilation[0] for m in level.modules() if isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1)})
        for level in network.base
    ]
    assert dilations == [[1], [1], [1], [1], [1], [2], [4], [2], [1]]
    sizes = []
    x = torch.zeros(1, 3, 64, 64)
    with torch.no_grad():
        for level in network.base:
            x = level(x)
            sizes.append(x.shape[-1])
    assert sizes == [64, 64, 32, 16, 8, 8, 8, 8, 8]
    assert not any(isinstance(m, nn.MaxPool2d) for m in network.modules())


@pytest.mark.parametrize("size", [(37, 53), (16, 24), (5, 9)])
def test_drn_d_22_answers_at_the_size_of_the_images(size: tuple[int, int]) -> None:
    network = DRND22().eval()
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        labels = network(images)
        network.input_size = (32, 64)
        resized = network(images)
    assert labels.shape == resized.shape == (2, *size)
    assert labels.dtype == torch.int64
    assert 0 <= int(labels.min()) <= int(labels.max()) <= 18


def test_drn_d_22_normalises_as_its_release_says_and_keeps_the_size() -> None:
    grey = torch.zeros(1, 3, 24, 40)
    expected = (0.5 - torch.tensor([0.290101, 0.328081, 0.286964])) / torch.tensor([0.182954, 0.186566, 0.184475])
    prepared = DRND22().prepare(grey)
    assert prepared.shape == grey.shape
    torch.testing.assert_close(prepared[0, :, 3, 5], expected)
    assert DRND22((64, 128)).prepare(grey).shape == (1, 3, 64, 128)


def test_drn_upsampling_interpolates_bilinearly() -> None:
    network = DRND22()
    x = torch.rand(1, 19, 5, 6, generator=torch.Generator().manual_seed(0))
    expected = nn.functional.interpolate(x, scale_factor=8, mode="bilinear", align_corners=False)
    inside = (..., slice(4, -4), slice(4, -4))  # the border of a transposed convolution fades to zero
    torch.testing.assert_close(network.up(x)[inside], expected[inside])
    assert bilinear_kernel(8).shape == (16, 16)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("up", [True, False])
def test_drn_d_22_loads_the_names_of_its_release(tmp_path: Path, prefix: str, up: bool) -> None:
    torch.manual_seed(1)
    network = DRND22().eval()
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2)
        elif name.endswith("running_mean"):
            value.normal_()
    names = {name for name in network.state_dict() if not name.endswith("num_batches_tracked")}
    assert {
        "base.0.0.weight",
        "base.0.1.running_mean",
        "base.3.0.conv1.weight",
        "base.3.0.downsample.0.weight",
    } <= names
    assert {"base.7.0.weight", "base.8.1.bias", "seg.weight", "seg.bias", "up.weight"} <= names
    assert "base.3.1.downsample.0.weight" not in names
    state = {prefix + name: network.state_dict()[name] for name in names if up or name != "up.weight"}
    torch.save(state, tmp_path / "drn.pth")
    loaded = load_drn_d_22(tmp_path / "drn.pth")
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert all(torch.equal(loaded.state_dict()[name], network.state_dict()[name]) for name in names)
    images = torch.rand(1, 3, 19, 32) * 2 - 1
    with torch.no_grad():
        assert torch.equal(loaded(images), network(images))
