"""The light generator: the identity at its start, any size and channels, taps of one pass, a known reach."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unpaired.errors import ConfigError
from unpaired.networks import LightGenerator
from unpaired.networks.generators import channels_at

TAPS = ("padded_input", "down1", "stem", "down2", "block1", "block3")


def reach(blocks: int) -> int:
    """How far, in pixels, a pixel of the translation sees.

    2 pixels by the last two convolutions, 1 + 3 at half the side by the enlarging and the decoder, 2 + 2 per block at a
    quarter, 2 at half the side again by the first two, and up to 3 by where the pixel lies in its block of 4 x 4.
    """
    return 2 + 2 * 4 + 4 * (2 + 2 * blocks) + 2 * 2 + 3


def trained(blocks: int = 3, channels: int = 3) -> LightGenerator:
    """One whose last convolution is not zero, as after some training."""
    generator = LightGenerator(channels, channels, base_channels=4, blocks=blocks)
    nn.init.normal_(generator.head.weight, std=0.1)
    return generator


def test_the_size_at_the_defaults_is_as_said() -> None:
    assert sum(p.numel() for p in LightGenerator().parameters()) == pytest.approx(2.1e6, rel=0.03)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("channels", range(1, 7))
def test_it_starts_at_the_identity_exactly(channels: int, mixed: bool) -> None:
    generator = LightGenerator(channels, channels, base_channels=4, blocks=2)
    x = torch.rand(2, channels, 16, 24) * 2 - 1
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        assert torch.equal(generator(x), x)
    assert not torch.equal(trained(channels=channels)(x), x)


@pytest.mark.parametrize("size", [(8, 8), (9, 8), (8, 11), (10, 13), (15, 64), (33, 50), (64, 36)])
def test_sides_are_rounded_up_to_multiples_of_four_by_reflection(size: tuple[int, int]) -> None:
    generator, x = trained(), torch.rand(1, 3, *size) * 2 - 1
    height, width = (-(-side // 4) * 4 for side in size)
    made = generator(x)
    assert made.shape == (1, 3, height, width)
    assert made.abs().max() <= 1
    features = dict(zip(TAPS, generator.encode(x, TAPS), strict=True))
    for tap, side in (("padded_input", 1), ("down1", 2), ("stem", 2), ("down2", 4), ("block1", 4), ("block3", 4)):
        assert features[tap].shape == (1, generator.tap_channels[tap], height // side, width // side), tap
    padded = features["padded_input"]
    assert torch.equal(padded[..., : size[0], : size[1]], x)
    for row in range(size[0], height):
        assert torch.equal(padded[..., row, : size[1]], x[..., 2 * size[0] - 2 - row, :])


@pytest.mark.parametrize("mixed", [False, True])
def test_one_pass_gives_the_same_features_as_the_encoder_alone(mixed: bool) -> None:
    generator, x = trained(), torch.rand(2, 3, 20, 18) * 2 - 1
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        image, features = generator.translate_and_encode(x, TAPS)
        alone = generator.encode(x, TAPS)
        assert torch.equal(image.clamp(-1, 1), generator(x))
        turned = generator.encode(x, ("down2", "stem"))
    for tap, one, other in zip(TAPS, features, alone, strict=True):
        assert torch.equal(one, other), tap
    assert torch.equal(turned[0], alone[3])
    assert torch.equal(turned[1], alone[2])


def test_the_decoder_has_a_place_of_the_size_of_the_stem() -> None:
    generator, x = trained(), torch.rand(1, 3, 16, 16)
    stem, doubled, up = generator.translate_and_encode(x, ("stem", "doubled2", "up1"))[1]
    assert stem.shape == doubled.shape
    assert torch.equal(doubled, nn.functional.leaky_relu(nn.functional.pixel_shuffle(up, 2), 0.1))


def test_no_block_behind_the_last_tap_is_computed() -> None:
    generator, seen = trained(), []
    for number, block in enumerate(generator.blocks, start=1):
        block.register_forward_hook(lambda *_, number=number: seen.append(number))
    generator.encode(torch.rand(1, 3, 16, 16), ("down1", "block2"))
    generator.encode(torch.rand(1, 3, 16, 16), ("down2",))
    assert seen == [1, 2]


@pytest.mark.parametrize("blocks", [1, 3])
def test_a_pixel_sees_its_reach_and_nothing_beyond(blocks: int) -> None:
    generator = trained(blocks).double()
    side = 2 * reach(blocks) + 40
    x = (torch.rand(1, 3, side, side, dtype=torch.float64) - 0.5).requires_grad_()
    furthest = 0
    for place in range(side // 2, side // 2 + 4):
        (seen,) = torch.autograd.grad(generator.translate_and_encode(x, ())[0][0, :, place, place].sum(), x)
        rows = seen[0].abs().sum(dim=(0, 2)).nonzero()[:, 0]
        furthest = max(furthest, place - int(rows.min()), int(rows.max()) - place)
    assert reach(blocks) - 3 <= furthest <= reach(blocks)


def test_the_translation_of_a_crop_is_the_crop_of_the_translation() -> None:
    generator, far = trained(2).double(), -(-reach(2) // 4) * 4
    x = torch.rand(1, 3, 2 * far + 48, 2 * far + 40, dtype=torch.float64) * 2 - 1
    whole = generator(x)
    part = generator(x[..., 8:, 12:-4])
    inside = part[..., far:-far, far:-far]
    assert min(inside.shape) > 0
    torch.testing.assert_close(inside, whole[..., 8:, 12:-4][..., far:-far, far:-far], rtol=0, atol=1e-12)
    assert not torch.allclose(part[..., :4, :], whole[..., 8:12, 12:-4])  # the border itself is reflected


def test_after_one_step_the_gradient_reaches_every_parameter() -> None:
    generator = LightGenerator(base_channels=4, blocks=2)
    x, wanted = torch.rand(2, 2, 3, 16, 16) * 2 - 1
    optimizer = torch.optim.SGD(generator.parameters(), lr=0.1)
    for step in range(2):
        optimizer.zero_grad()
        (generator.translate_and_encode(x, ())[0] - wanted).square().mean().backward()
        for name, parameter in generator.named_parameters():
            assert parameter.grad is not None, name
            assert bool(parameter.grad.any()) == (step > 0 or name.startswith("head.")), (step, name)
        optimizer.step()


def test_the_translation_is_clamped_and_the_trained_one_is_not() -> None:
    generator, x = trained(), torch.ones(1, 3, 8, 8)
    nn.init.constant_(generator.head.bias, 0.5)
    assert generator.translate_and_encode(x, ())[0].max() > 1
    assert generator(x).max() == 1


def test_what_it_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="as many channels out as in, not 1 in and 3 out"):
        LightGenerator(1, 3)
    with pytest.raises(ConfigError, match=r"block9"):
        channels_at(LightGenerator(base_channels=4, blocks=3).tap_channels, ["block9"])
    with pytest.raises(KeyError, match="blok1"):
        LightGenerator(base_channels=4, blocks=3).translate_and_encode(torch.zeros(1, 3, 8, 8), ["blok1"])
