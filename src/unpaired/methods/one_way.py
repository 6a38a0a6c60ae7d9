"""The base of methods that translate in one direction: one generator, one discriminator, the adversarial step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from unpaired.methods.adversarial import AdversarialConfig, generator_scores
from unpaired.methods.base import DEFAULT_REQUEST, Method, Phase, TranslateRequest
from unpaired.methods.image_pool import ImagePool


@dataclass(frozen=True, kw_only=True)
class OneWayOutputs:
    """Tensors that one training step computes once.

    Attributes:
        target: I_y, (B, C, H, W).
        translated: G(I_x), (B, C, H, W).
        fakes: Translations for the discriminator, (B, C, H, W): G(I_x), some replaced by earlier ones from the pool.
        seeds: (K B,) int64; the first B are those of the batch's images.
    """

    target: Tensor
    translated: Tensor
    fakes: Tensor
    seeds: Tensor


class OneWay(Method):
    """One generator and one discriminator; each step updates the discriminator, then the generator.

    Args:
        config: The settings.
        channels: Channels of the images of both domains.
    """

    compiled: ClassVar[tuple[str, ...]] = (
        "generator.translate_and_encode",
        "generator.encode",
        "discriminator.forward",
    )
    data_defaults: ClassVar[Mapping[str, Any]] = {"load_size_until": "decay"}
    updated_with_generator: ClassVar[tuple[str, ...]] = ()
    """Networks that the generator's phase updates as well."""
    has_pool: ClassVar[bool] = False
    """Whether the setting ``image_pool`` applies."""
    config: Any

    def __init__(self, config: AdversarialConfig, channels: int = 3) -> None:
        super().__init__()
        self.config = config
        self.generator = self.new_generator(channels)
        self.discriminator = self.new_discriminator(channels)
        if self.has_pool:
            self.pool = ImagePool(self.config.image_pool)
            self.not_recordable, self.one_process_only = self.pool.not_recordable, self.pool.one_process_only
        self.smallest_image = self.discriminator.smallest_image
        self.phases = (
            Phase("discriminator", ("discriminator",), self.discriminator_loss),
            Phase("generator", ("generator", *self.updated_with_generator), self.generator_loss),
        )

    def new_generator(self, channels: int) -> Any:
        """Create the generator that the settings ask for."""
        return self.config.new_generator(channels)

    def new_discriminator(self, channels: int) -> Any:
        """Create the discriminator that the settings ask for."""
        return self.config.new_discriminator(channels)

    def translate(self, x_BCHW: Tensor, request: TranslateRequest = DEFAULT_REQUEST) -> Tensor:
        return self.generator(x_BCHW)

    def encode(self, x_BCHW: Tensor, taps: Sequence[str]) -> list[Tensor]:
        return self.generator.encode(x_BCHW, taps)

    def discriminator_of(self, outputs: Any) -> Any:
        """D as a function of images (B, C, H, W) and seeds (B,), for the images of a step."""
        return self.discriminator

    def discriminator_loss(self, outputs: Any) -> dict[str, Tensor]:
        """Discriminator loss on I_y and the fakes, without gradient to G."""
        seeds = outputs.seeds[: len(outputs.target)]
        return self.config.discriminator_terms(self.discriminator_of(outputs), outputs.target, outputs.fakes, seeds)

    def generator_loss(self, outputs: Any) -> dict[str, Tensor]:
        """The generator's terms; here the adversarial one alone."""
        seeds = outputs.seeds[: len(outputs.target)]
        scores = generator_scores(self.discriminator_of(outputs), outputs.translated, seeds)
        return {"adversarial": self.config.adversarial_term(scores)}
