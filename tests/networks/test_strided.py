"""The strided networks of CycleGAN are those of its appendix: layers, sizes, parameters, weights, patches."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unpaired.networks import DEFAULT_TAPS, PatchDiscriminator, ResnetGenerator
from unpaired.networks.layers import Initialisation, Resampling

STRIDED: dict[str, Resampling] = {"resampling": "strided"}
NORMAL: dict[str, Initialisation] = {"initialisation": "normal"}


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_strides_and_transposed_convolutions_have_the_parameters_of_the_paper() -> None:
    """c7s1-64, d128, d256, 9 R256, u128, u64, c7s1-3; and C64, C128, C256, C512, a last layer: weights and biases."""
    generator = 9_472 + 73_856 + 295_168 + 9 * 2 * 590_080 + 295_040 + 73_792 + 9_411
    discriminator = 3_136 + 131_200 + 524_544 + 2_097_664 + 8_193
    with torch.device("meta"):
        assert parameters(ResnetGenerator(**STRIDED)) == generator == 11_378_179
        assert parameters(PatchDiscriminator(**STRIDED)) == discriminator == 2_764_737
        # 6 blocks, which the paper takes for 128 pixels; 2 layers; one score per domain.
        assert parameters(ResnetGenerator(blocks=6, **STRIDED)) == generator - 3 * 2 * 590_080
        shallow = PatchDiscriminator(layers=2, out_channels=5, **STRIDED)
        assert parameters(shallow) == 3_136 + 131_200 + 524_544 + 5 * (16 * 256 + 1)


def norm(x: Tensor) -> Tensor:
    return (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), keepdim=True, correction=0) + 1e-5).sqrt()


def test_the_generator_is_the_papers_chain_of_layers() -> None:
    generator = ResnetGenerator(base_channels=4, blocks=2, **STRIDED, **NORMAL).double()
    x = torch.rand(2, 3, 36, 20, dtype=torch.float64) * 2 - 1

    def apply(layer: nn.Module, x: Tensor, reflect: int = 0, **options: int) -> Tensor:
        if reflect:
            x = F.pad(x, (reflect,) * 4, mode="reflect")
        convolution = F.conv_transpose2d if isinstance(layer, nn.ConvTranspose2d) else F.conv2d
        return convolution(x, layer.weight, layer.bias, **options)

    hidden = F.relu(norm(apply(generator.stem, x, reflect=3)))
    down1 = apply(generator.down1, hidden, stride=2, padding=1)
    down2 = apply(generator.down2, F.relu(norm(down1)), stride=2, padding=1)
    hidden = F.relu(norm(down2))
    for block in generator.blocks:
        inside = F.relu(norm(apply(block.conv1, hidden, reflect=1)))
        hidden = hidden + norm(apply(block.conv2, inside, reflect=1))
    middle = hidden
    for layer in (generator.up1, generator.up2):
        hidden = F.relu(norm(apply(layer, hidden, stride=2, padding=1, output_padding=1)))
    expected = torch.tanh(apply(generator.head, hidden, reflect=3))
    found, features = generator.translate_and_encode(x, ("down1", "down2", "block2"))
    torch.testing.assert_close(found, expected)
    for one, other in zip(features, (down1, down2, middle), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("height", "width"), [(36, 20), (20, 36), (32, 32), (16, 44)])
def test_sides_of_multiples_of_four_are_kept(height: int, width: int) -> None:
    generator = ResnetGenerator(base_channels=2, blocks=5, **STRIDED)
    x = torch.rand(2, 3, height, width) * 2 - 1
    image, features = generator.translate_and_encode(x, DEFAULT_TAPS)
    assert image.shape == x.shape
    assert image.abs().max() <= 1
    quarter = (height // 4, width // 4)  # the halvings leave maps of half and of a quarter of the sides
    assert [tuple(f.shape[2:]) for f in features] == [
        (height + 6, width + 6), (height // 2, width // 2), quarter, quarter, quarter,
    ]  # fmt: skip
    assert [f.shape[1] for f in features] == [generator.tap_channels[tap] for tap in DEFAULT_TAPS]


@pytest.mark.parametrize(("side", "out"), [(17, 20), (18, 20), (19, 20), (21, 24)])
def test_other_sides_are_rounded_up_to_four_as_with_blurs(side: int, out: int) -> None:
    x = torch.rand(1, 3, side, side)
    for resampling in ("strided", "blur"):
        assert ResnetGenerator(base_channels=2, blocks=1, resampling=resampling)(x).shape == (1, 3, out, out)


@pytest.mark.parametrize(("side", "scores"), [(256, 30), (128, 14), (36, 2), (24, 1)])
def test_the_discriminator_gives_the_papers_number_of_scores(side: int, scores: int) -> None:
    """256 -> 128 -> 64 -> 32 by strides, -> 31 -> 30 by two 4 x 4 convolutions with one pixel of padding."""
    with torch.device("meta"):
        found = PatchDiscriminator(base_channels=2, **STRIDED)(torch.empty(1, 3, side, side))
    assert found.shape == (1, 1, scores, scores)


@pytest.mark.parametrize(("layers", "patch"), [(1, 16), (2, 34), (3, 70)])
def test_a_score_sees_the_papers_patch(layers: int, patch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the last layer back, a 4 x 4 convolution of stride s sees s (n - 1) + 4: 4, 7, then 16, 34, 70."""
    monkeypatch.setattr("unpaired.networks.discriminators.instance_norm", lambda x: x)  # norms see the whole map
    discriminator = PatchDiscriminator(base_channels=2, layers=layers, **STRIDED).double()
    for parameter in discriminator.parameters():
        nn.init.uniform_(parameter, 0.5, 1.0)  # positive, so that nothing cancels or is cut off
    x = torch.rand(1, 3, 160, 160, dtype=torch.float64, requires_grad=True)
    scores = discriminator(x)
    middle = scores.shape[-1] // 2
    scores[0, 0, middle, middle].backward()
    seen = x.grad[0].abs().sum(dim=0) > 0
    assert (int(seen.any(dim=0).sum()), int(seen.any(dim=1).sum())) == (patch, patch)


@pytest.mark.parametrize("resampling", ["strided", "blur"])
@pytest.mark.parametrize(("layers", "smallest"), [(1, 6), (2, 12), (3, 24), (4, 48)])
def test_the_smallest_image_is_the_smallest_that_leaves_a_score(
    layers: int, smallest: int, resampling: Resampling
) -> None:
    discriminator = PatchDiscriminator(base_channels=2, layers=layers, resampling=resampling)
    assert discriminator.smallest_image == smallest
    assert discriminator(torch.zeros(1, 3, smallest, smallest)).shape == (1, 1, 1, 1)
    with pytest.raises((RuntimeError, ValueError)):
        discriminator(torch.zeros(1, 3, smallest - 1, smallest - 1))


@pytest.mark.parametrize("network", [ResnetGenerator, PatchDiscriminator])
def test_normal_weights_have_deviation_002_whatever_the_layer(network: type[nn.Module]) -> None:
    torch.manual_seed(0)
    layers = [x for x in network(**STRIDED, **NORMAL).modules() if isinstance(x, nn.Conv2d | nn.ConvTranspose2d)]
    assert len(layers) == (24 if network is ResnetGenerator else 5)
    for layer in layers:
        spread = 4 / (2 * layer.weight.numel()) ** 0.5  # four standard errors of a deviation
        assert layer.weight.std().item() == pytest.approx(0.02, rel=spread)
        assert layer.weight.mean().abs().item() < 4 * 0.02 / layer.weight.numel() ** 0.5
        assert layer.bias is not None
        assert layer.bias.abs().max() == 0


def test_gradients_of_the_strided_networks_are_right() -> None:
    generator = ResnetGenerator(1, 1, base_channels=1, blocks=1, **STRIDED).double()
    discriminator = PatchDiscriminator(1, base_channels=1, layers=1, **STRIDED).double()
    for network in (generator, discriminator):
        for parameter in network.parameters():
            nn.init.uniform_(parameter, -1.0, 1.0)
    x = torch.rand(1, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: discriminator(generator(x)), (x,))
