"""ST-LPIPS: structure, distance against a float64 reference, and its published weights where they are.

The weights are those of the installed package stlpips_pytorch, or the file that UNPAIRED_ST_LPIPS names. The published
value needs the two example images of the authors' repository too: UNPAIRED_ST_LPIPS_IMAGES names their folder.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from unpaired.networks.st_lpips import STLPIPS, find_st_lpips, load_st_lpips

PUBLISHED = 0.7777554988861084
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


def random_network() -> STLPIPS:
    torch.manual_seed(0)
    network = STLPIPS()
    network.scaling_layer.shift.copy_(torch.tensor(SHIFT).view(1, 3, 1, 1))
    network.scaling_layer.scale.copy_(torch.tensor(SCALE).view(1, 3, 1, 1))
    for number in range(5):
        network.get_submodule(f"lin{number}.model.1").weight.data.uniform_(0, 0.2)  # type: ignore[union-attr,operator]
    return network.eval().requires_grad_(False)


@pytest.fixture
def network(tmp_path: Path) -> STLPIPS:
    path = tmp_path / "random.pth"
    torch.save(random_network().state_dict(), path)
    return load_st_lpips(path)


@pytest.fixture(scope="module")
def published() -> STLPIPS:
    named = os.environ.get("UNPAIRED_ST_LPIPS")
    path = Path(named) if named else find_st_lpips()
    if path is None:
        pytest.skip("stlpips_pytorch is not installed and UNPAIRED_ST_LPIPS names no file")
    return load_st_lpips(path)


def images(count: int = 2, height: int = 64, width: int = 64, seed: int = 0) -> Tensor:
    coarse = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return F.interpolate(coarse, (height, width), mode="bicubic", align_corners=False).clamp(-1, 1)


def reference(network: STLPIPS, one: Tensor, other: Tensor) -> np.ndarray:
    """The distance in float64, written out from the state dict."""
    state = {name: value.double() for name, value in network.state_dict().items()}

    def blurred(x: Tensor) -> Tensor:
        row = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64) / 4
        kernel = torch.outer(row, row).expand(x.shape[1], 1, 3, 3)
        return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), kernel, groups=x.shape[1])[..., ::2, ::2]

    def convolved(x: Tensor, name: str, stride: int, padding: int) -> Tensor:
        return F.conv2d(x, state[f"net.{name}.weight"], state[f"net.{name}.bias"], stride, padding)

    def maps(x: Tensor) -> list[Tensor]:
        x = (x.double() - state["scaling_layer.shift"]) / state["scaling_layer.scale"]
        found = [blurred(convolved(x, "slice1.0", 1, 2)).relu()]
        for name, padding in (("slice2.5", 2), ("slice3.9", 1)):
            found.append(convolved(blurred(F.max_pool2d(found[-1], 3, 1)), name, 1, padding).relu())
        for name in ("slice4.11", "slice5.13"):
            found.append(convolved(found[-1], name, 1, 1).relu())
        return found

    total = torch.zeros(len(one), dtype=torch.float64)
    for number, (a, b) in enumerate(zip(maps(one), maps(other), strict=True)):
        a, b = (x / x.square().sum(1, keepdim=True).sqrt().clamp_min(1e-10) for x in (a, b))
        weight = state[f"lin{number}.model.1.weight"].view(1, -1, 1, 1)
        total += ((a - b).square() * weight).sum(1).mean((1, 2))
    return total.numpy()


def test_distance_is_that_of_a_float64_reference(network: STLPIPS) -> None:
    one, other = images(seed=1), images(seed=2)
    distance = network(one, other)
    assert distance.shape == (2,)
    assert distance.dtype == torch.float32
    np.testing.assert_allclose(distance.numpy(), reference(network, one, other), rtol=1e-4)


def test_names_and_shapes_are_those_of_the_published_file() -> None:
    shapes = {name: tuple(value.shape) for name, value in STLPIPS().state_dict().items()}
    widths, taps = (64, 192, 384, 256, 256), (11, 5, 3, 3, 3)
    expected: dict[str, tuple[int, ...]] = {"scaling_layer.shift": (1, 3, 1, 1), "scaling_layer.scale": (1, 3, 1, 1)}
    for number, (index, inputs) in enumerate(zip((0, 5, 9, 11, 13), (3, *widths[:-1]), strict=True)):
        name, width = f"net.slice{number + 1}.{index}", widths[number]
        expected |= {f"{name}.weight": (width, inputs, taps[number], taps[number]), f"{name}.bias": (width,)}
        expected[f"lin{number}.model.1.weight"] = (1, width, 1, 1)
    expected |= {f"net.slice{n}.{m}.filt": (width, 1, 3, 3) for n, m, width in ((1, 1, 64), (2, 4, 64), (3, 8, 192))}
    assert shapes == expected


def test_equal_images_have_distance_0_and_order_does_not_matter(network: STLPIPS) -> None:
    one, other = images(3, 70, 51, seed=1), images(3, 70, 51, seed=2)
    assert torch.equal(network(one, one), torch.zeros(3))
    assert bool((network(one, other) > 0).all())
    torch.testing.assert_close(network(one, other), network(other, one))
    torch.testing.assert_close(network(one, other)[1:2], network(one[1:2], other[1:2]))


def test_black_features_are_finite(network: STLPIPS) -> None:
    for name, value in network.state_dict().items():
        if name.endswith("bias"):
            value.fill_(-100)  # every map is 0 behind its ReLU
    assert torch.equal(network(images(seed=1), images(seed=2)), torch.zeros(2))


def test_the_package_is_found_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "stlpips_pytorch"
    weights = package / "weights" / "vST0.0"
    weights.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "stlpips_pytorch", raising=False)
    assert find_st_lpips() is None
    torch.save(random_network().state_dict(), weights / "alex_shift_tolerant.pth")
    assert find_st_lpips() == weights / "alex_shift_tolerant.pth"
    assert isinstance(load_st_lpips(None), STLPIPS)


def test_published_weights_grow_with_severity_and_tolerate_shifts(published: STLPIPS) -> None:
    wide = images(4, 80, 80, seed=3)
    wide = (wide + 0.15 * torch.randn(wide.shape, generator=torch.Generator().manual_seed(4))).clamp(-1, 1)
    clean = wide[..., 8:72, 8:72]
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        noisy = [published(clean, (clean + level * noise).clamp(-1, 1)).mean().item() for level in (0.05, 0.2, 0.5)]
        blurred = [
            published(clean, F.avg_pool2d(clean, k, 1, k // 2, count_include_pad=False)).mean().item() for k in (3, 7)
        ]
        shifted = published(clean, wide[..., 8:72, 9:73]).mean().item()
    assert noisy == sorted(noisy)
    assert blurred == sorted(blurred)
    assert shifted < 0.5 * noisy[1]


def test_published_scaling_is_that_of_lpips(published: STLPIPS) -> None:
    torch.testing.assert_close(published.scaling_layer.shift.flatten(), torch.tensor(SHIFT))
    torch.testing.assert_close(published.scaling_layer.scale.flatten(), torch.tensor(SCALE))
    row = torch.tensor([0.25, 0.5, 0.25])
    filters = [value for name, value in published.state_dict().items() if name.endswith("filt")]
    assert len(filters) == 3
    assert all(torch.equal(value, torch.outer(row, row).expand_as(value)) for value in filters)
    assert all((value >= 0).all() for name, value in published.state_dict().items() if name.startswith("lin"))


@pytest.mark.parametrize(
    ("height", "width", "value"), [(64, 64, 0.505803108), (97, 75, 0.553613782), (160, 128, 0.611545444)]
)
def test_distances_are_those_of_the_authors_package(published: STLPIPS, height: int, width: int, value: float) -> None:
    """Measured with stlpips-pytorch 0.0.2, ``LPIPS(net="alex", variant="shift_tolerant")``, on the same tensors."""
    one, other = images(1, height, width, seed=1), images(1, height, width, seed=2)
    assert published(one, other).item() == pytest.approx(value, abs=1e-5)


def test_published_value(published: STLPIPS) -> None:
    folder = os.environ.get("UNPAIRED_ST_LPIPS_IMAGES")
    if not folder:
        pytest.skip("UNPAIRED_ST_LPIPS_IMAGES names no folder with ex_p0.png and ex_ref.png of the authors' repository")
    pair = []
    for name in ("ex_p0.png", "ex_ref.png"):
        pixels = torch.from_numpy(np.array(Image.open(Path(folder, name)).convert("RGB")))
        pair.append(pixels.permute(2, 0, 1).float()[None] / 127.5 - 1)
    assert published(*pair).item() == pytest.approx(PUBLISHED, abs=1e-4)
