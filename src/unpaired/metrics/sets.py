"""What a row of ``METRICS`` is given (``ImageSets``) and gives back (``Measured``), and the score made of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from unpaired.errors import DataError
from unpaired.metrics.segmentation import confusion_matrices, snap_labels

BATCH_IMAGES = 32
"""Images held as one batch; no value depends on it."""

Which = Literal["fake", "real", "truth", "source"]
Network = Callable[..., Tensor]


@dataclasses.dataclass(frozen=True)
class ImageSets:
    """Made images and everything that they can be compared with; sequences are read by index and never held.

    Attributes:
        fake: Made images, (C, H, W) float in [-1, 1].
        real: Real images of the target domain, any number.
        truth: True partner of each made image, in order; ``None`` where there is none.
        source: What each made image was made from, in order; ``None`` where it is not known.
        label_maps: Whether the sources are label maps in the colours of Cityscapes.
        on_paper: Whether the sources are drawings on white paper.
        kept: Per source, in order, weights (H, W) from 0 (may change) to 1 (must stay), ``None`` for one that has none.
        networks: Name -> callable on batches (B, 3, H, W) in [-1, 1]: what the networks of a row's ``networks`` do.
        known: Features that somebody has already, (network, set) -> (N, D).
        intervals: Whether to spend time on confidence intervals.
        of_inputs: What rows found out about ``source`` and ``real``; whoever scores several made sets against the same
            ones passes the same dictionary on.
    """

    fake: Sequence[Tensor]
    real: Sequence[Tensor] = ()
    truth: Sequence[Tensor] | None = None
    source: Sequence[Tensor] | None = None
    label_maps: bool = False
    networks: Mapping[str, Network] = dataclasses.field(default_factory=dict)
    known: Mapping[tuple[str, str], Tensor] = dataclasses.field(default_factory=dict)
    intervals: bool = True
    on_paper: bool = False
    kept: Sequence[Tensor | None] | None = None
    of_inputs: dict[str, Any] = dataclasses.field(default_factory=dict, repr=False)
    _held: dict[Any, Any] = dataclasses.field(default_factory=dict, repr=False)

    def images(self, which: Which) -> Sequence[Tensor]:
        """One of the four sets; empty where it is not known."""
        found: Sequence[Tensor] | None = getattr(self, which)
        return () if found is None else found

    def batches(self, which: Which) -> Iterator[Tensor]:
        """Stack consecutive images of one shape; a new shape starts a new batch.

        Raises:
            DataError: An image is no float tensor (C, H, W).
        """
        for (batch,) in _stacked([(which, self.images(which))]):
            yield batch

    def pairs(self, which: Which, other: Which) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of two sets side by side.

        Raises:
            DataError: An image and its partner differ in shape, or one is no float tensor (C, H, W).
        """
        for batch, partners in _stacked([(which, self.images(which)), (other, self.images(other))]):  # noqa: UP028
            yield batch, partners

    def features(self, network: str, which: Which) -> Tensor:
        """Features (N, D) of a set by one of ``networks``; computed once, whoever asks."""
        key = (network, which)
        if key in self.known:
            return self.known[key]
        if key not in self._held:
            extract = self.networks[network]
            self._held[key] = torch.cat([extract(batch).cpu() for batch in self.batches(which)])
        return self._held[key]

    def confusion(self, segmenter: str) -> Tensor:
        """Confusion matrices (N, 19, 19) of what ``segmenter`` sees in the made images against the label maps."""
        if segmenter not in self._held:
            segment = self.networks[segmenter]
            self._held[segmenter] = torch.cat(
                [confusion_matrices(snap_labels(label), segment(fake)) for label, fake in self.pairs("source", "fake")]
            )
        return self._held[segmenter]


def _stacked(sets: Sequence[tuple[str, Sequence[Tensor]]]) -> Iterator[list[Tensor]]:
    """Walk through sets of one length together and stack what lies side by side, as long as it is of one shape."""
    held: list[list[Tensor]] = []
    for index in range(len(sets[0][1])):
        row = [images[index] for _, images in sets]
        for (which, _), image in zip(sets, row, strict=True):
            if image.ndim != 3 or not image.is_floating_point():
                raise DataError(
                    f"{which} image {index}: expected a float tensor (C, H, W) in [-1, 1], "
                    f"not {image.dtype} of shape {tuple(image.shape)}"
                )
            if image.shape != row[0].shape:
                raise DataError(
                    f"{sets[0][0]} image {index} has shape {tuple(row[0].shape)} (C, H, W), its {which} "
                    f"{tuple(image.shape)}; crop or resize one to the other"
                )
        if held and (len(held) == BATCH_IMAGES or held[0][0].shape != row[0].shape):
            yield [torch.stack(images) for images in zip(*held, strict=True)]
            held = []
        held.append(row)
    if held:
        yield [torch.stack(images) for images in zip(*held, strict=True)]


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a row's function returns: the headline value, how sure it is, and whatever it was averaged from."""

    value: float
    spread: float | None = None
    """Standard deviation over random subsets of the images."""
    interval: tuple[float, float] | None = None
    """95 % confidence interval: what other images of the same kind could have given."""
    per_level: dict[str, float] = dataclasses.field(default_factory=dict)
    per_image: list[float] = dataclasses.field(default_factory=list)
    counted: int | None = None
    """Images that the value comes from, where some have nothing to measure; those are NaN in ``per_image``."""


@dataclasses.dataclass(frozen=True)
class Metric:
    """One row of ``METRICS``."""

    function: Callable[[ImageSets, int], Measured]
    """(image sets, seed) -> Measured."""
    label: str
    """Short words for a table."""
    unit: str
    """Unit of the value; empty if it has none."""
    better: Literal["lower", "higher"]
    """Which direction is an improvement."""
    protocol: str
    """Everything that two people must share to compare their values, the networks and counts apart."""
    against: Which
    """What the made images are compared with."""
    networks: tuple[str, ...] = ()
    """Networks that it asks for."""
    label_maps: bool = False
    """It needs sources that are label maps."""
    kept: Literal["", "masks", "paper", "shared"] = ""
    """It measures what must not change: outside the person's masks, on blank paper, where the domains are alike."""
    minimum: int = 1
    """Fewest images, of both sets, with which it means anything."""
    of_colours: bool = False
    """It reads channels as colours, without a network."""

    @property
    def colours(self) -> bool:
        """Whether it means something only for colour and gray images."""
        return self.of_colours or bool(self.networks)


@dataclasses.dataclass(frozen=True)
class Score:
    """One measured value with all that is needed to print, compare or file it."""

    name: str
    value: float
    label: str
    unit: str
    better: Literal["lower", "higher"]
    protocol: str
    images: int
    """Made images that were scored, without those that had nothing to measure."""
    reference_images: int
    """Images that they were compared with."""
    spread: float | None = None
    """Standard deviation over random subsets of the images, where the metric has it."""
    interval: tuple[float, float] | None = None
    """95 % confidence interval over images, where the metric has it."""
    per_level: dict[str, float] = dataclasses.field(default_factory=dict)
    """Value per pyramid level or class, where the metric has them."""
    per_image: list[float] = dataclasses.field(default_factory=list)
    """Value per image, in the order given, where the metric is a mean over images; NaN: nothing to measure."""

    @property
    def full_name(self) -> str:
        """Name with both counts, e.g. ``swd_progan_x1e3_120v140``: values of other counts are not comparable."""
        return f"{self.name}_{self.images}v{self.reference_images}"
