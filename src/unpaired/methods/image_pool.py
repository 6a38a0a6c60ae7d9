"""A pool of earlier translations for the discriminator (Shrivastava et al., 2017), as CycleGAN uses it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from unpaired.methods.base import coin_flips, derive_seeds


class ImagePool(nn.Module):
    """Keeps up to ``size`` translations; half of the time an earlier one stands in for the newest.

    A discriminator that still sees what the generator made some hundred steps ago is harder to lead in circles. Draws
    are functions of the images' seeds, and the images are part of the method's state, so a resumed run goes on to the
    bit. The pool belongs to one process, so training with several refuses it.

    Args:
        size: Images kept; 0 hands every image through.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self._images: list[Tensor] = []

    @torch.no_grad()
    def exchange(self, images_BCHW: Tensor, seeds: Tensor) -> Tensor:
        """Take in translations and give back as many, some of them earlier ones.

        Args:
            images_BCHW: The newest translations, (B, C, H, W) in [-1, 1].
            seeds: (B,) int64 on the CPU, one per image.

        Returns:
            (B, C, H, W), without gradient.
        """
        if self.size == 0:
            return images_BCHW.detach()
        flips, draws = coin_flips(derive_seeds(seeds, 0)), derive_seeds(seeds, 1).tolist()
        self._images = [image.to(images_BCHW.device) for image in self._images]  # restored on the CPU
        given = []
        for image, flip, draw in zip(images_BCHW.detach(), flips, draws, strict=True):
            if len(self._images) < self.size:
                self._images.append(image.clone())
                given.append(image)
            elif flip:
                place = draw % self.size
                given.append(self._images[place])
                self._images[place] = image.clone()
            else:
                given.append(image)
        return torch.stack(given)

    def get_extra_state(self) -> dict[str, Any]:
        return {"images": [image.cpu() for image in self._images]}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self._images = list(state["images"])
