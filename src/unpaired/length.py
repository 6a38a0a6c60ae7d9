"""The length of a run, including extensions, as a function of the sample."""

from __future__ import annotations

from dataclasses import dataclass, replace

from unpaired.config import Count, CountOrZero, settings
from unpaired.errors import ConfigError


@settings
class Extension:
    """One ``--extend-to``.

    Attributes:
        at: Images seen when the run was extended; the new length applies to samples from this one on (counted from 0).
        to: The new length in images, counted from the start of the run.
    """

    at: CountOrZero
    to: Count

    def __post_init__(self) -> None:
        if not 0 <= self.at < self.to:
            raise ConfigError(f"extensions: 'at' must be 0 or more and below 'to', not {self.at} and {self.to}")


@dataclass(frozen=True)
class TrainingLength:
    """The length of a run in images, as a function of the sample.

    A sample is trained with the schedule of a run of ``total_at(sample)`` images, so interruptions around an extension
    do not change the result.

    Attributes:
        planned: Length when the run began.
        extensions: In order.

    >>> length = TrainingLength(100).extended(150, at=100)
    >>> length.total, length.total_at(99), length.total_at(100)
    (150, 100, 150)
    """

    planned: int
    extensions: tuple[Extension, ...] = ()

    @property
    def total(self) -> int:
        """The length of training in images."""
        return self.extensions[-1].to if self.extensions else self.planned

    def total_at(self, sample: int) -> int:
        """Length of the run when ``sample`` (counted from 0) is trained on."""
        return next((one.to for one in reversed(self.extensions) if one.at <= sample), self.planned)

    def progress(self, sample: int) -> float:
        """Fraction of training before ``sample``, 0 to 1."""
        return sample / self.total_at(sample)

    def ends_between(self, before: int, seen: int) -> bool:
        """Whether the step from ``before`` to ``seen`` images is the last one, or was it before the run was extended.

        >>> TrainingLength(5).extended(9, at=5).ends_between(4, 5)
        True
        """
        return any(before < end <= seen for end in (self.planned, *(one.to for one in self.extensions)))

    def extended(self, to: int, at: int) -> TrainingLength:
        """The length after ``--extend-to`` ``to`` at ``at`` images; unchanged if it already is the current length.

        Raises:
            ConfigError: ``to`` does not exceed the current length.
        """
        if to == self.total and self.extensions:
            return self
        if to <= self.total:
            so_far = "has been extended to" if self.extensions else "trains for"
            raise ConfigError(
                f"extend_to: the run {so_far} {self.total:,} images already; give more, or leave out the option to "
                "continue"
            )
        return replace(self, extensions=(*self.extensions, Extension(at, to)))

    def ranges(self, start: int, stop: int, batch_size: int) -> list[tuple[int, int]]:
        """Ranges of samples (first, one past the last) that are whole steps, from ``start`` to at least ``stop``.

        A range ends where the run was extended: an earlier session may have ended there with a short step, and a
        session that repeats it must take the same steps.

        >>> TrainingLength(5).extended(9, at=5).ranges(2, 8, batch_size=2)
        [(2, 5), (5, 9)]
        """
        found = []
        for border in sorted({*(one.at for one in self.extensions), self.total}):
            if start < min(border, stop):
                steps = -(-(min(border, stop) - start) // batch_size)
                found.append((start, min(border, start + steps * batch_size)))
                start = found[-1][1]
        return found


def duration(seconds: float) -> str:
    """A time for people.

    >>> [duration(s) for s in (20, 600, 9000, 400_000)]
    ['20 s', '10 min', '2.5 h', '4.6 days']
    """
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 1.5 * length:
            value = seconds / length
            return f"{value:.1f} {unit}" if unit != "min" else f"{value:.0f} {unit}"
    return f"{seconds:.0f} s"
