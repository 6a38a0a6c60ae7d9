"""What every method is: networks, phases of loss terms, and a translation. The engine knows nothing more of it."""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from unpaired.config import Share, settings
from unpaired.ops import splitmix64

Decay = Annotated[float, Field(ge=0, lt=1)]
"""A decay of Adam's running means, in [0, 1)."""


@settings
class OptimiserConfig:
    """Adam and its schedule, counted in images; the values of the CUT family (method.md, section 1)."""

    learning_rate: PositiveFloat = 2e-4
    """Learning rate of Adam for every network."""
    beta1: Decay = 0.5
    """Adam's decay of the gradient's running mean."""
    beta2: Decay = 0.999
    """Adam's decay of the squared gradient's running mean."""
    weight_decay: NonNegativeFloat = 0.0
    """L2 penalty of Adam on every parameter."""
    epochs: PositiveInt = 400
    """Length of training when the number of images is not given: passes over the larger of the two sets."""
    schedule: Literal["linear", "cosine", "halving"] = "linear"
    """How the learning rate falls: to zero after constant_fraction, linearly or along half a cosine, or by halves, each
    after a tenth."""
    constant_fraction: Share = 0.5
    """Share of training at the full learning rate; over the rest it falls to zero."""

    def factor(self, progress: float) -> float:
        """Multiplier of the learning rate after ``progress`` (0 at the start, 1 at the end) of training."""
        if self.schedule == "halving":
            return 0.5 ** int(10 * min(progress, 1.0) + 1e-9)
        if progress <= self.constant_fraction:
            return 1.0
        left = max(0.0, (1.0 - progress) / (1.0 - self.constant_fraction))
        return left if self.schedule == "linear" else 0.5 - 0.5 * math.cos(math.pi * left)

    def constant_images(self, total: int) -> int:
        """How many of ``total`` training images are seen at the full learning rate."""
        # Of the decimal number that was written: 0.55 of 20 is 11, in floats 11.000...2.
        share = Fraction(1, 10) if self.schedule == "halving" else Fraction(repr(float(self.constant_fraction)))
        return math.ceil(share * total)


@dataclass(frozen=True)
class ImageBatch:
    """One unpaired batch on one device.

    Attributes:
        source: I_x, (B, C, H, W) float in [-1, 1].
        target: I_y, (B, C, H, W) float in [-1, 1]; not paired with the source.
        seeds: (B,) int64, one per image, a function of (training seed, image): every random draw of a method is a
            function of these, so that it does not depend on batch size, process count or device. They lie on the CPU,
            where decisions that the host takes (:func:`coin_flips`) need no synchronisation, or, while a step is
            recorded, on the device.
        source_domains: (B,) int64, the domain of each source image, where there are more than two domains.
        target_domains: (B,) int64, the domain of each target image; never that of its source image.
        progress: () float64 in [0, 1), the share of training done when the step begins, for losses that change on the
            way. It lies where ``seeds`` do and is the same in all processes.
        number: Which step this is, from 0, for what is computed at every few steps only (:attr:`Method.cycle`).
    """

    source: Tensor
    target: Tensor
    seeds: Tensor
    source_domains: Tensor | None = None
    target_domains: Tensor | None = None
    progress: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    number: int = 0


@dataclass(frozen=True)
class TranslateRequest:
    """What a translation should be, for methods that offer more than one (:attr:`Method.supports`).

    Attributes:
        reverse: Translate from the target domain to the source domain.
        style_seeds: (B,) int64, one per image: draws its style. Equal seeds give equal styles.
        style_reference: (1 or B, C, H, W) in [-1, 1]: images of the wanted domain whose style is taken.
        domain: Position of the wanted domain among :attr:`Method.domains`.
        style: (1 or B, :attr:`Method.style_channels`), the style itself: ``normal_draws`` of a seed, say.
    """

    reverse: bool = False
    style_seeds: Tensor | None = None
    style_reference: Tensor | None = None
    domain: int | None = None
    style: Tensor | None = None


DEFAULT_REQUEST = TranslateRequest()
"""Source to target, the default style, the method's default domain: what every method supports."""


@dataclass(frozen=True)
class AdamSettings:
    """What the Adam of one network has otherwise than the run's, for papers that set it apart.

    Attributes:
        learning_rate_factor: Multiplies the learning rate of the settings.
        betas: Decays of the running means of the gradient and of its square; None takes those of the settings.
    """

    learning_rate_factor: float = 1.0
    betas: tuple[float, float] | None = None


@dataclass(frozen=True)
class Phase:
    """One optimizer step of a training step.

    Attributes:
        name: Key of its optimizer in the checkpoint.
        networks: Names of the method's attributes that it updates; all others are frozen while it runs.
        loss: Maps the outputs of ``forward_train`` to named loss terms, each already weighted, mean over the images.
        interval: Run the phase at every ``interval``-th step.
        adam: Network -> what its Adam has otherwise than the run's.
    """

    name: str
    networks: tuple[str, ...]
    loss: Callable[[Any], dict[str, Tensor]]
    interval: int = 1
    adam: Mapping[str, AdamSettings] = field(default_factory=dict)


class Method(nn.Module, ABC):
    """Base of all methods: one paper, one file.

    Subclasses set ``Config`` (a frozen dataclass with a field ``optimiser: OptimiserConfig``), ``title`` and
    ``citation``, take ``(config, channels)``, create their networks and list ``phases`` in the order of the step.
    """

    Config: ClassVar[type]
    title: ClassVar[str]
    citation: ClassVar[str]
    data_defaults: ClassVar[Mapping[str, Any]] = {}
    """Settings of :class:`unpaired.data.DataConfig` that this method's authors have and that are not its defaults."""
    served: ClassVar[tuple[str, ...]] = ("generator",)
    """Names of the networks that ``translate`` needs: these are averaged (EMA) and exported."""
    compiled: ClassVar[tuple[str, ...]] = ()
    """What ``torch.compile`` takes when asked to: ``network.function``."""

    phases: tuple[Phase, ...]
    supports: frozenset[str] = frozenset()
    """Which fields of :class:`TranslateRequest` it understands: ``reverse``, ``style`` or ``domain``."""
    domains: tuple[str, ...] = ()
    """Names of the domains of a method that knows several."""
    default_domain: int = 1
    """Position of the domain into which a plain request translates, where there are several."""
    style_channels: int = 0
    """Length of a style; 0 without styles."""
    smallest_image: int = 8
    """The smallest training image, in pixels, that every network accepts."""
    smallest_batch: int = 1
    """The fewest images of a step that leave its losses something to compare."""
    cycle: int = 1
    """After how many steps what ``forward_train`` computes repeats: it may do more at each multiple of this."""
    not_recordable: str = ""
    """Why a step of this method, as configured, cannot be recorded as a CUDA graph; empty when it can."""
    one_process_only: str = ""
    """Why this method, as configured, cannot be trained by several processes; empty when it can."""

    def prepare(self) -> None:
        """Load what training needs and translating does not (pretrained networks); called once, before training.

        A network of the method that has a ``prepare`` of its own is asked to do so.

        What it loads belongs in no checkpoint and no optimizer: see :class:`unpaired.networks.frozen.Frozen`.

        Raises:
            BackendError: It is not on this machine; the message says what to do.
        """
        for network in self.children():
            if callable(prepare := getattr(network, "prepare", None)):
                prepare()

    @abstractmethod
    def forward_train(self, batch: ImageBatch) -> Any:
        """Compute every image and encoding that the losses need, once."""

    @abstractmethod
    def translate(self, x_BCHW: Tensor, request: TranslateRequest = DEFAULT_REQUEST) -> Tensor:
        """Translate images: (B, C, H, W) in [-1, 1], sides at least 8 -> the same sides rounded up to 4.

        A method may leave out ``request`` if it supports none of its fields.
        """

    @abstractmethod
    def encode(self, x_BCHW: Tensor, taps: Sequence[str]) -> list[Tensor]:
        """Features of images at named places of the encoder, for heat maps of significance."""

    def selection(self, tap: str) -> dict[str, Any]:
        """Options of ``query_selected_attention`` at one tap; methods without selection sample at random.

        ``pool_to`` among them, if it is there, is the side to which larger maps are pooled first.
        """
        return {"significance": "random", "routing": "none"}

    def served_networks(self) -> dict[str, nn.Module]:
        """The networks that ``translate`` needs, by name."""
        return {name: getattr(self, name) for name in self.served}


M = TypeVar("M", bound=Method)

METHODS: dict[str, type[Method]] = {}
"""Name -> method; each file of this package adds its own."""


def register(name: str) -> Callable[[type[M]], type[M]]:
    """Make a subclass of :class:`Method` known as ``name``, on the command line and everywhere else."""

    def add(method: type[M]) -> type[M]:
        if name in METHODS:
            raise ValueError(f"two methods are called '{name}': {METHODS[name].__name__} and {method.__name__}")
        METHODS[name] = method
        return method

    return add


def frozen_networks(config: Any) -> frozenset[str]:
    """Names of the frozen networks that training with these settings looks through; scores by them are flattered."""
    return getattr(config, "frozen_networks", frozenset())


def derive_seeds(seeds: Tensor, *salts: int) -> Tensor:
    """Make independent seeds for one purpose out of the seeds of the images.

    Args:
        seeds: (B,) int64.
        salts: What the seeds are for (a tap's number, a term's number).

    Returns:
        (B,) int64 on the device of ``seeds``: splitmix64 over the seed and each salt in turn.
    """
    for salt in salts:
        seeds = splitmix64(seeds ^ _hashed(salt))
    return seeds


def coin_flips(seeds: Tensor) -> list[bool]:
    """One fair coin per image, decided on the host."""
    return [hashed < 0 for hashed in splitmix64(seeds).tolist()]  # the highest bit is the sign


@functools.cache
def _hashed(salt: int) -> int:
    """A number of the host's, so that using it copies nothing to the device."""
    return int(splitmix64(torch.tensor(salt)))


def image_seeds(seed: int, indices: Sequence[int] | Tensor) -> Tensor:
    """Seeds of images by their place in the training sequence: (B,) int64 on the CPU."""
    return derive_seeds(torch.as_tensor(indices, dtype=torch.int64), seed)
