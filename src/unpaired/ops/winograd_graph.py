"""A Winograd convolution of operations that a recorded graph can hold: for runtimes whose own convolution is direct."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from unpaired.ops.winograd_transforms import SIDE, Padding, transforms

_TAPS = 3
_STEP = SIDE - _TAPS + 1


def conv2d_by_products(x_BIHW: Tensor, weight_OI33: Tensor, bias_O: Tensor | None, padding_mode: Padding) -> Tensor:
    """Convolve with 3 x 3 taps, stride 1 and one pixel of padding, whatever the sides and the batch.

    F(4 x 4, 3 x 3): each channel by itself is transformed by a convolution with stride 4 whose 36 filters are the
    rows of the input's transform, then there are 36 products over the channels, and the outputs' transform. Nothing
    depends on the sides but the shapes, so a graph of it serves all sizes. Weights stay as they are in the graph; a
    runtime that folds constants transforms them once.

    Args:
        x_BIHW: (B, I, H, W) float32, H and W at least 4.
        weight_OI33: (O, I, 3, 3).
        bias_O: (O,) or nothing.
        padding_mode: ``zeros`` or ``reflect``.

    Returns:
        (B, O, H, W).
    """
    to_outputs, to_filters, to_tiles = transforms(_TAPS)
    (batch, inputs, height, width), outputs, points = x_BIHW.shape, weight_OI33.shape[0], SIDE * SIDE
    rows, columns = (height + _STEP - 1) // _STEP, (width + _STEP - 1) // _STEP  # of tiles
    right, below = 1 + _STEP * columns - width, 1 + _STEP * rows - height  # what completes the last tiles is cut again
    padded = F.pad(x_BIHW, (1, right, 1, below), mode="constant" if padding_mode == "zeros" else padding_mode)
    flat = padded.reshape(batch * inputs, 1, _STEP * rows + _TAPS - 1, _STEP * columns + _TAPS - 1)
    tiles = F.conv2d(flat, to_tiles.view(points, 1, SIDE, SIDE), stride=_STEP)
    tiles_BPIT = tiles.view(batch, inputs, points, rows * columns).transpose(1, 2)
    filters = to_filters @ weight_OI33.permute(2, 3, 0, 1).reshape(_TAPS * _TAPS, -1)
    products_BPOT = filters.view(points, outputs, inputs) @ tiles_BPIT
    made = (to_outputs @ products_BPOT.reshape(batch, points, -1)).view(batch, _STEP, _STEP, -1)
    # One axis at a time: that is what runtimes have fast code for.
    lines = made.transpose(2, 3).reshape(batch, _STEP, outputs * rows, _STEP * columns)
    result = lines.transpose(1, 2).reshape(batch, outputs, _STEP * rows, _STEP * columns)
    result = result[:, :, :height, :width]
    return result if bias_O is None else result + bias_O.view(-1, 1, 1)
