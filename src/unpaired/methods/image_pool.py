"""A pool of earlier translations for the discriminator (Shrivastava et al., 2017), as in CycleGAN."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from unpaired.methods.base import coin_flips, derive_seeds


class ImagePool(nn.Module):
    """Keeps up to ``size`` translations; half of the time an earlier one replaces the newest.

    Showing the discriminator earlier translations stabilises training. Draws are functions of the images' seeds, and
    the images are part of the method's state, so a resumed run continues bitwise. The pool is local to a process, so
    training with several is refused.

    Args:
        size: Images kept; 0 returns every image unchanged.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self._images: list[Tensor] = []

    @property
    def not_recordable(self) -> str:
        """As :attr:`Method.not_recordable`."""
        return "image_pool is decided on the host, image by image; 0 turns it off" if self.size else ""

    @property
    def one_process_only(self) -> str:
        """As :attr:`Method.one_process_only`."""
        return "image_pool keeps images in each process, and a checkpoint holds those of the first" if self.size else ""

    @torch.no_grad()
    def exchange(self, images_BCHW: Tensor, seeds: Tensor) -> Tensor:
        """Store translations and return as many, some of them earlier ones.

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
        returned = []
        for image, flip, draw in zip(images_BCHW.detach(), flips, draws, strict=True):
            if len(self._images) < self.size:
                self._images.append(image.clone())
                returned.append(image)
            elif flip:
                slot = draw % self.size
                returned.append(self._images[slot])
                self._images[slot] = image.clone()
            else:
                returned.append(image)
        return torch.stack(returned)

    def get_extra_state(self) -> dict[str, Any]:
        return {"images": [image.cpu() for image in self._images]}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        images = list(state["images"])
        if len(images) > self.size or any(image.shape != images[0].shape or image.ndim != 3 for image in images):
            raise ValueError(f"an image pool holds at most {self.size} images of one size")
        self._images = images
