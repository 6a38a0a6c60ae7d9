"""The networks of MUNIT: layer by layer against plain formulas, and their sizes."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unpaired.networks.munit import (
    ContentEncoder,
    Decoder,
    MultiScaleDiscriminator,
    StyleEncoder,
    adaptive_instance_norm,
)


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def conv(taps: int, inputs: int, outputs: int) -> int:
    return taps * taps * inputs * outputs + outputs


STEM_AND_HALVINGS = conv(7, 3, 64) + conv(4, 64, 128) + conv(4, 128, 256)
BLOCKS = 4 * 2 * conv(3, 256, 256)


def test_parameters_are_those_of_the_layers() -> None:
    assert parameters(ContentEncoder()) == STEM_AND_HALVINGS + BLOCKS == 5_385_856
    assert parameters(StyleEncoder()) == STEM_AND_HALVINGS + 2 * conv(4, 256, 256) + (256 * 8 + 8) == 2_764_936
    made = 4 * 2 * 2 * 256  # a shift and a scale of 256 channels, in both norms of four blocks
    perceptron = (8 * 256 + 256) + (256 * 256 + 256) + (256 * made + made)
    doublings = (conv(5, 256, 128) + 2 * 128) + (conv(5, 128, 64) + 2 * 64)
    assert parameters(Decoder()) == perceptron + BLOCKS + doublings + conv(7, 64, 3) == 6_875_395
    one = conv(4, 3, 64) + conv(4, 64, 128) + conv(4, 128, 256) + conv(4, 256, 512) + conv(1, 512, 1)
    assert parameters(MultiScaleDiscriminator()) == 3 * one == 8_271_171


def test_shapes() -> None:
    x = torch.rand(2, 1, 36, 40)
    content = ContentEncoder(1, base_channels=4, blocks=2)(x)
    assert content.shape == (2, 16, 9, 10)
    style = StyleEncoder(1, base_channels=4, style_channels=5)(x)
    assert style.shape == (2, 5)
    made = Decoder(1, base_channels=4, blocks=2, style_channels=5, perceptron_width=6)(content, style)
    assert made.shape == (2, 1, 36, 40)
    assert made.abs().max() <= 1
    scores = MultiScaleDiscriminator(1, base_channels=4, layers=2)(x)
    assert [tuple(each.shape) for each in scores] == [(2, 1, 9, 10), (2, 1, 4, 5), (2, 1, 2, 2)]


def norm(x: Tensor) -> Tensor:
    """Instance normalisation written out."""
    mean, variance = x.mean((2, 3), keepdim=True), x.var((2, 3), keepdim=True, unbiased=False)
    return (x - mean) / (variance + 1e-5).sqrt()


def conv_reflect(x: Tensor, layer: nn.Conv2d, margin: int, stride: int = 1) -> Tensor:
    return F.conv2d(F.pad(x, (margin,) * 4, mode="reflect"), layer.weight, layer.bias, stride)


def test_content_encoder_is_the_formula_and_taps_are_its_places() -> None:
    torch.manual_seed(0)
    encoder = ContentEncoder(base_channels=4, blocks=2).double()
    x = torch.rand(2, 3, 16, 20, dtype=torch.float64)
    stem = norm(conv_reflect(x, encoder.stem, 3)).relu()
    down1 = conv_reflect(stem, encoder.down1, 1, 2)
    down2 = conv_reflect(norm(down1).relu(), encoder.down2, 1, 2)
    hidden, blocks = norm(down2).relu(), []
    for block in encoder.blocks:
        inner = norm(conv_reflect(hidden, block.conv1, 1)).relu()
        hidden = hidden + norm(conv_reflect(inner, block.conv2, 1))
        blocks.append(hidden)
    torch.testing.assert_close(encoder(x), blocks[1])
    found = encoder.encode(x, ["down2", "down1", "block1"])
    for given, expected in zip(found, (down2, down1, blocks[0]), strict=True):
        torch.testing.assert_close(given, expected)


def test_nothing_behind_the_last_tap_is_computed_and_unknown_taps_are_key_errors() -> None:
    encoder, calls = ContentEncoder(base_channels=2, blocks=2), []
    encoder.blocks[0].register_forward_hook(lambda *_: calls.append(1))
    encoder.encode(torch.rand(1, 3, 16, 16), ["down1"])
    assert not calls
    with pytest.raises(KeyError, match="block3"):
        encoder.encode(torch.rand(1, 3, 16, 16), ["down1", "block3"])


def test_style_encoder_has_no_norm_so_it_sees_brightness() -> None:
    torch.manual_seed(0)
    encoder = StyleEncoder(base_channels=4).double()
    x = torch.rand(1, 3, 32, 32, dtype=torch.float64)
    hidden = conv_reflect(x, encoder.stem, 3).relu()
    for down in encoder.downs:
        hidden = conv_reflect(hidden, down, 1, 2).relu()
    expected = hidden.mean((2, 3)) @ encoder.last.weight.T + encoder.last.bias
    torch.testing.assert_close(encoder(x), expected)
    torch.testing.assert_close(encoder(2 * x), 2 * expected)  # biases are zero at the start
    content = ContentEncoder(base_channels=4, blocks=1).double()
    torch.testing.assert_close(content(2 * x), content(x), rtol=1e-2, atol=1e-2)  # up to the eps of its norms


def test_adaptive_norm_gives_each_channel_its_mean_and_deviation() -> None:
    torch.manual_seed(0)
    x, style = torch.rand(2, 3, 8, 8, dtype=torch.float64), torch.randn(2, 2, 3, dtype=torch.float64)
    made = adaptive_instance_norm(100 * x, style)
    torch.testing.assert_close(made.mean((2, 3)), style[:, 0])
    torch.testing.assert_close(made.std((2, 3), unbiased=False), style[:, 1].abs(), rtol=1e-4, atol=1e-4)


def test_decoder_is_the_formula() -> None:
    torch.manual_seed(0)
    decoder = Decoder(base_channels=2, blocks=2, style_channels=3, perceptron_width=5).double()
    for layer in (decoder.norm1, decoder.norm2):
        nn.init.normal_(layer.weight)
        nn.init.normal_(layer.bias)
    content, style = torch.randn(2, 8, 4, 5, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    first, _, second, _, third = decoder.perceptron
    made = style
    for layer in (first, second):
        made = (made @ layer.weight.T + layer.bias).relu()
    made = made @ third.weight.T + third.bias
    assert made.shape == (2, 2 * 2 * 2 * 8)
    shifts_and_scales = made.reshape(2, 2, 2, 2, 8, 1, 1)  # image, block, norm, shift or scale, channel
    hidden = content
    for number, block in enumerate(decoder.blocks):
        (shift1, scale1), (shift2, scale2) = (
            (shifts_and_scales[:, number, place, 0], shifts_and_scales[:, number, place, 1]) for place in range(2)
        )
        inner = (norm(conv_reflect(hidden, block.conv1, 1)) * scale1 + shift1).relu()
        hidden = hidden + norm(conv_reflect(inner, block.conv2, 1)) * scale2 + shift2
    for up, layer in ((decoder.up1, decoder.norm1), (decoder.up2, decoder.norm2)):
        hidden = hidden.repeat_interleave(2, 2).repeat_interleave(2, 3)
        hidden = conv_reflect(hidden, up, 2)
        mean, variance = hidden.mean((1, 2, 3), keepdim=True), hidden.var((1, 2, 3), keepdim=True, unbiased=False)
        normed = (hidden - mean) / (variance + 1e-5).sqrt()
        hidden = (normed * layer.weight[:, None, None] + layer.bias[:, None, None]).relu()
    torch.testing.assert_close(decoder(content, style), conv_reflect(hidden, decoder.head, 3).tanh())


def test_discriminator_looks_at_the_image_its_half_and_its_quarter() -> None:
    torch.manual_seed(0)
    discriminator = MultiScaleDiscriminator(base_channels=2, layers=2).double()
    x = torch.rand(1, 3, 21, 24, dtype=torch.float64)
    seen = x
    for number, scores in enumerate(discriminator(x)):
        if number:  # the mean of those of the 3 x 3 pixels that are inside
            padded, inside = F.pad(seen, (1, 1, 1, 1)), F.pad(torch.ones_like(seen), (1, 1, 1, 1))
            sums, counts = (each.unfold(2, 3, 2).unfold(3, 3, 2).sum((-2, -1)) for each in (padded, inside))
            seen = sums / counts
        first, _, second, _, last = discriminator.scales[number]
        hidden = F.leaky_relu(conv_reflect(seen, first, 1, 2), 0.2)
        hidden = F.leaky_relu(conv_reflect(hidden, second, 1, 2), 0.2)
        torch.testing.assert_close(scores, F.conv2d(hidden, last.weight, last.bias))


@pytest.mark.parametrize(("layers", "scales", "smallest"), [(4, 3, 61), (2, 3, 13), (2, 1, 4), (3, 2, 15), (1, 4, 9)])
def test_the_smallest_image_is_the_smallest(layers: int, scales: int, smallest: int) -> None:
    discriminator = MultiScaleDiscriminator(base_channels=1, layers=layers, scales=scales)
    assert discriminator.smallest_image == smallest
    assert all(each.numel() for each in discriminator(torch.rand(1, 3, smallest, smallest)))
    with pytest.raises(RuntimeError):
        discriminator(torch.rand(1, 3, smallest - 1, smallest - 1))


def test_weights_start_as_the_paper_says() -> None:
    torch.manual_seed(0)
    discriminator, encoder, decoder = MultiScaleDiscriminator(base_channels=16), ContentEncoder(), Decoder(blocks=1)
    weight = discriminator.scales[1][4].weight
    assert weight.std().item() == pytest.approx(0.02, rel=0.05)
    for layer, fan_in in ((encoder.down2, 16 * 128), (encoder.blocks[0].conv1, 9 * 256), (decoder.perceptron[4], 256)):
        assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=0.05)
        assert not layer.bias.any()
