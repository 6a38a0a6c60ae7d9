"""The networks are exactly the paper's family: parameters, taps, sizes, filters, and right gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from unpaired.errors import ConfigError
from unpaired.networks import DEFAULT_TAPS, PatchDiscriminator, Projector, ResnetGenerator
from unpaired.networks.generators import channels_at
from unpaired.networks.layers import blur_upsample, instance_norm


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameter_counts_at_the_defaults() -> None:
    generator = ResnetGenerator()
    assert parameters(generator) == 11_378_179
    assert parameters(PatchDiscriminator()) == 2_764_737
    assert parameters(Projector({tap: generator.tap_channels[tap] for tap in DEFAULT_TAPS})) == 560_384


def test_taps_have_the_sizes_and_channels_of_the_paper_at_256_pixels() -> None:
    with torch.device("meta"):
        generator = ResnetGenerator()
        features = generator.encode(torch.empty(1, 3, 256, 256), DEFAULT_TAPS)
    assert [tuple(f.shape[1:]) for f in features] == [
        (3, 262, 262), (128, 256, 256), (256, 128, 128), (256, 64, 64), (256, 64, 64),
    ]  # fmt: skip
    assert [generator.tap_channels[tap] for tap in DEFAULT_TAPS] == [f.shape[1] for f in features]


def test_one_pass_gives_the_same_image_and_features_as_separate_passes() -> None:
    generator = ResnetGenerator(base_channels=4, blocks=6)
    x = torch.randn(2, 3, 36, 40).clamp(-1, 1)
    image, features = generator.translate_and_encode(x, DEFAULT_TAPS)
    assert torch.equal(image, generator(x))
    assert image.shape == x.shape
    assert image.abs().max() <= 1
    for one, other in zip(features, generator.encode(x, DEFAULT_TAPS), strict=True):
        assert torch.equal(one, other)


def test_encode_computes_nothing_behind_the_last_tap() -> None:
    generator = ResnetGenerator(base_channels=4, blocks=6)
    seen: list[int] = []
    for number, block in enumerate(generator.blocks, start=1):
        block.register_forward_hook(lambda *_, number=number: seen.append(number))
    generator.encode(torch.randn(1, 3, 16, 16), ("down1", "block2"))
    assert seen == [1, 2]


@pytest.mark.parametrize(("layers", "patch"), [(2, 40), (3, 84)])
def test_a_score_sees_its_patch_and_nothing_else(layers: int, patch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """34 and 70 pixels in the PatchGAN's own count; each blur, 3 wide, adds to it."""
    monkeypatch.setattr("unpaired.networks.discriminators.instance_norm", lambda x: x)  # norms see the whole map
    discriminator = PatchDiscriminator(base_channels=2, layers=layers).double()
    for parameter in discriminator.parameters():
        torch.nn.init.uniform_(parameter, 0.5, 1.0)  # positive, so that nothing cancels or is cut off
    x = torch.rand(1, 3, 160, 160, dtype=torch.float64, requires_grad=True)
    scores = discriminator(x)
    middle = scores.shape[-1] // 2
    scores[0, 0, middle, middle].backward()
    seen = x.grad[0].abs().sum(dim=0) > 0
    assert (int(seen.any(dim=0).sum()), int(seen.any(dim=1).sum())) == (patch, patch)


def test_the_smallest_image_of_the_discriminator_is_the_smallest() -> None:
    discriminator = PatchDiscriminator(base_channels=2)
    side = discriminator.smallest_image
    assert min(discriminator(torch.zeros(1, 3, side, side)).shape) >= 1
    with pytest.raises((RuntimeError, ValueError)):
        discriminator(torch.zeros(1, 3, side - 1, side - 1))


def test_unknown_tap_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'block5'.*setting 'blocks'|'block9'"):
        channels_at(ResnetGenerator(base_channels=2, blocks=5).tap_channels, ["block9"])
    with pytest.raises(ConfigError, match="in this order"):
        channels_at(ResnetGenerator(base_channels=2, blocks=5).tap_channels, ["block1", "down1"])


def test_blur_upsample_is_the_1331_filter_with_replicated_borders() -> None:
    x = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    row = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64) / 4
    kernel = torch.outer(row, row).expand(3, 1, 4, 4)
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    expected = F.conv_transpose2d(padded, kernel, stride=2, padding=2, groups=3)[:, :, 1:-1, 1:-1]
    torch.testing.assert_close(blur_upsample(x), expected)


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "tokens"])
def test_instance_norm_has_the_right_gradient_in_every_layout(batch: int, layout: str) -> None:
    """PyTorch's own instance norm fails this at batch 1 on the CPU (method.md, section 6)."""
    x = torch.randn(batch, 3, 4, 5, dtype=torch.float64, requires_grad=True)

    def read(x: torch.Tensor) -> torch.Tensor:
        normed = instance_norm(x)
        if layout == "channels_last":
            return normed.contiguous(memory_format=torch.channels_last)
        if layout == "tokens":
            return normed.permute(0, 2, 3, 1).flatten(1, 2)[:, [3, 1, 7], :]
        return normed

    assert torch.autograd.gradcheck(read, (x,))
    reference = (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), keepdim=True, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(instance_norm(x), reference)


def test_initialisation_is_xavier_with_gain_002_and_zero_biases() -> None:
    convolution = ResnetGenerator().blocks[0].conv1
    expected = 0.02 * (2 / (256 * 9 + 256 * 9)) ** 0.5
    assert convolution.weight.std().item() == pytest.approx(expected, rel=0.02)
    assert convolution.bias.abs().max() == 0


def test_projector_gives_unit_vectors() -> None:
    projector = Projector({"a": 5}, width=70)
    out = projector("a", torch.randn(2, 3, 5))
    assert out.shape == (2, 3, 70)
    torch.testing.assert_close(out.norm(dim=-1), torch.ones(2, 3), rtol=0, atol=1e-3)  # features are tiny at the start
    raw = projector.taps["a"](torch.ones(1, 1, 5))
    torch.testing.assert_close(projector("a", torch.ones(1, 1, 5)), raw / (raw.norm() + 1e-7))
    exact = Projector({"a": 5}, width=70, epsilon=0.0)
    torch.testing.assert_close(exact("a", torch.randn(2, 3, 5)).norm(dim=-1), torch.ones(2, 3))
    assert (exact("a", torch.zeros(1, 1, 5)) == 0).all()
