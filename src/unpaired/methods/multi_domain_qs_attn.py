"""Multi-domain QS-Attn: one generator for several domains, which the appendix of the QS-Attn paper leaves open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from unpaired.config import settings
from unpaired.errors import ConfigError
from unpaired.methods.base import DEFAULT_REQUEST, ImageBatch, TranslateRequest, derive_seeds, register
from unpaired.methods.cut import ContrastiveOutputs
from unpaired.methods.qs_attn import QSAttn, QSAttnConfig
from unpaired.networks import ConditionalGenerator, MultiTaskDiscriminator


@settings
class MultiDomainQSAttnConfig(QSAttnConfig):
    """Settings of multi-domain QS-Attn: those of QS-Attn, without its pool and its mirrored inputs."""

    domains: tuple[str, ...] = ()
    """Names of the domains; training takes them from the folder."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_defaults("Multi-domain QS-Attn", "generator", "discriminator")
        if len(self.domains) == 1 or len(set(self.domains)) < len(self.domains):
            raise ConfigError(f"domains must name at least two, each once, not {', '.join(self.domains)}")
        if self.image_pool or self.flip_equivariance:
            raise ConfigError(
                "image_pool and flip_equivariance are not offered between several domains; leave them off"
            )


@dataclass(frozen=True, kw_only=True)
class MultiDomainOutputs(ContrastiveOutputs):
    """As :class:`ContrastiveOutputs`; G(I_x) and G(I_y) are translations into the domain of I_y.

    Attributes:
        domains: (B,) int64, the domain of I_y and of the translation.
    """

    domains: Tensor


@register("multi_domain_qs_attn")
class MultiDomainQSAttn(QSAttn):
    """One generator for all directions between several domains, with QS-Attn's contrast.

    Our own combination, without published scores. From QS-Attn: L_X, L_Y (I_y translated into its own domain), weights
    and optimiser. From StarGAN v2: the discriminator with one output per domain. The generator is conditioned on the
    domain only after the last tap, so that encodings, and with them the selected locations, are the same for all
    directions. Without a request it translates into the second domain.

    Args:
        config: The settings; ``domains`` must be set.
        channels: Channels of the images of all domains.

    Raises:
        ConfigError: There are no domains, or a tap lies behind the generator's blocks.
    """

    Config: ClassVar[type[MultiDomainQSAttnConfig]] = MultiDomainQSAttnConfig
    title = "Multi-domain QS-Attn"
    citation = (
        "Choi, Uh, Yoo, Ha: StarGAN v2: Diverse Image Synthesis for Multiple Domains. CVPR 2020. " + QSAttn.citation
    )
    supports = frozenset({"domain"})
    not_recordable = "a recorded step does not take the domains of its images as an input"
    has_pool = False
    config: MultiDomainQSAttnConfig

    def __init__(self, config: MultiDomainQSAttnConfig, channels: int = 3) -> None:
        if not config.domains:
            raise ConfigError("domains: at least two names are needed; training takes them from the --domains folder")
        super().__init__(config, channels)
        self.domains = config.domains

    def new_generator(self, channels: int) -> ConditionalGenerator:
        config = self.config
        return ConditionalGenerator(
            channels,
            channels,
            domains=len(config.domains),
            taps=config.taps,
            base_channels=config.base_channels,
            blocks=config.blocks,
        )

    def new_discriminator(self, channels: int) -> MultiTaskDiscriminator:
        return MultiTaskDiscriminator(channels, domains=len(self.config.domains), **self.config.discriminator_options())

    def translate(self, x_BCHW: Tensor, request: TranslateRequest = DEFAULT_REQUEST) -> Tensor:
        domain = self.default_domain if request.domain is None else request.domain
        return self.generator(x_BCHW, torch.full(x_BCHW.shape[:1], domain, device=x_BCHW.device))

    def forward_train(self, batch: ImageBatch) -> MultiDomainOutputs:
        domains, images = batch.target_domains, len(batch.source)
        assert domains is not None, "batches of several domains have target_domains"
        copies = 2 if self.with_identity(batch) else 1
        inputs = torch.cat([batch.source, batch.target][:copies])
        translated, source_features = self.generator.translate_and_encode(
            inputs, self.config.taps, domains.repeat(copies)
        )
        return MultiDomainOutputs(
            target=batch.target,
            translated=translated[:images],
            fakes=translated[:images],
            domains=domains,
            source_features=source_features,
            translated_features=self.generator.encode(translated, self.config.taps),
            seeds=torch.cat([derive_seeds(batch.seeds, term) for term in range(copies)]),
            identical=translated[images:] if copies == 2 else None,
        )

    def discriminator_of(self, outputs: Any) -> Any:
        def of_target_domains(images_BCHW: Tensor, seeds_B: Tensor | None = None) -> Tensor:
            return self.discriminator(images_BCHW, outputs.domains.repeat(len(images_BCHW) // len(outputs.domains)))

        return of_target_domains
