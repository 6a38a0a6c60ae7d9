"""Is the content kept, is the output the input, do all outputs look alike, has the colour drifted?

None of these says whether a translation is good: copying the input keeps all content. They catch what the distances
between sets do not show, and belong beside them.

Shapes: B batch, C channels, H height, W width (P = H * W positions), N made images, M real images, D features.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from unpaired.errors import DataError

IDENTITY_LEVELS = 2.0
"""Mean change, in levels of 255, under which an output counts as its input. Measured medians: saving a photo of
horse2zebra as JPEG of quality 95 changes it by 1.7, making it 5 % brighter by 6.4."""
_BLOCK_ROWS = 2048

# IEC 61966-2-1 primaries and the D65 white they add up to.
_RGB_TO_XYZ = torch.tensor(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]],
    dtype=torch.float64,
)


def _checked(images_BCHW: Tensor, what: str) -> Tensor:
    if images_BCHW.ndim != 4:
        raise DataError(f"{what}: expected a batch (B, C, H, W), not {tuple(images_BCHW.shape)}")
    finite = torch.isfinite(images_BCHW).flatten(1).all(1)
    if not bool(finite.all()):
        raise DataError(f"{what}: image {int((~finite).nonzero()[0])} of the batch has values that are not finite")
    images = images_BCHW.detach()
    return (images.cpu() if images.device.type == "mps" else images).double()  # mps has no float64


def _checked_pair(source_BCHW: Tensor, fake_BCHW: Tensor, what: str) -> tuple[Tensor, Tensor]:
    if source_BCHW.shape != fake_BCHW.shape:
        raise DataError(
            f"{what}: source has shape {tuple(source_BCHW.shape)}, fake {tuple(fake_BCHW.shape)}; they must be equal"
        )
    source = _checked(source_BCHW, f"{what}, source")
    return source, _checked(fake_BCHW, f"{what}, fake").to(source.device)


def self_similarity(maps_BCHW: Tensor) -> Tensor:
    """Cosine similarity of the features at any two positions: (B, P, P), float64, 1 on the diagonal.

    It describes layout and not appearance (Shechtman and Irani, "Matching Local Self-Similarities across Images and
    Videos", CVPR 2007): a red horse on green grass has the matrix of a striped one on brown grass if the features of
    the horse resemble each other as much. A position without any feature is similar to nothing (0).

    Raises:
        DataError: Not a batch of maps, or values are not finite.
    """
    unit = F.normalize(_checked(maps_BCHW, "self-similarity").flatten(2), dim=1)
    return unit.transpose(1, 2) @ unit


def structure_distance(source_maps_BCHW: Tensor, fake_maps_BCHW: Tensor) -> list[float]:
    """Mean absolute difference of the two self-similarity matrices of each image: 0 = same structure, at most 2.

    After the losses of Zheng, Cham, Cai, "The Spatially-Correlative Loss for Various Image Translation Tasks", CVPR
    2021 (FSeSim) and Tumanyan et al., "Splicing ViT Features for Semantic Appearance Transfer", CVPR 2022 (Splice).
    Unchanged by a common gain of a map's features and by one order of positions for both images. The matrices are
    never whole in memory.

    Raises:
        DataError: The shapes differ, or values are not finite.
    """
    source, fake = _checked_pair(source_maps_BCHW, fake_maps_BCHW, "structure distance")
    distances = []
    for a_CHW, b_CHW in zip(source, fake, strict=True):
        a_PC, b_PC = (F.normalize(maps.flatten(1), dim=0).T for maps in (a_CHW, b_CHW))
        total = sum(
            float((rows_a @ a_PC.T - rows_b @ b_PC.T).abs().sum())
            for rows_a, rows_b in zip(a_PC.split(_BLOCK_ROWS), b_PC.split(_BLOCK_ROWS), strict=True)
        )
        distances.append(total / len(a_PC) ** 2)
    return distances


def mean_change_levels(source_BCHW: Tensor, fake_BCHW: Tensor) -> list[float]:
    """Mean absolute difference of each output to its input, images in [-1, 1], in levels of 255.

    >>> mean_change_levels(torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5))
    [63.75]

    Raises:
        DataError: The shapes differ, or values are not finite.
    """
    source, fake = _checked_pair(source_BCHW, fake_BCHW, "change of the input")
    return ((fake - source).abs().flatten(1).mean(1) * 127.5).tolist()


def identity_rate(changes: Sequence[float], threshold: float = IDENTITY_LEVELS) -> float:
    """Share of images that changed by less than ``threshold`` levels: 1 = the translator does nothing.

    Raises:
        DataError: There are no changes.
    """
    if not changes:
        raise DataError("identity rate: there are no images")
    return sum(change < threshold for change in changes) / len(changes)


def mean_pairwise_distance(features_ND: Tensor) -> float:
    """Mean Euclidean distance between the features of any two images of a set, block by block.

    Raises:
        DataError: Fewer than 2 images, or a feature is not finite.
    """
    if features_ND.ndim != 2 or len(features_ND) < 2:
        raise DataError(
            f"diversity needs features (images, D) of at least 2 images, not of shape {tuple(features_ND.shape)}"
        )
    device = "cpu" if features_ND.device.type == "mps" else features_ND.device
    finite = torch.isfinite(features_ND).all(1)
    if not bool(finite.all()):
        raise DataError(f"image {int((~finite).nonzero()[0])} has features that are not finite")
    blocks = features_ND.detach().split(_BLOCK_ROWS)
    mean = torch.stack([block.to(device).double().sum(0) for block in blocks]).sum(0) / len(features_ND)

    def centred(block: Tensor) -> Tensor:
        return block.to(device).double() - mean  # or squares of a common offset would drown small distances

    total = 0.0
    for index, block in enumerate(blocks):
        a = centred(block)
        for later in range(index, len(blocks)):
            b = a if later == index else centred(blocks[later])
            squares = a.square().sum(1)[:, None] + b.square().sum(1) - 2.0 * (a @ b.T)
            if later == index:
                squares.fill_diagonal_(0.0)
            total += (1.0 if later == index else 2.0) * float(squares.clamp(min=0.0).sqrt().sum())
    return total / (len(features_ND) * (len(features_ND) - 1))


def diversity(fake_ND: Tensor, real_MD: Tensor) -> float:
    """Mean pairwise distance among outputs over that among real images: 1 = as diverse, 0 = one picture for all.

    Features of any network, or flattened images; the counts may differ.

    Raises:
        DataError: A set has fewer than 2 images, the widths differ, or all real images are equal.
    """
    if fake_ND.ndim == real_MD.ndim == 2 and fake_ND.shape[1] != real_MD.shape[1]:
        raise DataError(f"diversity: {fake_ND.shape[1]} features of a fake image, {real_MD.shape[1]} of a real one")
    among_fake, among_real = mean_pairwise_distance(fake_ND), mean_pairwise_distance(real_MD)
    if among_real == 0.0:
        raise DataError("diversity: the real images are all equal, there is nothing to compare with")
    return among_fake / among_real


def lab_colours(images_BCHW: Tensor) -> Tensor:
    """CIELAB (D65) of sRGB images in [-1, 1]: (B, 3, H, W) float64; one channel is read as gray.

    L runs from 0 (black) to 100 (white); a and b are 0 for gray.

    Raises:
        DataError: Not 1 or 3 channels, or values are not finite.
    """
    images = _checked(images_BCHW, "colours")
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


def mean_colour_shift(fake: Iterable[Tensor], real: Iterable[Tensor]) -> float:
    """Distance of the two sets' mean colours in CIELAB (delta E of 1976): about 2 is just visible side by side.

    Every image counts the same, whatever its size; batches (B, C, H, W) in [-1, 1] are read once.

    Raises:
        DataError: A set is empty, or images have values that are not finite.
    """
    means = []
    for what, batches in (("fake", fake), ("real", real)):
        total, count = torch.zeros(3, dtype=torch.float64), 0
        for batch in batches:
            total += lab_colours(batch).mean((2, 3)).sum(0).cpu()
            count += len(batch)
        if count == 0:
            raise DataError(f"mean colour: there are no {what} images")
        means.append(total / count)
    return float((means[0] - means[1]).square().sum().sqrt())
