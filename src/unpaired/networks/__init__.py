"""Networks, independent of losses and methods."""

from unpaired.networks.conditional import ConditionalGenerator, MultiTaskDiscriminator
from unpaired.networks.discriminators import PatchDiscriminator
from unpaired.networks.generators import DEFAULT_TAPS, ResnetGenerator
from unpaired.networks.light import LightGenerator
from unpaired.networks.local import LocalDiscriminator, LocalGenerator
from unpaired.networks.path import PathGenerator
from unpaired.networks.projected import ProjectedDiscriminator, ProjectedScores
from unpaired.networks.projector import PredictingProjector, Projector

__all__ = [
    "DEFAULT_TAPS",
    "ConditionalGenerator",
    "LightGenerator",
    "LocalDiscriminator",
    "LocalGenerator",
    "MultiTaskDiscriminator",
    "PatchDiscriminator",
    "PathGenerator",
    "PredictingProjector",
    "ProjectedDiscriminator",
    "ProjectedScores",
    "Projector",
    "ResnetGenerator",
]
