"""Winograd convolutions (minimal filtering) of stride 1 for the CPU, with a quarter of the multiplications.

A 3 x 3 convolution takes 9 products per output and pair of channels. On tiles of 6 x 6 inputs, F(4 x 4, 3 x 3) of
Lavin and Gray (CVPR 2016) takes 36 for 16 outputs: the tile and the filter are transformed, multiplied element by
element (one matrix product over the channels per point), and the result is transformed back. F(3 x 3, 4 x 4), for the
discriminator's filters, has the same 36 points for 9 outputs. Both gradients have the same form and cost.

Legend: B images, I and O input and output channels, H and W of the output, r side of the filter, m side of a tile's
outputs, t = m + r - 1 = 6 side of a tile's inputs, P = t * t points, T tiles of all images.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from unpaired.ops.half_precision import is_thin, reflect, thin_conv2d

Padding = Literal["zeros", "reflect"]

_SIDE = 6  # t
# Interpolation points, beside infinity. On ReLU features with 256 channels the rounding error is 9e-7 of the result's
# deviation; that of the usual 0, 1, -1, 2, -2 is 1.9e-6, of the direct convolution 1.7e-7 (measured, float32).
_POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)

# Saved multiplications grow with I * O, memory traffic with I + O: Winograd is faster above these values of
# I * O / (I + O), without and with gradients, and from this number of tiles on (measured).
_FEWEST_CHANNELS = {False: 60.0, True: 40.0}
_FEWEST_TILES = 64

# Tiles per chunk: enough for an efficient product over the channels, few enough for the cache.
_CHUNK_TILES = 256

_how: Literal["own", "direct", "products"] = "own"


@contextmanager
def _convolutions(how: Literal["direct", "products"]) -> Iterator[None]:
    global _how
    before, _how = _how, how
    try:
        yield
    finally:
        _how = before


def direct_convolutions() -> AbstractContextManager[None]:
    """Context in which every convolution is torch's own, for comparisons and FLOP counts."""
    return _convolutions("direct")


def convolutions_by_products() -> AbstractContextManager[None]:
    """Context for export: 3 x 3 convolutions with enough channels are recorded as :func:`conv2d_by_products`."""
    return _convolutions("products")


def conv2d(
    x_BIHW: Tensor, weight_OIrr: Tensor, bias_O: Tensor | None = None, padding: int = 0, padding_mode: Padding = "zeros"
) -> Tensor:
    """Convolution with stride 1, on the CPU by Winograd's algorithm where that is faster.

    Args:
        x_BIHW: (B, I, H_in, W_in) floating.
        weight_OIrr: (O, I, r, r).
        bias_O: (O,) or None.
        padding: Pixels added on every side.
        padding_mode: ``zeros``, or ``reflect`` (the border pixel is not repeated; ``padding`` < side).

    Returns:
        (B, O, H_in + 2 padding - r + 1, W_in + 2 padding - r + 1).
    """
    if _pays(x_BIHW, weight_OIrr, padding):
        result: Tensor = _Winograd.apply(x_BIHW, weight_OIrr, bias_O, padding, padding_mode)
        return result
    if _how == "products" and padding == 1 and weight_OIrr.shape[2:] == (3, 3) and _wide(weight_OIrr, trains=False):
        return conv2d_by_products(x_BIHW, weight_OIrr, bias_O, padding_mode)
    if padding and padding_mode == "reflect":
        x_BIHW, padding = reflect(x_BIHW, padding), 0
    if not padding and _how == "own" and torch.is_grad_enabled() and is_thin(x_BIHW, weight_OIrr):
        return thin_conv2d(x_BIHW, weight_OIrr, bias_O)
    return F.conv2d(x_BIHW, weight_OIrr, bias_O, padding=padding)


def _pays(x_BIHW: Tensor, weight_OIrr: Tensor, padding: int) -> bool:
    """Whether Winograd's algorithm applies and is faster."""
    taps, taps_x = weight_OIrr.shape[2:]
    if not (_how == "own" and x_BIHW.device.type == "cpu" and x_BIHW.dtype == weight_OIrr.dtype == torch.float32):
        return False
    if torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    if taps != taps_x or taps not in (3, 4) or padding >= min(taps, *x_BIHW.shape[2:]):
        return False
    trains = torch.is_grad_enabled() and (x_BIHW.requires_grad or weight_OIrr.requires_grad)
    if not _wide(weight_OIrr, trains):
        return False
    height, width = (side + 2 * padding - taps + 1 for side in x_BIHW.shape[2:])
    tile = _SIDE - taps + 1
    return min(height, width) >= tile and len(x_BIHW) * height * width >= _FEWEST_TILES * tile**2


def _wide(weight_OIrr: Tensor, trains: bool) -> bool:
    """Whether a convolution has enough channels for Winograd's algorithm to be faster."""
    channels_out, channels_in = weight_OIrr.shape[:2]
    return channels_in * channels_out >= _FEWEST_CHANNELS[trains] * (channels_in + channels_out)


class _Winograd(torch.autograd.Function):
    """See :func:`conv2d`. Computed in chunks of tiles whose intermediate results fit into the cache."""

    @staticmethod
    def forward(
        ctx: Any, x_BIHW: Tensor, weight_OIrr: Tensor, bias_O: Tensor | None, padding: int, padding_mode: Padding
    ) -> Tensor:
        channels_out, channels_in, taps, _ = weight_OIrr.shape
        to_outputs, to_filters, to_tiles = _transforms(taps)
        grid = _Grid(x_BIHW, taps, padding, padding_mode)
        filters_POI = (to_filters @ weight_OIrr.permute(2, 3, 0, 1).reshape(taps * taps, -1)).unflatten(
            1, (channels_out, channels_in)
        )
        padded_BIHW = grid.pad(x_BIHW)
        whole_BOHW = x_BIHW.new_empty(grid.batch, channels_out, *grid.whole)
        saved_tiles: list[Tensor] = []
        for chunk in grid.chunks():
            tiles_PIT = _transform(to_tiles, grid.windows(padded_BIHW, chunk, 0, 0, _SIDE, _SIDE))
            products_POT = torch.bmm(filters_POI, tiles_PIT)
            target = grid.windows(whole_BOHW, chunk, 0, 0, grid.step, grid.step)
            target.copy_((to_outputs @ products_POT.flatten(1)).view(target.shape))
            if ctx.needs_input_grad[1]:
                saved_tiles.append(tiles_PIT)
        result_BOHW = whole_BOHW[:, :, : grid.result[0], : grid.result[1]].contiguous()
        if bias_O is not None:
            result_BOHW += bias_O.view(1, -1, 1, 1)
        ctx.grid = grid
        ctx.save_for_backward(filters_POI, *saved_tiles)
        return result_BOHW

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BOHW: Tensor) -> tuple[Tensor | None, ...]:
        filters_POI, *saved_tiles = ctx.saved_tensors
        grid: _Grid = ctx.grid
        channels_out, channels_in = filters_POI.shape[1:]
        to_outputs, to_filters, to_tiles = _transforms(grid.taps)
        whole_BOHW = grid.complete(gradient_BOHW)
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        filters_gradient_POI: Tensor | None = None
        sums_BIHW = gradient_BOHW.new_zeros(grid.batch, channels_in, *grid.padded) if wants_x else gradient_BOHW
        rest = _SIDE - grid.step
        for number, chunk in enumerate(grid.chunks()):
            products_POT = _transform(to_outputs.T, grid.windows(whole_BOHW, chunk, 0, 0, grid.step, grid.step))
            if wants_weight:
                tiles_PTI = saved_tiles[number].transpose(1, 2)
                if filters_gradient_POI is None:
                    filters_gradient_POI = torch.bmm(products_POT, tiles_PTI)
                else:
                    filters_gradient_POI.baddbmm_(products_POT, tiles_PTI)
            if wants_x:
                tiles_PIT = torch.bmm(filters_POI.transpose(1, 2), products_POT)
                parts = (to_tiles.T @ tiles_PIT.flatten(1)).view(_SIDE, _SIDE, channels_in, *grid.shape(chunk))
                # Tiles overlap: their parts are added one after the other, so that no write collides.
                for top, height in ((0, grid.step), (grid.step, rest)):
                    for left, width in ((0, grid.step), (grid.step, rest)):
                        target = grid.windows(sums_BIHW, chunk, top, left, height, width)
                        target.add_(parts[top : top + height, left : left + width])
        x_gradient = weight_gradient = bias_gradient = None
        if wants_x:
            x_gradient = grid.unpad(sums_BIHW)
        if filters_gradient_POI is not None:
            weight = (to_filters.T @ filters_gradient_POI.flatten(1)).view(
                grid.taps, grid.taps, channels_out, channels_in
            )
            weight_gradient = weight.permute(2, 3, 0, 1).contiguous()
        if wants_bias:
            bias_gradient = gradient_BOHW.sum(dim=(0, 2, 3))
        return x_gradient, weight_gradient, bias_gradient, None, None


def _transform(matrix: Tensor, windows_hwCbyx: Tensor) -> Tensor:
    """Apply a transform to windows: (k, h * w) and (h, w, C, b, y, x) -> (k, C, T)."""
    height, width, channels = windows_hwCbyx.shape[:3]
    return (matrix @ windows_hwCbyx.reshape(height * width, -1)).view(len(matrix), channels, -1)


class _Grid:
    """The tile grid of one convolution.

    Attributes:
        taps: r.
        step: m.
        batch: B.
        result: Height and width of the output.
        whole: The same, rounded up to whole tiles.
        padded: Height and width of the corresponding input.
    """

    def __init__(self, x_BIHW: Tensor, taps: int, padding: int, padding_mode: Padding) -> None:
        self.batch, _, *self._size = x_BIHW.shape
        self._padding, self._reflect = padding, padding_mode == "reflect"
        self.taps, self.step = taps, _SIDE - taps + 1
        self.result = [side + 2 * padding - taps + 1 for side in self._size]
        self._count = [-(-side // self.step) for side in self.result]
        self.whole = [count * self.step for count in self._count]
        self.padded = [side + taps - 1 for side in self.whole]
        self._images = max(1, _CHUNK_TILES // (self._count[0] * self._count[1]))
        self._rows = max(1, _CHUNK_TILES // self._count[1])

    def chunks(self) -> Iterator[tuple[slice, slice]]:
        """Images and rows of tiles, chunk by chunk."""
        for image in range(0, self.batch, self._images):
            for row in range(0, self._count[0], self._rows):
                yield (
                    slice(image, min(image + self._images, self.batch)),
                    slice(row, min(row + self._rows, self._count[0])),
                )

    def shape(self, chunk: tuple[slice, slice]) -> tuple[int, int, int]:
        """Images, rows and columns of the tiles of a chunk."""
        images, rows = chunk
        return images.stop - images.start, rows.stop - rows.start, self._count[1]

    def windows(
        self, map_BCHW: Tensor, chunk: tuple[slice, slice], top: int, left: int, height: int, width: int
    ) -> Tensor:
        """View of ``height`` x ``width`` pixels at (top, left) of every tile: (height, width, C, b, y, x)."""
        batch, channel, row, column = map_BCHW.stride()
        first = chunk[0].start * batch + (chunk[1].start * self.step + top) * row + left * column
        return map_BCHW.as_strided(
            (height, width, map_BCHW.shape[1], *self.shape(chunk)),
            (row, column, channel, batch, self.step * row, self.step * column),
            map_BCHW.storage_offset() + first,
        )

    def complete(self, gradient_BCHW: Tensor) -> Tensor:
        """Pad an output's gradient with zeros to whole tiles."""
        below, right = (whole - side for whole, side in zip(self.whole, self.result, strict=True))
        return F.pad(gradient_BCHW, (0, right, 0, below)) if below or right else gradient_BCHW.contiguous()

    def pad(self, x_BCHW: Tensor) -> Tensor:
        """Apply the convolution's padding, and pad with zeros to whole tiles."""
        p, (height, width) = self._padding, self._size
        if [height, width] == self.padded:
            return x_BCHW.contiguous()
        padded = x_BCHW.new_empty(*x_BCHW.shape[:2], *self.padded)
        padded[:, :, p + height :] = 0
        padded[:, :, :, p + width :] = 0
        padded[:, :, p : p + height, p : p + width] = x_BCHW
        inside = padded[:, :, : height + 2 * p, : width + 2 * p]
        if p and not self._reflect:
            inside[:, :, :p] = 0
            inside[:, :, :, :p] = 0
        for k in range(1, p + 1 if self._reflect else 1):
            inside[:, :, p - k] = inside[:, :, p + k]
            inside[:, :, p + height - 1 + k] = inside[:, :, p + height - 1 - k]
        for k in range(1, p + 1 if self._reflect else 1):  # columns after rows, which fills the corners
            inside[:, :, :, p - k] = inside[:, :, :, p + k]
            inside[:, :, :, p + width - 1 + k] = inside[:, :, :, p + width - 1 - k]
        return padded

    def unpad(self, sums_BCHW: Tensor) -> Tensor:
        """The transpose of :meth:`pad`; modifies its argument."""
        p, (height, width) = self._padding, self._size
        for k in range(1, p + 1 if self._reflect else 1):
            sums_BCHW[:, :, :, p + k] += sums_BCHW[:, :, :, p - k]
            sums_BCHW[:, :, :, p + width - 1 - k] += sums_BCHW[:, :, :, p + width - 1 + k]
        for k in range(1, p + 1 if self._reflect else 1):
            sums_BCHW[:, :, p + k] += sums_BCHW[:, :, p - k]
            sums_BCHW[:, :, p + height - 1 - k] += sums_BCHW[:, :, p + height - 1 + k]
        return sums_BCHW[:, :, p : p + height, p : p + width].contiguous()


def conv2d_by_products(x_BIHW: Tensor, weight_OI33: Tensor, bias_O: Tensor | None, padding_mode: Padding) -> Tensor:
    """Winograd convolution, 3 x 3, stride 1, padding 1, from standard operations for exported graphs.

    For runtimes whose own convolution is direct. F(4 x 4, 3 x 3): a depthwise convolution with stride 4 whose 36
    filters are the rows of the input transform, 36 products over the channels, and the output transform. Only shapes
    depend on the sizes, so one graph serves all sizes; a runtime that folds constants transforms the weights once.

    Args:
        x_BIHW: (B, I, H, W) float32, H and W at least 4.
        weight_OI33: (O, I, 3, 3).
        bias_O: (O,) or None.
        padding_mode: ``zeros`` or ``reflect``.

    Returns:
        (B, O, H, W).
    """
    to_outputs, to_filters, to_tiles = _transforms(3)
    step = _SIDE - 2
    (batch, inputs, height, width), outputs, points = x_BIHW.shape, weight_OI33.shape[0], _SIDE * _SIDE
    rows, columns = (height + step - 1) // step, (width + step - 1) // step  # of tiles
    right, below = 1 + step * columns - width, 1 + step * rows - height  # to whole tiles; cropped below
    padded = F.pad(x_BIHW, (1, right, 1, below), mode="constant" if padding_mode == "zeros" else padding_mode)
    flat = padded.reshape(batch * inputs, 1, step * rows + 3 - 1, step * columns + 3 - 1)
    tiles = F.conv2d(flat, to_tiles.view(points, 1, _SIDE, _SIDE), stride=step)
    tiles_BPIT = tiles.view(batch, inputs, points, rows * columns).transpose(1, 2)
    filters = to_filters @ weight_OI33.permute(2, 3, 0, 1).reshape(9, -1)
    products_BPOT = filters.view(points, outputs, inputs) @ tiles_BPIT
    made = (to_outputs @ products_BPOT.reshape(batch, points, -1)).view(batch, step, step, -1)
    # One axis at a time: runtimes have fast code for that.
    lines = made.transpose(2, 3).reshape(batch, step, outputs * rows, step * columns)
    result = lines.transpose(1, 2).reshape(batch, outputs, step * rows, step * columns)
    result = result[:, :, :height, :width]
    return result if bias_O is None else result + bias_O.view(-1, 1, 1)


def _transforms(taps: int) -> tuple[Tensor, Tensor, Tensor]:
    """The two-dimensional transforms of outputs (m*m, P), filters (P, r*r) and inputs (P, P), float32.

    Tensors are not cached: one created while a graph is recorded belongs to the recording.
    """
    output, weight, tile = (torch.from_numpy(each) for each in _arrays(taps))
    return output, weight, tile


@functools.cache
def _arrays(taps: int) -> tuple[np.ndarray, ...]:
    """Toom-Cook construction of the transforms, with filter and input rows balanced by powers of two."""
    outputs = _SIDE - taps + 1
    points = np.array(_POINTS)
    others = [np.delete(points, k) for k in range(len(points))]
    spread = np.array([np.prod(points[k] - others[k]) for k in range(len(points))])
    output = np.hstack([np.vander(points, outputs, increasing=True).T, np.eye(outputs)[:, -1:]])
    weight = np.vstack([np.vander(points, taps, increasing=True) / spread[:, None], np.eye(taps)[-1:]])
    rows = [np.poly(rest)[::-1] for rest in others]
    tile = np.vstack([*(np.append(row, 0.0) for row in rows), np.poly(points)[::-1]])
    balance = np.exp2(np.round(0.5 * np.log2(np.linalg.norm(weight, axis=1) / np.linalg.norm(tile, axis=1))))
    tile, weight = tile * balance[:, None], weight / balance[:, None]
    return tuple(np.kron(m, m).astype(np.float32) for m in (output, weight, tile))
