"""How much of the input's structure a translation keeps, and CIELAB colours.

Keeping the structure does not make a translation good: copying the input keeps all of it.

Shapes: B batch, C channels, H height, W width (P = H * W positions).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from unpaired.errors import DataError
from unpaired.evaluation.metrics.paired import PER_IMAGE, mean_score, pairwise
from unpaired.evaluation.registry import ImageSets, Score, checked, metric

_BLOCK_ROWS = 2048

# IEC 61966-2-1 primaries and the D65 white they add up to.
_RGB_TO_XYZ = torch.tensor(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]],
    dtype=torch.float64,
)


def structure_distance(source_maps_BCHW: Tensor, fake_maps_BCHW: Tensor) -> list[float]:
    """Mean absolute difference of the two self-similarities of each image: 0 = same structure, at most 2.

    A self-similarity is the cosine similarity of the features at any two positions, (P, P). It describes layout and not
    appearance (Shechtman and Irani, "Matching Local Self-Similarities across Images and Videos", CVPR 2007): a red
    horse on green grass has the matrix of a striped one on brown grass if the features of the horse resemble each other
    as much. A position without any feature is similar to nothing (0).

    After the losses of Zheng, Cham, Cai, "The Spatially-Correlative Loss for Various Image Translation Tasks", CVPR
    2021 (FSeSim) and Tumanyan et al., "Splicing ViT Features for Semantic Appearance Transfer", CVPR 2022 (Splice).
    Unchanged by a common gain of a map's features and by one order of positions for both images. The matrices are
    never whole in memory.

    Raises:
        DataError: The shapes differ, or values are not finite.
    """
    source, fake = checked("structure distance", source=source_maps_BCHW, fake=fake_maps_BCHW)
    distances = []
    for a_CHW, b_CHW in zip(source, fake, strict=True):
        a_PC, b_PC = (F.normalize(maps.flatten(1), dim=0).T for maps in (a_CHW, b_CHW))
        total = sum(
            float((rows_a @ a_PC.T - rows_b @ b_PC.T).abs().sum())
            for rows_a, rows_b in zip(a_PC.split(_BLOCK_ROWS), b_PC.split(_BLOCK_ROWS), strict=True)
        )
        distances.append(total / len(a_PC) ** 2)
    return distances


def lab_colours(images_BCHW: Tensor) -> Tensor:
    """CIELAB (D65) of sRGB images in [-1, 1]: (B, 3, H, W) float64; one channel is read as gray.

    L runs from 0 (black) to 100 (white); a and b are 0 for gray.

    Raises:
        DataError: Not 1 or 3 channels, or values are not finite.
    """
    (images,) = checked("colours", images=images_BCHW)
    if images.shape[1] not in (1, 3):
        raise DataError(f"colours: expected images of 1 or 3 channels, not {images.shape[1]}")
    rgb = ((images.expand(-1, 3, -1, -1) + 1.0) / 2.0).clamp(0.0, 1.0)
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = (_RGB_TO_XYZ / _RGB_TO_XYZ.sum(1, keepdim=True)).to(linear.device)  # white becomes (1, 1, 1)
    xyz = torch.einsum("ij,bjhw->bihw", to_xyz, linear)
    delta = 6.0 / 29.0
    f = torch.where(xyz > delta**3, xyz.clamp(min=delta**3) ** (1.0 / 3.0), xyz / (3.0 * delta**2) + 4.0 / 29.0)
    x, y, z = f.unbind(1)
    return torch.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], dim=1)


@metric(
    "structure_lite0", "structure lost", "", "lower",
    "mean absolute difference between the cosine self-similarities of input and translation on features of "
    f"EfficientNet-Lite0 at a sixteenth of 224 x 224, {PER_IMAGE}",
    against="source", networks=("lite0.maps",),
)  # fmt: skip
def _structure(sets: ImageSets, seed: int) -> Score:
    if sets.fake is sets.source:  # the untranslated input
        return mean_score([0.0] * len(sets.fake), sets)
    maps = sets.networks["lite0.maps"]
    return pairwise(lambda fake, source: structure_distance(maps(source), maps(fake)), "source", sets)
