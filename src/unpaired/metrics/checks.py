"""What distances between two sets of features refuse, in one place."""

from __future__ import annotations

import torch
from torch import Tensor

from unpaired.errors import DataError


def check_features(measure: str, fake_ND: Tensor, real_MD: Tensor, fewest: int, why: str = "") -> None:
    """Refuse features that ``measure`` cannot be taken of.

    Args:
        measure: Its name, for the message.
        fake_ND: Features of the made images.
        real_MD: Features of the real images.
        fewest: Images that each set needs.
        why: Words about that number, in brackets.

    Raises:
        DataError: A set is no (images, features) of floats or has too few images, the widths differ, or a feature is
            not finite.
    """
    for what, features in (("fake", fake_ND), ("real", real_MD)):
        if features.ndim != 2 or not features.is_floating_point():
            raise DataError(
                f"{measure}: {what} features must be floats of shape (images, features), "
                f"not {features.dtype} of shape {tuple(features.shape)}"
            )
        if len(features) < fewest:
            raise DataError(
                f"{measure} needs at least {fewest} images in each set{why}, "
                f"and there {'is' if len(features) == 1 else 'are'} {len(features)} {what}"
            )
        finite = torch.isfinite(features).all(1)
        if not bool(finite.all()):
            raise DataError(f"{what} image {int((~finite).nonzero()[0])} has features that are not finite")
    if fake_ND.shape[1] != real_MD.shape[1]:
        raise DataError(
            f"{measure}: {fake_ND.shape[1]} features of a fake image, {real_MD.shape[1]} of a real one; "
            f"take both from the same network"
        )
