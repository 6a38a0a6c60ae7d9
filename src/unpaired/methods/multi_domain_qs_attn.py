"""QS-Attn between several domains: the question that Appendix A of its paper leaves open, put together from parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from unpaired.config import settings
from unpaired.errors import ConfigError
from unpaired.methods.base import DEFAULT_REQUEST, ImageBatch, Method, Phase, TranslateRequest, derive_seeds, register
from unpaired.methods.contrast import mean_patch_nce, projected_pairs
from unpaired.methods.qs_attn import QSAttn, QSAttnConfig
from unpaired.networks import ConditionalGenerator, MultiTaskDiscriminator, Projector


@settings
class MultiDomainQSAttnConfig(QSAttnConfig):
    """Settings of QS-Attn between several domains: those of QS-Attn, without its pool and its mirrored inputs."""

    domains: tuple[str, ...] = ()
    """Names of the domains; training fills them in from the folder."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.own_networks("Multi-domain QS-Attn", "generator", "discriminator")
        if len(self.domains) == 1 or len(set(self.domains)) < len(self.domains):
            raise ConfigError(f"domains must name at least two, each once, not {', '.join(self.domains)}")
        if self.image_pool or self.flip_equivariance:
            raise ConfigError(
                "image_pool and flip_equivariance are not offered between several domains; leave them off"
            )


@dataclass(frozen=True)
class MultiDomainOutputs:
    """What one training step computes, once. K = 2 with the identity pass, else 1.

    Attributes:
        target: I_y, (B, C, H, W).
        translated: G(I_x, y's domain), (B, C, H, W).
        domains: (B,) int64, the domain of I_y and of the translation.
        source_features: Per tap, the encodings of I_x (and I_y), (K B, C_t, H_t, W_t), from the full passes.
        translated_features: Per tap, the encodings of G(I_x) (and G(I_y, its own domain)), the same shapes.
        seeds: (K B,) int64.
    """

    target: Tensor
    translated: Tensor
    domains: Tensor
    source_features: list[Tensor]
    translated_features: list[Tensor]
    seeds: Tensor


@register("multi_domain_qs_attn")
class MultiDomainQSAttn(Method):
    """One generator for all directions between several domains, with QS-Attn's contrast.

    A composition of our own, there is no paper with figures. From QS-Attn: the contrast L_X between I_x and its
    translation at selected locations, L_Y between I_y and its translation into its own domain, weights, optimiser. From
    StarGAN v2: the discriminator with one output per domain. The generator hears of the domain only after the last tap,
    so that encodings, and with them what is selected, mean the same for all directions. Without a request it translates
    into the second domain, the target that training scores unless it is told another.

    Args:
        config: The settings; ``domains`` must be filled in.
        channels: Channels of the images of all domains.

    Raises:
        ConfigError: There are no domains, or a tap lies behind the generator's blocks.
    """

    Config: ClassVar[type[MultiDomainQSAttnConfig]] = MultiDomainQSAttnConfig
    compiled = ("generator.translate_and_encode", "generator.encode", "discriminator.forward")
    title = "Multi-domain QS-Attn"
    citation = (
        "Choi, Uh, Yoo, Ha: StarGAN v2: Diverse Image Synthesis for Multiple Domains. CVPR 2020. " + QSAttn.citation
    )
    data_defaults: ClassVar[Mapping[str, Any]] = {"load_size_until": "decay"}
    supports = frozenset({"domain"})
    not_recordable = "the domains of its images would not be recorded with it"

    def __init__(self, config: MultiDomainQSAttnConfig, channels: int = 3) -> None:
        super().__init__()
        if not config.domains:
            raise ConfigError("domains: the names of at least two are needed; a folder given as --domains has them")
        self.config = config
        self.domains = config.domains
        count = len(config.domains)
        self.generator = ConditionalGenerator(
            channels,
            channels,
            domains=count,
            taps=config.taps,
            base_channels=config.base_channels,
            blocks=config.blocks,
        )
        self.discriminator = MultiTaskDiscriminator(
            channels,
            domains=count,
            **config.discriminator_options(),
        )
        self.projector = Projector(
            {tap: self.generator.tap_channels[tap] for tap in config.taps}, config.projector_width
        )
        self.smallest_image = self.discriminator.smallest_image
        self.cycle = config.identity_interval if config.identity_weight > 0 else 1
        self.phases = (
            Phase("discriminator", ("discriminator",), self.discriminator_loss),
            Phase("generator", ("generator", "projector"), self.generator_loss),
        )

    def translate(self, x_BCHW: Tensor, request: TranslateRequest = DEFAULT_REQUEST) -> Tensor:
        domain = self.default_domain if request.domain is None else request.domain
        return self.generator(x_BCHW, torch.full(x_BCHW.shape[:1], domain, device=x_BCHW.device))

    def encode(self, x_BCHW: Tensor, taps: Sequence[str]) -> list[Tensor]:
        return self.generator.encode(x_BCHW, taps)

    def selection(self, tap: str) -> dict[str, Any]:
        return self.config.selection(tap)

    def forward_train(self, batch: ImageBatch) -> MultiDomainOutputs:
        domains = batch.target_domains
        assert domains is not None, "a batch of several domains says which"
        copies = 2 if self.config.identity_weight > 0 and batch.number % self.config.identity_interval == 0 else 1
        inputs = torch.cat([batch.source, batch.target][:copies])
        # Both I_x and, for the identity term, I_y are translated into the domain of I_y.
        translated, source_features = self.generator.translate_and_encode(
            inputs, self.config.taps, domains.repeat(copies)
        )
        return MultiDomainOutputs(
            target=batch.target,
            translated=translated[: len(batch.source)],
            domains=domains,
            source_features=source_features,
            translated_features=self.generator.encode(translated, self.config.taps),
            seeds=torch.cat([derive_seeds(batch.seeds, term) for term in range(copies)]),
        )

    def discriminator_loss(self, outputs: MultiDomainOutputs) -> dict[str, Tensor]:
        """The loss of each domain's output of D on I_y and on the translation into it, without gradient to G."""

        def of_the_domains(images_BCHW: Tensor, seeds_B: Tensor | None = None) -> Tensor:
            return self.discriminator(images_BCHW, outputs.domains.repeat(len(images_BCHW) // len(outputs.domains)))

        seeds = outputs.seeds[: len(outputs.target)]
        return self.config.discriminator_terms(of_the_domains, outputs.target, outputs.translated, seeds)

    def generator_loss(self, outputs: MultiDomainOutputs) -> dict[str, Tensor]:
        """Eq. 3 of QS-Attn: the adversarial term of the wanted domain, L_X and L_Y."""
        config, images = self.config, len(outputs.target)
        scores = self.discriminator(outputs.translated, outputs.domains)
        of_source, of_target = self.contrastive_loss(outputs).tensor_split([images])
        share = config.contrastive_share
        terms = {
            "adversarial": config.adversarial_term(scores),
            "contrastive": share * config.contrastive_weight * of_source.mean(),
        }
        if len(of_target):
            terms["identity"] = share * config.identity_weight * of_target.mean()
        return terms

    def contrastive_loss(self, outputs: MultiDomainOutputs) -> Tensor:
        """Mean over the taps of the contrast at selected locations, per image: (K B,)."""
        pairs = projected_pairs(
            self.config.taps,
            outputs.source_features,
            outputs.translated_features,
            outputs.seeds,
            projector=self.projector,
            num_queries=self.config.num_queries,
            selection=self.selection,
        )
        return mean_patch_nce(pairs, len(outputs.target), self.config.temperature, self.config.negatives)
