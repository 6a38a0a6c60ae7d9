"""The table of metrics, and one call that fills in all rows for a folder's worth of images.

Adding a metric = one function of (fake batches, reference batches, seed) -> ``Measured`` and one row in ``METRICS``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from unpaired.errors import ConfigError, DataError, nearest
from unpaired.metrics.paired import paired_l1, paired_psnr, paired_ssim
from unpaired.metrics.swd import swd_progan

BATCH_IMAGES = 32
"""Images held as one batch; no value depends on it."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a row's function returns: the headline value and whatever it was averaged from."""

    value: float
    per_level: dict[str, float] = dataclasses.field(default_factory=dict)
    per_image: list[float] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Metric:
    """One row of ``METRICS``."""

    function: Callable[[Iterable[Tensor], Iterable[Tensor], int], Measured]
    """(batches of made images, batches of reference images, seed) -> Measured."""
    label: str
    """Short words for a table's column."""
    unit: str
    """Unit of the value; empty if it has none."""
    better: Literal["lower", "higher"]
    """Which direction is an improvement."""
    protocol: str
    """Everything that two people must share to compare their values."""
    needs_pairs: bool
    """True: the reference is the truth of each image, in order. False: it is a set of real target images."""


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
    """Made images that were scored."""
    reference_images: int
    """Real images (or truths) that they were compared with."""
    per_level: dict[str, float] = dataclasses.field(default_factory=dict)
    """Value per pyramid level, where the metric has levels."""
    per_image: list[float] = dataclasses.field(default_factory=list)
    """Value per image, in the order given, where the metric is a mean over images."""

    @property
    def full_name(self) -> str:
        """Name with both counts, e.g. ``swd_progan_x1e3_120v140``: values of other counts are not comparable."""
        return f"{self.name}_{self.images}v{self.reference_images}"


def _swd_row(fake: Iterable[Tensor], real: Iterable[Tensor], seed: int) -> Measured:
    levels = swd_progan(fake, real, seed)
    return Measured(levels.pop("mean"), per_level=levels)


def _mean_over_pairs(
    function: Callable[[Tensor, Tensor], list[float]],
) -> Callable[[Iterable[Tensor], Iterable[Tensor], int], Measured]:
    def row(fake: Iterable[Tensor], truth: Iterable[Tensor], seed: int) -> Measured:
        values = [value for pair in zip(fake, truth, strict=True) for value in function(*pair)]
        return Measured(sum(values) / len(values), per_image=values)

    return row


METRICS: dict[str, Metric] = {
    "swd_progan_x1e3": Metric(
        _swd_row,
        label="SWD",
        unit="x 1e-3",
        better="lower",
        protocol=(
            "sliced Wasserstein distance (Karras et al. 2018): Laplacian pyramid down to 16 px, 128 patches of 7 x 7 "
            "per image and level, each set normalised per channel, 4 x 128 random directions, x 1000, mean over levels"
        ),
        needs_pairs=False,
    ),
    "paired_l1_pm1": Metric(
        _mean_over_pairs(paired_l1),
        label="L1 to truth",
        unit="",
        better="lower",
        protocol="mean absolute error to the paired truth on the [-1, 1] scale (0 to 2), mean over images",
        needs_pairs=True,
    ),
    "paired_psnr_db": Metric(
        _mean_over_pairs(paired_psnr),
        label="PSNR to truth",
        unit="dB",
        better="higher",
        protocol="peak signal-to-noise ratio to the paired truth, data range 2 ([-1, 1]), mean of the images' dB",
        needs_pairs=True,
    ),
    "paired_ssim_gauss11": Metric(
        _mean_over_pairs(paired_ssim),
        label="SSIM to truth",
        unit="",
        better="higher",
        protocol=(
            "structural similarity to the paired truth (Wang et al. 2004): Gaussian 11 x 11 window, sigma 1.5, inside "
            "the image only, intensities mapped to [0, 1], data range 1, per channel, mean over images"
        ),
        needs_pairs=True,
    ),
}


def _batches(images: Sequence[Tensor], what: str) -> Iterator[Tensor]:
    """Stack consecutive images of one shape; a new shape starts a new batch (so pairs of equal shapes stay aligned)."""
    held: list[Tensor] = []
    for index in range(len(images)):
        image = images[index]
        if image.ndim != 3 or not image.is_floating_point():
            raise DataError(
                f"{what} image {index}: expected a float tensor (C, H, W) in [-1, 1], "
                f"not {image.dtype} of shape {tuple(image.shape)}"
            )
        if held and (len(held) == BATCH_IMAGES or held[0].shape != image.shape):
            yield torch.stack(held)
            held = []
        held.append(image)
    if held:
        yield torch.stack(held)


def _held(images: Iterable[Tensor]) -> Sequence[Tensor]:
    return images if isinstance(images, Sequence) else list(images)


def _check_pairs(fake: Sequence[Tensor], truth: Sequence[Tensor]) -> None:
    if len(fake) != len(truth):
        raise DataError(f"paired scores: {len(fake)} made images but {len(truth)} truths; give one truth per image")
    for index in range(len(fake)):
        if fake[index].shape != truth[index].shape:
            raise DataError(
                f"paired scores: image {index} has shape {tuple(fake[index].shape)} (C, H, W), "
                f"its truth {tuple(truth[index].shape)}; crop or resize one to the other"
            )


def evaluate_images(
    fake: Iterable[Tensor],
    real: Iterable[Tensor],
    truth: Iterable[Tensor] | None = None,
    names: Iterable[str] | None = None,
    seed: int = 0,
) -> dict[str, Score]:
    """Score made images against a set of real ones and, where there are any, against their true partners.

    A sequence is read by index, several times, without holding its images; any other iterable is held in memory.

    Args:
        fake: Made images (C, H, W), float in [-1, 1]. Sizes may vary for paired scores, not for SWD.
        real: Real images of the target domain, any number.
        truth: True partner of each made image, in the same order; ``None`` leaves the paired scores out.
        names: Keys of ``METRICS`` to compute, in that order; ``None`` takes all that the inputs allow.
        seed: For metrics that sample at random.

    Returns:
        Scores keyed by their row in ``METRICS``.

    Raises:
        ConfigError: a name is unknown, or a paired metric is asked for by name without ``truth``.
        DataError: an image or set cannot be scored; the message says which and why.
    """
    chosen = [name for name, row in METRICS.items() if truth is not None or not row.needs_pairs]
    if names is not None:
        chosen = list(dict.fromkeys(names))
    for name in chosen:
        if name not in METRICS:
            raise ConfigError(f"unknown metric '{name}'{nearest(name, METRICS)}; known: {', '.join(METRICS)}")
        if METRICS[name].needs_pairs and truth is None:
            raise ConfigError(f"metric '{name}' needs the true partner of every image: give truth, or leave it out")

    fake_images, real_images = _held(fake), _held(real)
    truth_images = _held(truth) if truth is not None else []
    if len(fake_images) == 0:
        raise DataError("there are no made images to score")
    scores = {}
    for name in chosen:
        row = METRICS[name]
        reference = truth_images if row.needs_pairs else real_images
        what = "truth" if row.needs_pairs else "real"
        if row.needs_pairs:
            _check_pairs(fake_images, reference)
        measured = row.function(_batches(fake_images, "fake"), _batches(reference, what), seed)
        scores[name] = Score(
            name=name,
            label=row.label,
            unit=row.unit,
            better=row.better,
            protocol=row.protocol,
            images=len(fake_images),
            reference_images=len(reference),
            **{field.name: getattr(measured, field.name) for field in dataclasses.fields(Measured)},
        )
    return scores
