"""The table of metrics: what a metric is given (``ImageSets``) and what it returns (``Score``).

A metric is a function of (``ImageSets``, seed) in a file of ``evaluation/metrics/``, decorated with :func:`metric`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from unpaired.errors import ConfigError, DataError, nearest

BATCH_IMAGES = 32
"""Images per batch; no value depends on it."""

Which = Literal["fake", "real", "truth", "source"]
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class ImageSets:
    """Made images and everything they can be compared with; sequences are read by index and never held in memory.

    Attributes:
        fake: Made images, (C, H, W) float in [-1, 1].
        real: Real images of the target domain, any number.
        truth: True partner of each made image, in order; ``None`` where there is none.
        source: What each made image was made from, in order; ``None`` where it is not known.
        label_maps: Whether the sources are label maps in the colours of Cityscapes.
        networks: Name -> function of batches (B, 3, H, W) in [-1, 1]: the networks of a metric's ``networks``.
        known: Features that are already computed, (network, set) -> (N, D).
        intervals: Whether to compute confidence intervals.
        on_paper: Whether the sources are drawings on white paper.
        kept: Per source, in order, weights (H, W) from 0 (may change) to 1 (must stay), ``None`` for one without.
        of_inputs: What metrics computed from ``source`` and ``real`` alone; pass the same dictionary on to score
            several made sets against the same ones.
    """

    fake: Sequence[Tensor]
    real: Sequence[Tensor] = ()
    truth: Sequence[Tensor] | None = None
    source: Sequence[Tensor] | None = None
    label_maps: bool = False
    networks: Mapping[str, Callable[..., Tensor]] = dataclasses.field(default_factory=dict)
    known: Mapping[tuple[str, str], Tensor] = dataclasses.field(default_factory=dict)
    intervals: bool = True
    on_paper: bool = False
    kept: Sequence[Tensor | None] | None = None
    of_inputs: dict[Any, Any] = dataclasses.field(default_factory=dict, repr=False)
    _of_this: dict[Any, Any] = dataclasses.field(default_factory=dict, repr=False)

    def images(self, which: Which) -> Sequence[Tensor]:
        """One of the four sets; empty where it is not known."""
        return getattr(self, which) or ()

    def batches(self, which: Which) -> Iterator[Tensor]:
        """Stack consecutive images of one shape; a new shape starts a new batch.

        Raises:
            DataError: An image is not a finite float tensor (C, H, W).
        """
        return (batch for (batch,) in self._stacked(which))

    def pairs(self, which: Which, other: Which) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of two sets side by side.

        Raises:
            DataError: An image and its partner differ in shape, or one is not a finite float tensor (C, H, W).
        """
        return ((batch, partners) for batch, partners in self._stacked(which, other))

    def _stacked(self, *names: Which) -> Iterator[list[Tensor]]:
        held: list[list[Tensor]] = []
        for index in range(len(self.images(names[0]))):
            row = [self.images(name)[index] for name in names]
            for name, image in zip(names, row, strict=True):
                if image.ndim != 3 or not image.is_floating_point():
                    raise DataError(
                        f"{name} image {index}: expected a float tensor (C, H, W) in [-1, 1], "
                        f"not {image.dtype} of shape {tuple(image.shape)}"
                    )
                if not bool(torch.isfinite(image).all()):
                    raise DataError(f"{name} image {index} has values that are not finite")
                if image.shape != row[0].shape:
                    raise DataError(
                        f"{names[0]} image {index} has shape {tuple(row[0].shape)} (C, H, W), its {name} "
                        f"{tuple(image.shape)}; crop or resize one to the other"
                    )
            if held and (len(held) == BATCH_IMAGES or held[0][0].shape != row[0].shape):
                yield [torch.stack(images) for images in zip(*held, strict=True)]
                held = []
            held.append(row)
        if held:
            yield [torch.stack(images) for images in zip(*held, strict=True)]

    def features(self, network: str, which: Which) -> Tensor:
        """Features (N, D) of a set by one of ``networks``; computed once for all metrics."""
        if (network, which) in self.known:
            return self.known[network, which]
        extract = self.networks[network]
        return self.once((network, which), lambda: torch.cat([extract(batch).cpu() for batch in self.batches(which)]))

    def once(self, key: Any, compute: Callable[[], T]) -> T:
        """Share a value that several metrics need of this made set."""
        if key not in self._of_this:
            self._of_this[key] = compute()
        return self._of_this[key]


@dataclasses.dataclass(frozen=True)
class Score:
    """One measured value. A metric's function fills in what it measured, ``evaluate_images`` the description."""

    value: float
    spread: float | None = None
    """Standard deviation over random subsets of the images, where the metric has it."""
    interval: tuple[float, float] | None = None
    """95 % confidence interval over images, where the metric has it."""
    per_level: dict[str, float] = dataclasses.field(default_factory=dict)
    """Value per pyramid level or class, where the metric has them."""
    per_image: list[float] = dataclasses.field(default_factory=list)
    """Value per image, in the order given, where the metric is a mean over images; NaN: nothing to measure."""
    images: int = 0
    """Made images that were scored, without those that had nothing to measure; 0 from a metric means all."""
    reference_images: int = 0
    """Images that they were compared with; 0 from a metric means all."""
    name: str = ""
    label: str = ""
    unit: str = ""
    better: Literal["lower", "higher"] = "lower"
    protocol: str = ""

    @property
    def full_name(self) -> str:
        """Name with both counts, e.g. ``swd_progan_x1e3_120v140``: values of other counts are not comparable."""
        return f"{self.name}_{self.images}v{self.reference_images}"

    def scaled(self, factor: float) -> Score:
        """The score in another unit."""
        return dataclasses.replace(
            self,
            value=factor * self.value,
            spread=None if self.spread is None else factor * self.spread,
            interval=None if self.interval is None else (factor * self.interval[0], factor * self.interval[1]),
            per_level={key: factor * value for key, value in self.per_level.items()},
        )

    def plain(self) -> dict[str, Any]:
        """The score as a record holds it: no values of single images, and infinities as words, for JSON."""
        names = ("name", "value", "label", "unit", "better", "protocol", "images", "reference_images", "spread",
                 "interval", "per_level")  # fmt: skip
        return {name: _plain(getattr(self, name)) for name in names}


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


@dataclasses.dataclass(frozen=True)
class Metric:
    """One row of ``METRICS``.

    Attributes:
        function: (image sets, seed) -> Score.
        label: Short words for a table.
        unit: Unit of the value; empty if it has none.
        better: Which direction is an improvement.
        protocol: Everything that two people must share to compare their values, the networks and counts apart.
        against: What the made images are compared with.
        networks: Networks that it calls: a name, or ``name.method`` for another method than the forward pass.
        label_maps: Whether it needs sources that are label maps.
        minimum: Fewest images, of both sets, with which it means anything.
        of_colours: Whether it reads channels as colours without a network.
        requires: Says why the sets do not allow it; empty if they do.
    """

    function: Callable[[ImageSets, int], Score]
    label: str
    unit: str
    better: Literal["lower", "higher"]
    protocol: str
    against: Which
    networks: tuple[str, ...] = ()
    label_maps: bool = False
    minimum: int = 1
    of_colours: bool = False
    requires: Callable[[ImageSets], str] = lambda sets: ""

    def judges_by(self, networks: Iterable[str]) -> bool:
        """Whether it looks at images through one of these networks."""
        return bool({network.partition(".")[0] for network in self.networks} & set(networks))


def checked(measure: str, **batches: Tensor) -> list[Tensor]:
    """Batches (B, C, H, W) of one shape, finite, in float64 on one device.

    Raises:
        DataError: They are not; the message begins with ``measure`` and names the batch by its keyword.
    """
    first = next(iter(batches.values()))
    device = "cpu" if first.device.type == "mps" else first.device  # mps has no float64
    for what, images in batches.items():
        if images.ndim != 4 or images.shape != first.shape:
            shapes = ", ".join(f"{name} has shape {tuple(each.shape)}" for name, each in batches.items())
            raise DataError(f"{measure}: {shapes}; expected {'batches of one shape' * (len(batches) > 1)} (B, C, H, W)")
        finite = torch.isfinite(images).flatten(1).all(1)
        if not bool(finite.all()):
            raise DataError(f"{measure}: {what} image {int((~finite).nonzero()[0])} has values that are not finite")
    return [images.detach().to(device).double() for images in batches.values()]


METRICS: dict[str, Metric] = {}
"""Name -> row, in the order of printed tables."""


def metric(name: str, label: str, unit: str, better: Literal["lower", "higher"], protocol: str, **options: Any) -> Any:
    """Decorator that adds a function of (``ImageSets``, seed) -> ``Score`` to ``METRICS``; see ``Metric``."""
    if name in METRICS:
        raise ValueError(f"there is a metric '{name}' already")

    def register(function: Callable[[ImageSets, int], Score]) -> Callable[[ImageSets, int], Score]:
        METRICS[name] = Metric(function, label, unit, better, protocol, **options)
        return function

    return register


def unavailable_reason(name: str, sets: ImageSets) -> str:
    """Why a metric cannot be computed from ``sets``; empty if it can."""
    row = METRICS[name]
    absent = {
        "truth": "it needs the true partner of every image",
        "source": "it needs what the images were made from",
        "real": "there are no real images of the target domain",
    }
    if row.against != "fake" and not len(sets.images(row.against)):
        return absent[row.against]
    if row.label_maps and not sets.label_maps:
        return "the sources are not label maps in the colours of Cityscapes"
    if reason := row.requires(sets):
        return reason
    if missing := [network for network in row.networks if network not in sets.networks]:
        return f"the network '{missing[0].partition('.')[0]}' is not available"
    if len(sets.fake):
        channels = len(sets.fake[0])
        if (row.of_colours or row.networks) and channels not in (1, 3):
            return f"it needs colour or gray, and these images have {channels} channels"
        if row.against != "fake" and (other := len(sets.images(row.against)[0])) != channels:
            return f"it compares images of {channels} channels with others of {other} channels"
    fewest = min(len(sets.fake), len(sets.images(row.against)))
    if fewest < row.minimum:
        return f"it needs at least {row.minimum} images in each set, and there are {fewest}"
    return ""


def possible_metrics(sets: ImageSets) -> list[str]:
    """Metrics that can be computed from ``sets``, in the table's order."""
    return [name for name in METRICS if not unavailable_reason(name, sets)]


def known_metrics(names: Iterable[str]) -> list[str]:
    """The names without repetition.

    Raises:
        ConfigError: One is no row of ``METRICS``.
    """
    for name in names:
        if name not in METRICS:
            raise ConfigError(f"unknown metric '{name}'{nearest(name, METRICS)}; known: {', '.join(METRICS)}")
    return list(dict.fromkeys(names))


def evaluate_images(sets: ImageSets, names: Sequence[str] | None = None, seed: int = 0) -> dict[str, Score]:
    """Score made images against real ones, their true partners and what they were made from.

    Args:
        sets: The images. Sizes may vary from pair to pair for paired scores, not within a set for the others.
        names: Keys of ``METRICS`` to compute, in that order; ``None`` takes all that ``sets`` allow.
        seed: For metrics that sample at random.

    Returns:
        Scores keyed by their row in ``METRICS``.

    Raises:
        ConfigError: A name is unknown, or asks for what ``sets`` do not hold.
        DataError: An image or set cannot be scored; the message says which and why.
    """
    chosen = possible_metrics(sets) if names is None else known_metrics(names)
    if len(sets.fake) == 0:
        raise DataError("there are no generated images to score")
    for name in chosen:
        if reason := unavailable_reason(name, sets):
            raise ConfigError(f"metric '{name}' cannot be computed: {reason}")
    for words, partners in (("truths", sets.truth), ("sources", sets.source)):
        if partners is not None and len(partners) != len(sets.fake):
            raise DataError(
                f"{len(sets.fake)} generated images but {len(partners)} {words}; give one per image, in the same order"
            )
    scores = {}
    for name in chosen:
        row = METRICS[name]
        score = row.function(sets, seed)
        scores[name] = dataclasses.replace(
            score,
            name=name,
            label=row.label,
            unit=row.unit,
            better=row.better,
            protocol=row.protocol,
            images=score.images or len(sets.fake),
            reference_images=score.reference_images or len(sets.images(row.against)),
        )
    return scores
