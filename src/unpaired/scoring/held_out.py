"""Scores during training: a bounded number of held-out images, read once, and the same few scores each time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

from unpaired.data import DataConfig, Formats, UnpairedFiles
from unpaired.errors import ConfigError, nearest
from unpaired.metrics import METRICS
from unpaired.scoring.evaluator import Evaluator
from unpaired.scoring.images import ColourImages, evenly_spaced
from unpaired.scoring.networks import ScoringNetworks
from unpaired.scoring.plain import score_values

SCORES = ("kid_lite0_x1e3", "swd_progan_x1e3", "paired_l1_pm1", "identity_percent")
"""Computed each time, where the images allow it; the first two choose the best weights when nobody says by which."""
INDEPENDENT = ("kid_mobilenet_x1e3", "kid_torchfidelity_x1e3")
"""One of these is computed, too, and chooses, where training looks through the network of the first score."""
_BATCH = 8


class HeldOutScorer:
    """Scores what a network makes of held-out images; see ``engine.selection.Scorer``.

    Args:
        files: Held-out images of both domains.
        data: How images are read.
        most: Images of each domain that are used at most, evenly spaced by name.
        by: Row of ``METRICS`` that chooses the best weights; ``auto`` takes the first of ``SCORES`` that is possible.
        chosen_on: What the images are called.
        formats: What source and target images are made of; unset: 8-bit images.
        looks_through: Networks that training looks through; ``auto`` chooses by no score of theirs.

    Raises:
        UserError: The images cannot be read, or the score that was asked for cannot be computed from them.
    """

    def __init__(
        self,
        files: UnpairedFiles,
        data: DataConfig,
        most: int,
        by: str,
        chosen_on: str,
        formats: Formats | None = None,
        looks_through: Iterable[str] = (),
    ) -> None:
        if by != "auto" and by not in METRICS:
            raise ConfigError(f"score_by: there is no '{by}'{nearest(by, METRICS)}; known: auto, {', '.join(METRICS)}")
        few = UnpairedFiles(evenly_spaced(files.source, most), evenly_spaced(files.target, most))
        self._evaluator = Evaluator(few, data, ScoringNetworks(), intervals=False, formats=formats)
        self.remark = self._evaluator.remark
        possible = [name for name in METRICS if name not in self._evaluator.left_out]
        if by != "auto" and by not in possible:
            raise ConfigError(f"score_by: '{by}' cannot be computed: {self._evaluator.left_out[by]}")
        names = [name for name in SCORES if name in possible]
        fair = [name for name in names if not flattered(name, looks_through)]
        if fair != names:
            fair = [name for name in INDEPENDENT if name in possible and not flattered(name, looks_through)][:1] + fair
        chosen = by if by != "auto" else fair[0]
        self._evaluator.names = [*names, *([chosen] if chosen not in names else [])]
        sources, targets = (len(found.paths) for found in (self._evaluator.sources, self._evaluator.targets))
        reference = targets if METRICS[chosen].against == "real" else sources
        self.best_by = f"{chosen}_{sources}v{reference}"
        self._chosen, self.label = chosen, METRICS[chosen].label
        self.lower_is_better = METRICS[chosen].better == "lower"
        self.chosen_on = chosen_on
        self.images = sources

    def of_the_inputs(self) -> float | None:
        """The score that chooses, of the untranslated inputs; None where they cannot be compared with the targets."""
        return self._evaluator.score_inputs()[self._chosen].value if self._evaluator.comparable else None

    def __call__(
        self, translate: Callable[[Tensor], Tensor], progress: Callable[[str, int, int], None]
    ) -> dict[str, dict[str, Any]]:
        """Score what ``translate`` makes: full name of the score -> its plain values."""
        self._evaluator.progress = progress
        made = self._evaluator.translate(translate, _BATCH, "held-out images")
        return score_values(self._evaluator.score(ColourImages(made), "held-out images"))


def flattered(metric: str, looks_through: Iterable[str]) -> bool:
    """Whether a row of ``METRICS`` judges by a network that training looks through."""
    return bool({network.partition(".")[0] for network in METRICS[metric].networks} & set(looks_through))
