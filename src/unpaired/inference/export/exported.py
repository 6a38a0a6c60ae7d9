"""One generator of a method as a function of tensors alone, and the metadata of an exported file."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import metadata
from typing import Any, Literal

import torch
from torch import Tensor, nn

from unpaired.config import to_dict
from unpaired.data import Formats, average_copies, repeat_channels
from unpaired.methods import Method, TranslateRequest
from unpaired.networks.padding import MULTIPLE, SMALLEST, pad
from unpaired.ops import normal_draws
from unpaired.ops.winograd import convolutions_by_products, direct_convolutions

FileFormat = Literal["onnx", "torch"]
Precision = Literal["float32", "float16"]
Target = Literal["cpu", "any"]
"""Where a file is to run fast: on CPUs through ONNX Runtime, whose convolutions are direct there, or elsewhere."""

TRACED = (2, 64, 48)
"""Batch, height and width of the images with which a generator is recorded."""
FORMAT = "1"


class ExportedGenerator(nn.Module):
    """A method's translation with direction and domain fixed, from images of one domain to images of the other.

    Args:
        method: With its weights, on the CPU; it is modified.
        formats: What source and target images are made of; in reverse the other way round.
        channels: Of the networks.
        reverse: From the target to the source domain.
        domain: Position of the wanted domain, for methods that know several.

    Attributes:
        taken: Channels of the images it takes.
        made: Channels of the images it makes.
        style: (1, S), the style of seed 0, for methods with styles.
        largest_map: Floats of its largest feature map per pixel of the image.
    """

    def __init__(
        self, method: Method, formats: Formats, channels: int, *, reverse: bool = False, domain: int | None = None
    ) -> None:
        super().__init__()
        self.method = method.eval().requires_grad_(False)
        self.reverse, self.domain, self.channels = reverse, domain, channels
        self.taken, self.made = (pixels.channels for pixels in (reversed(formats) if reverse else formats))
        self.style = (
            styles_of(torch.zeros(1, dtype=torch.int64), method.style_channels) if method.style_channels else None
        )
        used, self.largest_map = self._inspect()
        for name in [name for name, _ in self.method.named_children() if name not in used]:
            setattr(self.method, name, nn.Identity())  # so that no file holds it

    def forward(self, image: Tensor, style: Tensor | None = None) -> Tensor:
        """Translate images whose sides are multiples of 4, at least 16.

        Args:
            image: (B, C, H, W) in [-1, 1], in the channels of its domain.
            style: (1, S), one for all images; only for methods with styles.

        Returns:
            (B, C', H, W) in [-1, 1], in the channels of the other domain.
        """
        request = TranslateRequest(reverse=self.reverse, domain=self.domain, style=style)
        made = self.method.translate(repeat_channels(image, self.channels), request)
        return average_copies(made, self.made)

    def translate(self, *inputs: Tensor) -> Tensor:
        """The reference for a file: images of any sides from 16 on, and a style where there are styles."""
        with torch.no_grad(), direct_convolutions():
            return on_any_sides(self, *inputs)

    def inputs(self, batch: int, height: int, width: int) -> tuple[Tensor, ...]:
        """Random images of a fixed seed, and the default style where there are styles."""
        generator = torch.Generator().manual_seed(height)
        image = torch.rand(batch, self.taken, height, width, generator=generator) * 2 - 1
        return (image,) if self.style is None else (image, self.style)

    def record(self, target: Target = "any") -> torch.export.ExportedProgram:
        """The generator as a graph with free batch and sides.

        For ``cpu`` wide 3 x 3 convolutions are products of matrices (:mod:`unpaired.ops.winograd`); for ``any``
        all convolutions are the library's own.
        """
        inputs, dim = self.inputs(*TRACED), torch.export.Dim
        quarters = {
            axis: MULTIPLE * dim(name, min=SMALLEST // MULTIPLE) for axis, name in ((2, "rows"), (3, "columns"))
        }
        shapes: tuple[Any, ...] = ({0: dim("batch"), **quarters}, {})[: len(inputs)]
        with torch.no_grad(), convolutions_by_products() if target == "cpu" else direct_convolutions():
            return torch.export.export(self, inputs, dynamic_shapes=shapes, strict=False)

    def _inspect(self) -> tuple[set[str], float]:
        """The networks that this translation uses, and the floats of its largest map per pixel of the image."""
        used, sizes, hooks = set[str](), list[int](), []
        batch, height, width = TRACED
        for name, network in self.method.named_children():
            for module in network.modules():

                def seen(_: nn.Module, __: Any, made: Any, name: str = name) -> None:
                    used.add(name)
                    sizes.append(made.numel() if isinstance(made, Tensor) else 0)

                hooks.append(module.register_forward_hook(seen))
        self.translate(*self.inputs(*TRACED))
        for hook in hooks:
            hook.remove()
        return used, max(sizes) / (batch * height * width)

    def round_weights(self) -> float:
        """Round what has more than one axis to float16 in place; the largest change of a translation."""
        inputs = self.inputs(*TRACED)
        before = self.translate(*inputs)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                parameter.copy_(parameter.half().float())
        return float((self.translate(*inputs) - before).abs().max())


def on_any_sides(run: Callable[..., Tensor], image: Tensor, *style: Tensor) -> Tensor:
    """Call something that takes multiples of 4 on an image of any sides from 16 on: mirrored, and cut again."""
    height, width = image.shape[2:]
    return run(pad(image), *style)[..., :height, :width]


def styles_of(seeds: Tensor, style_channels: int) -> Tensor:
    """Styles of seeds as methods draw them: (B,) int64 -> (B, style_channels) float32 on the CPU."""
    return normal_draws(seeds.cpu(), style_channels).float()


def describe(generator: ExportedGenerator, description: dict[str, Any], formats: Formats) -> dict[str, str]:
    """Metadata of a file, text by name; docs/export.md has the table.

    Args:
        generator: What is exported.
        description: What ``model.json`` of the run holds.
        formats: Of the run's source and target images.
    """
    method, ways = generator.method, {"source": formats[0], "target": formats[1]}
    if generator.reverse:
        ways = {"source": formats[1], "target": formats[0]}
    own = {name: to_dict(pixels) for name, pixels in ways.items()}
    facts = {
        "unpaired_format": FORMAT,
        "unpaired_version": metadata.version("unpaired"),
        "method": str(description["method"]),
        "title": method.title,
        "direction": "target to source" if generator.reverse else "source to target",
        "channels": f"{generator.taken} to {generator.made}",
        "value_mapping": json.dumps({name: to_dict(pixels.mapping) for name, pixels in ways.items()}),
        "description": json.dumps({**description, **own}),
        "largest_map": f"{generator.largest_map:g}",
    }
    return facts if generator.domain is None else facts | {"domain": method.domains[generator.domain]}
