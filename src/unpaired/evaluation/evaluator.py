"""Held-out images, read once, and scores of any number of translations of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import torch
from torch import Tensor

from unpaired.data import DataConfig, Formats, PixelFormat, UnpairedFiles
from unpaired.data.folders import find_partners
from unpaired.data.formats import find_formats
from unpaired.errors import ConfigError, DataError, UserError, nearest
from unpaired.evaluation.image_files import (
    SKIPPING,
    ImageFiles,
    LazyImages,
    StoredImages,
    evenly_spaced,
    in_colour,
    read_files,
)
from unpaired.evaluation.masks import read_kept
from unpaired.evaluation.metrics.segmentation import LABEL_MAP_FIT, label_map_fit
from unpaired.evaluation.metrics.unchanged import PAPER_SHARE, blank_paper
from unpaired.evaluation.registry import (
    METRICS,
    ImageSets,
    Score,
    evaluate_images,
    known_metrics,
    possible_metrics,
    unavailable_reason,
)
from unpaired.evaluation.scoring_networks import ScoringNetworks

_INSPECTED = 32
"""Source images that decide whether a folder holds label maps or drawings."""

Paired = Literal["auto", "yes", "no"]
Progress = Callable[[str, int, int], None]
"""Called with (what is being done, how much of it is done, how much there is)."""


class Evaluator:
    """The held-out images of both domains and what it takes to score translations of the source.

    Images are read as the field's protocol does, resized to the side of the training crop, and kept in bounded memory.

    Args:
        files: Held-out images of both domains.
        data: ``image_size`` is used, and without ``formats`` what says how files become values in [-1, 1]: channels,
            pages, ranges, background, profiles.
        networks: Where the scores' networks come from.
        names: Rows of ``METRICS`` to compute; ``None`` takes all that files and networks allow.
        paired: Whether files of the same stem are input and truth; ``auto`` takes them as such when every source file
            has a target file of its stem.
        skip_bad: Leave out files that cannot be read. None: that is not on offer.
        seed: For metrics that draw at random.
        intervals: Whether to compute confidence intervals.
        formats: Pixel formats of source and target images; unset: found from these images, as training finds them.
        unchanged_masks: Masks of what may change in the source images, see ``read_kept``; all else is scored as what
            must not change.
        report: Called with messages for the user.
        progress: Called with the progress.

    Raises:
        DataError: An image cannot be read, the two folders hold the same images, or pairs were asked for and are none.
        ConfigError: A metric is unknown, or the seed negative.
        BackendError: A named metric needs weights that are not at hand.
    """

    def __init__(
        self,
        files: UnpairedFiles,
        data: DataConfig,
        networks: ScoringNetworks,
        *,
        names: Sequence[str] | None = None,
        paired: Paired = "auto",
        skip_bad: bool | None = False,
        seed: int = 0,
        intervals: bool = True,
        formats: Formats | None = None,
        unchanged_masks: str | Path | None = None,
        report: Callable[[str], None] = lambda words: None,
        progress: Progress = lambda stage, done, total: None,
    ) -> None:
        if seed < 0:
            raise ConfigError(f"seed must be 0 or greater, not {seed}")
        self.names = None if names is None else known_metrics(names)
        self.data, self.networks, self.seed, self.intervals, self.progress = data, networks, seed, intervals, progress
        self.report = report
        self._calls = networks.callables(self.names)
        self.formats = formats or _formats_of(files, data, skip_bad)
        self.sources = self._read(files.source, self.formats[0], "reading the source images", skip_bad)
        self.targets = self._read(files.target, self.formats[1], "reading the target images", skip_bad)
        if self.sources.digest == self.targets.digest:
            raise DataError(
                f"{files.source[0].parent} and {files.target[0].parent} hold the same images, so there is nothing to "
                "compare; give the folder of the source domain and that of the target domain"
            )
        self.inputs, self.reals = in_colour(self.sources.images), in_colour(self.targets.images)
        self.truths: Sequence[Tensor] | None = None
        if pairs := find_partners(self.sources.paths, self.targets.paths, paired):
            place = {path: number for number, path in enumerate(self.targets.paths)}
            partners = [place[pairs[path]] for path in self.sources.paths]
            self.truths = LazyImages(len(partners), lambda index: self.reals[partners[index]])
        self.comparable = len(self.inputs[0]) == len(self.reals[0])
        """Whether sources have as many channels as targets, gray counting as colour, so that they can be compared."""
        shown = torch.stack(evenly_spaced(self.inputs, _INSPECTED))
        self.label_maps = shown.shape[1] == 3 and fmean(label_map_fit(shown)) >= LABEL_MAP_FIT
        self.on_paper = float(blank_paper(shown).double().mean()) >= PAPER_SHARE
        self.masks: list[Tensor | None] | None = None
        if unchanged_masks is not None:
            height, width = shown.shape[2:]
            self.masks = read_kept(Path(unchanged_masks), self.sources.paths, (height, width), files.source)
            without = [path.name for path, mask in zip(self.sources.paths, self.masks, strict=True) if mask is None]
            if without:
                report(
                    f"Masks: {len(self.masks) - len(without)} of {len(self.masks)} source images have one; the others "
                    f"({', '.join(without[:3])}{', ...' * (len(without) > 3)}) do not count in the scores outside masks"
                )
        self._of_inputs: dict[str, Any] = {}
        # Translations have the channels of the targets; all else that decides what can be computed is the inputs'.
        blank = torch.zeros(len(self.reals[0]), *self.inputs[0].shape[1:])
        translations = self._sets(self.inputs if self.comparable else [blank] * len(self.inputs))
        for name in self.names or ():
            if reason := unavailable_reason(name, translations):
                raise ConfigError(f"metric '{name}' cannot be computed: {reason}")
        self.left_out = {
            name: reason
            for name in METRICS
            if self.names is None and (reason := unavailable_reason(name, translations))
        }
        """Rows of ``METRICS`` that are not computed -> why."""

    @property
    def remark(self) -> str:
        """One sentence about scores that the channels of these images do not allow; empty if there are none."""
        words = sorted({reason for reason in self.left_out.values() if "channel" in reason})
        names = [name for name, reason in self.left_out.items() if "channel" in reason]
        return f"Scores left out: {', '.join(names)} ({'; '.join(words)})" if names else ""

    @property
    def stems(self) -> list[str]:
        """Names of the source files without their suffixes."""
        return [path.stem for path in self.sources.paths]

    def translate(self, translate: Callable[[Tensor], Tensor], batch_size: int, what: str) -> StoredImages:
        """Translate all source images; ``translate`` takes (B, C, H, W) in [-1, 1] and keeps all but C.

        Raises:
            ConfigError: ``batch_size`` is less than 1.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, not {batch_size}")
        made, total = StoredImages(eight_bits=self.formats[1].dtype == "uint8"), len(self.sources.images)
        for start in range(0, total, batch_size):
            for image in translate(torch.stack(self.sources.images[start : start + batch_size])):
                made.append(image)
            self.progress(f"translating: {what}", len(made), total)
        return made

    def score(self, made: Sequence[Tensor], what: str, *, files: ImageFiles | None = None) -> dict[str, Score]:
        """Score translations of the sources, in their order.

        Args:
            made: (C, H, W) in [-1, 1] each; gray counts as colour.
            what: Words for the progress.
            files: The files that ``made`` was read from, if it was: their features are cached.
        """
        return self._score(self._sets(made if made is self.inputs else in_colour(made)), what, files)

    def score_inputs(self) -> dict[str, Score]:
        """Scores of the untranslated inputs: what a translator has to beat; none where they have other channels."""
        if not self.comparable:
            return {}
        return self.score(self.inputs, "untranslated input", files=self.sources)

    def score_set(self, files: ImageFiles, what: str) -> dict[str, Score]:
        """Scores of images that were made from no source, against the target domain."""
        sets = replace(self._sets(in_colour(files.images)), source=None, truth=None, label_maps=False)
        return self._score(sets, what, files)

    def score_truths(self) -> dict[str, Score]:
        """What the segmenters make of the true photos, if the sources are label maps: the ceiling of their scores."""
        if self.truths is None or not self.label_maps:
            return {}
        sets = self._sets(self.truths)
        return self._measured(sets, [name for name in self._chosen(sets) if METRICS[name].label_maps], "real photos")

    def read(self, paths: Sequence[str | Path], what: str) -> ImageFiles:
        """Read more files of the target domain in the way of this evaluation."""
        return self._read(paths, self.formats[1], f"reading {what}", None)

    def _read(self, paths: Sequence[Any], pixels: PixelFormat, stage: str, skip_bad: bool | None) -> ImageFiles:
        def one_more(done: int) -> None:
            self.progress(stage, done, len(paths))

        return read_files(paths, self.data, pixels, skip_bad=skip_bad, report=self.report, progress=one_more)

    def _score(self, sets: ImageSets, what: str, files: ImageFiles | None) -> dict[str, Score]:
        names = self._chosen(sets)
        known = {}
        wanted = [n for row in names for n in METRICS[row].networks if METRICS[row].against == "real"]
        for network in dict.fromkeys(wanted):
            for which, of in (("real", self.targets), ("fake", files)):
                if of is not None:
                    self.progress(f"features of {of.paths[0].parent.name}", 0, len(of.paths))
                    known[network, which] = self.networks.file_features(network, of)
        return self._measured(replace(sets, known=known), names, what)

    def _sets(self, made: Sequence[Tensor]) -> ImageSets:
        """``made`` in the place of the translations, beside everything that it can be compared with."""
        return ImageSets(
            made, self.reals, self.truths, self.inputs, self.label_maps, self._calls, intervals=self.intervals,
            on_paper=self.on_paper, kept=self.masks, of_inputs=self._of_inputs,
        )  # fmt: skip

    def _chosen(self, sets: ImageSets) -> list[str]:
        possible = possible_metrics(sets)
        if self.names is None:
            return possible
        return [name for name in self.names if name in possible]

    def _measured(self, sets: ImageSets, names: Sequence[str], what: str) -> dict[str, Score]:
        scores: dict[str, Score] = {}
        for number, name in enumerate(names):
            self.progress(f"scoring: {what}, {METRICS[name].label}", number, len(names))
            scores |= evaluate_images(sets, [name], self.seed)
        self.progress(f"scoring: {what}", len(names), len(names))
        return scores


def _formats_of(files: UnpairedFiles, data: DataConfig, skip_bad: bool | None) -> Formats:
    """What the images are made of; where files may be left out, those that can be used."""

    def usable(source: Sequence[Any], target: Sequence[Any]) -> bool:
        try:
            find_formats(source, target, data)
        except UserError:
            return False
        return True

    try:
        return find_formats(files.source, files.target, data)
    except UserError as error:
        source = [image for image in files.source if usable([image], ())]
        target = [image for image in files.target if source and usable(source[:1], [image])]
        if skip_bad is None or not target:
            raise
        if not skip_bad:
            raise type(error)(f"{error}{SKIPPING}") from error
        return find_formats(source, target, data)


SCORES = ("kid_lite0_x1e3", "swd_progan_x1e3", "paired_l1_pm1", "identity_percent")
"""Computed each time, where the images allow it. By default the first possible one selects the best weights, unless
training uses its network (``frozen_networks``)."""
_BATCH = 8


class HeldOutScorer:
    """Scores what a network makes of held-out images; see ``engine.selection.Scorer``.

    Args:
        files: Held-out images of both domains.
        data: How images are read.
        most: Images of each domain that are used at most, evenly spaced by name.
        by: Row of ``METRICS`` that chooses the best weights; ``auto`` takes the first of ``SCORES`` that is possible.
        chosen_on: What the images are called.
        formats: What source and target images are made of; unset: found from the images.
        frozen_networks: Networks that training uses; ``auto`` chooses by none of their scores but by a KID on
            another network if one is at hand, else by SWD.

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
        frozen_networks: Iterable[str] = (),
    ) -> None:
        if by != "auto" and by not in METRICS:
            raise ConfigError(f"score_by: there is no '{by}'{nearest(by, METRICS)}; known: auto, {', '.join(METRICS)}")
        few = UnpairedFiles(evenly_spaced(files.source, most), evenly_spaced(files.target, most))
        self._evaluator = Evaluator(few, data, ScoringNetworks(), intervals=False, formats=formats, skip_bad=None)
        self.remark = self._evaluator.remark
        possible = [name for name in METRICS if name not in self._evaluator.left_out]
        if by != "auto" and by not in possible:
            raise ConfigError(f"score_by: '{by}' cannot be computed: {self._evaluator.left_out[by]}")
        names = [name for name in SCORES if name in possible]
        fair = [name for name in names if not METRICS[name].judges_by(frozen_networks)]
        if fair != names:  # a KID on another network chooses, if one is at hand: the last registered is the user's own
            others = (name for name in reversed(possible) if name.startswith("kid_"))
            fair = [name for name in others if not METRICS[name].judges_by(frozen_networks)][:1] + fair
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
        scores = self._evaluator.score(made, "held-out images").values()
        return {score.full_name: score.plain() for score in scores}
