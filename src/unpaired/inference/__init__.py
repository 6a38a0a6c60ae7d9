"""Translation with trained weights: one class for the command line, the metrics and anybody's own script."""

from unpaired.inference.loading import Origin, choose_device
from unpaired.inference.precision import InferencePrecision
from unpaired.inference.significance import Significance
from unpaired.inference.translator import Translator

__all__ = ["InferencePrecision", "Origin", "Significance", "Translator", "choose_device"]
