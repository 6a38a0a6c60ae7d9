"""The interface of a method: networks, phases with their losses, and translation. The engine uses nothing else."""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn

from unpaired.config import Amount, Count, Positive, Share, settings
from unpaired.ops import splitmix64

Decay = Annotated[float, Field(ge=0, lt=1)]
"""A decay rate of Adam's running means, in [0, 1)."""


@settings
class OptimiserConfig:
    """Adam and its schedule, counted in images; the values of the CUT family (method.md, section 1)."""

    learning_rate: Positive = 2e-4
    """Learning rate of Adam for every network."""
    beta1: Decay = 0.5
    """Adam's decay rate of the running mean of the gradient."""
    beta2: Decay = 0.999
    """Adam's decay rate of the running mean of the squared gradient."""
    weight_decay: Amount = 0.0
    """L2 penalty of Adam on every parameter."""
    epochs: Count = 400
    """Length of training when the number of images is not given: passes over the larger of the two sets."""
    schedule: Literal["linear", "cosine", "halving"] = "linear"
    """Learning rate decay: linear or cosine, to zero after constant_fraction, or halving after each tenth."""
    constant_fraction: Share = 0.5
    """Fraction of training at the full learning rate, before it decays to zero."""

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
        # Exact decimal arithmetic: in floats, 0.55 of 20 is 11.000...2, which would round up to 12.
        share = Fraction(1, 10) if self.schedule == "halving" else Fraction(repr(float(self.constant_fraction)))
        return math.ceil(share * total)


@dataclass(frozen=True)
class ImageBatch:
    """One unpaired batch on one device.

    Attributes:
        source: I_x, (B, C, H, W) float in [-1, 1].
        target: I_y, (B, C, H, W) float in [-1, 1]; not paired with the source.
        seeds: (B,) int64, one per image, a function of (training seed, image). Every random draw of a method is a
            function of these, so it does not depend on batch size, process count or device. They are on the CPU, where
            decisions of the host (:func:`coin_flips`) need no synchronisation, or, during CUDA graph capture, on the
            device.
        source_domains: (B,) int64, the domain of each source image, where there are more than two domains.
        target_domains: (B,) int64, the domain of each target image; never that of its source image.
        progress: () float64 in [0, 1), the fraction of training done before this step, on the device of ``seeds`` and
            the same in all processes.
        number: Index of the step, from 0, for passes that run every few steps (:attr:`Method.cycle`).
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
    """Options of a translation, for methods that have them (:attr:`Method.supports`).

    Attributes:
        reverse: Translate from the target domain to the source domain.
        style_seeds: (B,) int64, one per image, from which its style is drawn.
        style_reference: (1 or B, C, H, W) in [-1, 1], images of the target domain whose style is used.
        domain: Index of the target domain in :attr:`Method.domains`.
        style: (1 or B, :attr:`Method.style_channels`), the style itself, for example ``normal_draws`` of a seed.
    """

    reverse: bool = False
    style_seeds: Tensor | None = None
    style_reference: Tensor | None = None
    domain: int | None = None
    style: Tensor | None = None


DEFAULT_REQUEST = TranslateRequest()
"""Source to target, default style, default domain; every method supports it."""


@dataclass(frozen=True)
class AdamSettings:
    """Per-network overrides of Adam.

    Attributes:
        learning_rate_factor: Multiplies the learning rate of the settings.
        betas: Decay rates; None means those of the settings.
    """

    learning_rate_factor: float = 1.0
    betas: tuple[float, float] | None = None


@dataclass(frozen=True)
class Phase:
    """One optimizer step of a training step.

    Attributes:
        name: Key of its optimizer in the checkpoint.
        networks: Attributes of the method that it updates; all other networks are frozen while it runs.
        loss: Maps the outputs of ``forward_train`` to named loss terms, already weighted, each a mean over the images.
        interval: Run the phase at every ``interval``-th step.
        adam: Network -> overrides of its Adam settings.
    """

    name: str
    networks: tuple[str, ...]
    loss: Callable[[Any], dict[str, Tensor]]
    interval: int = 1
    adam: Mapping[str, AdamSettings] = field(default_factory=dict)


class Method(nn.Module, ABC):
    """Base of all methods: one paper, one file.

    Subclasses set ``Config`` (a class of settings with a field ``optimiser: OptimiserConfig``), ``title`` and
    ``citation``, take ``(config, channels)``, create their networks and list ``phases`` in the order of the step.
    """

    Config: ClassVar[type]
    title: ClassVar[str]
    citation: ClassVar[str]
    data_defaults: ClassVar[Mapping[str, Any]] = {}
    """Settings of :class:`unpaired.data.DataConfig` in which the method's authors depart from its defaults."""
    served: ClassVar[tuple[str, ...]] = ("generator",)
    """Networks that ``translate`` needs; these are averaged (EMA) and exported."""
    compiled: ClassVar[tuple[str, ...]] = ()
    """Functions (``network.function``) that the setting ``compile`` passes to ``torch.compile``."""

    phases: tuple[Phase, ...]
    supports: frozenset[str] = frozenset()
    """Supported options of :class:`TranslateRequest`: ``reverse``, ``style`` or ``domain``."""
    domains: tuple[str, ...] = ()
    """Names of the domains of a multi-domain method."""
    default_domain: int = 1
    """Index of the target domain of a multi-domain method without a request."""
    style_channels: int = 0
    """Length of a style; 0 without styles."""
    smallest_image: int = 8
    """The smallest training image, in pixels, that every network accepts."""
    smallest_batch: int = 1
    """The smallest batch size for which all losses are defined."""
    cycle: int = 1
    """Period, in steps, after which the computation of ``forward_train`` repeats."""
    not_recordable: str = ""
    """Why a step of this method, as configured, cannot be recorded as a CUDA graph; empty when it can."""
    one_process_only: str = ""
    """Why this method, as configured, cannot be trained by several processes; empty when it can."""

    def prepare(self) -> None:
        """Load what only training needs (pretrained networks), once, before training.

        Calls ``prepare`` of the networks that have it. Keep pretrained networks out of checkpoints and optimizers with
        :class:`unpaired.networks.frozen.Frozen`.

        Raises:
            BackendError: Weights are missing; the message says what to do.
        """
        for network in self.children():
            if callable(prepare := getattr(network, "prepare", None)):
                prepare()

    @abstractmethod
    def forward_train(self, batch: ImageBatch) -> Any:
        """Compute the images and encodings that the losses need, once per step."""

    @abstractmethod
    def translate(self, x_BCHW: Tensor, request: TranslateRequest = DEFAULT_REQUEST) -> Tensor:
        """Translate images: (B, C, H, W) in [-1, 1], sides at least 8 -> the same, sides rounded up to multiples of 4.

        ``request`` may be left out by methods that support none of its fields.
        """

    @abstractmethod
    def encode(self, x_BCHW: Tensor, taps: Sequence[str]) -> list[Tensor]:
        """Features of images at named encoder layers, for heat maps of significance."""

    def selection(self, tap: str) -> dict[str, Any]:
        """Options of ``query_selected_attention`` at one tap, with ``pool_to``, if present, the side to pool to first.

        Methods without selection sample at random.
        """
        return {"significance": "random", "routing": "none"}

    def served_networks(self) -> dict[str, nn.Module]:
        """The networks that ``translate`` needs, by name."""
        return {name: getattr(self, name) for name in self.served}


M = TypeVar("M", bound=Method)

METHODS: dict[str, type[Method]] = {}
"""Name -> method; each file of this package adds its own."""


def register(name: str) -> Callable[[type[M]], type[M]]:
    """Register a subclass of :class:`Method` under ``name``."""

    def add(method: type[M]) -> type[M]:
        if name in METHODS:
            raise ValueError(f"two methods are called '{name}': {METHODS[name].__name__} and {method.__name__}")
        METHODS[name] = method
        return method

    return add


def frozen_networks(config: Any) -> frozenset[str]:
    """Frozen networks that training with these settings uses; scores computed with them are biased in its favour."""
    return getattr(config, "frozen_networks", frozenset())


def derive_seeds(seeds: Tensor, *salts: int) -> Tensor:
    """Derive independent seeds for one purpose from the seeds of the images.

    Args:
        seeds: (B,) int64.
        salts: Numbers of the purpose (a tap, a term).

    Returns:
        (B,) int64 on the device of ``seeds``: splitmix64 over the seed and each salt in turn.
    """
    for salt in salts:
        seeds = splitmix64(seeds ^ _hashed(salt))
    return seeds


def coin_flips(seeds: Tensor) -> list[bool]:
    """One fair coin per image, on the host."""
    return [hashed < 0 for hashed in splitmix64(seeds).tolist()]  # the highest bit is the sign


@functools.cache
def _hashed(salt: int) -> int:
    """A Python integer, so that using it copies nothing to the device."""
    return int(splitmix64(torch.tensor(salt)))


def image_seeds(seed: int, indices: Sequence[int] | Tensor) -> Tensor:
    """Seeds of images by their index in the training sequence: (B,) int64 on the CPU."""
    return derive_seeds(torch.as_tensor(indices, dtype=torch.int64), seed)
