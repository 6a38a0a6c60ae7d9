"""Line charts as inline SVG: loss curves that read on light and dark paper, with no script and no plotting library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from unpaired.errors import ConfigError

PALETTE = ("#3d85c6", "#e0791f", "#2f9e6e", "#a86bd1", "#d9485f", "#1fa3b3", "#a3912a", "#8a8f98")
"""Middle tones, told apart on white and on near-black paper."""
DASHES = ("", "7 4", "2 4")
"""Past the last colour they begin again with other dashes."""
MOST_POINTS = 600
"""Longer series keep the lowest and highest point of each bucket, so a spike never vanishes."""

Point = tuple[float, float]


def _look(number: int) -> tuple[str, str]:
    """Colour and dashes of a series."""
    return PALETTE[number % len(PALETTE)], DASHES[number // len(PALETTE) % len(DASHES)]


def _drawable(value: float) -> bool:
    return math.isfinite(value) and abs(value) < 1e100  # differences of larger numbers overflow


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) inside [low, high].

    >>> nice_ticks(0, 97)
    [0.0, 20.0, 40.0, 60.0, 80.0]
    """
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low]
    raw = (high - low) / max(1, about)
    power = 10.0 ** math.floor(math.log10(raw))
    if power == 0.0 or not math.isfinite(power):
        return [low, high]
    step = next((factor * power for factor in (1.0, 2.0, 5.0) if factor * power >= raw * 0.999), 10.0 * power)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12 - math.floor(math.log10(step))) for index in range(first, last + 1)]


def tick_label(value: float) -> str:
    """Short words for a tick: 20000 -> 20k, 2500000 -> 2.5M.

    >>> [tick_label(v) for v in (0.0, 0.25, 1500.0, 2e6, 1e-7)]
    ['0', '0.25', '1.5k', '2M', '1e-07']
    """
    for unit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit and abs(value) < 1e12:
            return f"{value / unit:.4g}{suffix}"
    return f"{value:.4g}"


def smoothed(points: Sequence[Point], weight: float) -> list[Point]:
    """Exponential moving average, free of the start's bias; ``weight`` in [0, 1) is kept from the past.

    Values that cannot be drawn stay where they are and do not enter the average.
    """
    if not 0.0 <= weight < 1.0:
        raise ConfigError(f"smoothing = {weight}: must be at least 0 and under 1")
    average, mass, result = 0.0, 0.0, []
    for x, y in points:
        if _drawable(x) and _drawable(y):
            average = weight * average + (1.0 - weight) * y
            mass = weight * mass + (1.0 - weight)
            y = average / mass
        result.append((x, y))
    return result


def _thinned(points: Sequence[Point]) -> list[Point]:
    if len(points) <= MOST_POINTS:
        return list(points)
    bucket = math.ceil(2 * len(points) / MOST_POINTS)
    kept: list[Point] = []
    for start in range(0, len(points), bucket):
        part = points[start : start + bucket]
        finite = [point for point in part if _drawable(point[1])]
        if not finite:
            kept.append(part[0])
            continue
        ends = {min(finite, key=lambda point: point[1]), max(finite, key=lambda point: point[1])}
        kept.extend(sorted(ends))
        if len(finite) < len(part):
            kept.append((part[-1][0], math.nan))
    return kept


def _runs(points: Sequence[Point]) -> list[list[Point]]:
    """Split at points that cannot be drawn."""
    runs: list[list[Point]] = [[]]
    for x, y in points:
        if _drawable(x) and _drawable(y):
            runs[-1].append((x, y))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


class _Frame:
    """Where data land on the paper."""

    def __init__(self, xs: list[float], ys: list[float], width: int, height: int, top: int, log_y: bool) -> None:
        self.log_y = log_y
        ys = [self._scaled(y) for y in ys]
        self.x_low, self.x_high = (min(xs), max(xs)) if xs else (0.0, 1.0)
        self.y_low, self.y_high = (min(ys), max(ys)) if ys else (0.0, 1.0)
        if self.x_high <= self.x_low:
            around = max(0.5, 0.05 * abs(self.x_low))
            self.x_low, self.x_high = self.x_low - around, self.x_high + around
        room = 0.06 * (self.y_high - self.y_low) or 0.05 * abs(self.y_high) or 0.5
        zero_floor = self.y_low >= 0 and not log_y and self.y_low < 0.35 * self.y_high
        self.y_low, self.y_high = (0.0 if zero_floor else self.y_low - room), self.y_high + room
        self.left, self.right, self.top, self.bottom = 58.0, width - 14.0, float(top), height - 44.0

    def _scaled(self, y: float) -> float:
        return math.log10(y) if self.log_y else y

    def x(self, value: float) -> float:
        return self.left + (value - self.x_low) / (self.x_high - self.x_low) * (self.right - self.left)

    def y(self, value: float) -> float:
        return self.bottom - (self._scaled(value) - self.y_low) / (self.y_high - self.y_low) * (self.bottom - self.top)

    def y_ticks(self) -> list[float]:
        if not self.log_y:
            return nice_ticks(self.y_low, self.y_high)
        powers = [10.0**power for power in range(math.ceil(self.y_low), math.floor(self.y_high) + 1)]
        return powers if len(powers) >= 2 else [10.0**tick for tick in nice_ticks(self.y_low, self.y_high, 4)]


def _axes(frame: _Frame, x_label: str, y_label: str) -> list[str]:
    parts = []
    for tick in frame.y_ticks():
        y = frame.y(tick)
        parts.append(
            f'<line x1="{frame.left:.1f}" x2="{frame.right:.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="currentColor" '
            f'stroke-opacity="0.13"/><text x="{frame.left - 7:.1f}" y="{y + 4:.1f}" text-anchor="end" '
            f'fill-opacity="0.75">{tick_label(tick)}</text>'
        )
    for tick in nice_ticks(frame.x_low, frame.x_high, 6):
        parts.append(
            f'<text x="{frame.x(tick):.1f}" y="{frame.bottom + 17:.1f}" text-anchor="middle" '
            f'fill-opacity="0.75">{tick_label(tick)}</text>'
        )
    middle_x, middle_y = (frame.left + frame.right) / 2, (frame.top + frame.bottom) / 2
    parts.append(
        f'<line x1="{frame.left:.1f}" x2="{frame.right:.1f}" y1="{frame.bottom:.1f}" y2="{frame.bottom:.1f}" '
        f'stroke="currentColor" stroke-opacity="0.45"/>'
        f'<text x="{middle_x:.1f}" y="{frame.bottom + 36:.1f}" text-anchor="middle">{escape(x_label)}</text>'
        f'<text transform="translate(14 {middle_y:.1f}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>'
    )
    return parts


def _line(points: Sequence[Point], frame: _Frame, colour: str, opacity: float, stroke: float, dashes: str = "") -> str:
    parts = []
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    for run in _runs(points):
        if len(run) == 1:
            x, y = run[0]
            parts.append(
                f'<circle cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="2.5" fill="{colour}" '
                f'fill-opacity="{opacity}"/>'
            )
            continue
        path = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in run)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{stroke}" '
            f'stroke-opacity="{opacity}" stroke-linejoin="round" stroke-linecap="round"{dashed}/>'
        )
    return "".join(parts)


def _legend(names: Sequence[tuple[str, str, str]], width: int, top: float) -> tuple[list[str], float]:
    """Place names in rows; widths are estimated (7.2 px a letter), as SVG cannot measure text without a script."""
    parts, x, y = [], 58.0, top
    for words, colour, dashes in names:
        needed = 34 + 7.2 * len(words)
        if x > 58.0 and x + needed > width:
            x, y = 58.0, y + 18
        dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
        parts.append(
            f'<line x1="{x:.0f}" x2="{x + 16:.0f}" y1="{y - 4:.0f}" y2="{y - 4:.0f}" stroke="{colour}" '
            f'stroke-width="3" stroke-linecap="round"{dashed}/>'
            f'<text x="{x + 22:.0f}" y="{y:.0f}">{escape(words)}</text>'
        )
        x += needed
    return parts, y


def curve_svg(
    series: Mapping[str, Sequence[Point]],
    title: str,
    x_label: str,
    y_label: str,
    *,
    smoothing: float = 0.0,
    log_y: bool = False,
    width: int = 500,
    height: int = 310,
    places: Mapping[str, int] | None = None,
    marks: Mapping[str, Point] | None = None,
    standalone: bool = False,
) -> str:
    """Draw lines (x, y) as one inline SVG element that takes its ink from the text colour of the page.

    Args:
        series: Name -> points in order of x; points that are not finite break the line and are counted in the legend.
        title: Words above the chart, also read out by screen readers.
        x_label: Words under the horizontal axis.
        y_label: Words along the vertical axis.
        smoothing: Weight of the past in a moving average, [0, 1); the raw line stays visible, faint, behind it.
        log_y: Logarithmic vertical axis; values of 0 or less count as not drawable.
        width: Units of the view box; the element itself fills the width that it is given.
        height: Units of the view box; it grows with a long legend.
        places: Name -> number of its colour and dashes, so that a series looks alike in several charts; by default
            its place in ``series``.
        marks: Name -> one point of its series to ring, such as the best.
        standalone: For a file of its own: dark ink on white paper and a size in pixels, as no page gives them.

    Raises:
        ConfigError: ``smoothing`` is outside [0, 1).
    """
    usable = {
        name: [(float(x), float(y) if not log_y or y > 1e-100 else math.nan) for x, y in points]
        for name, points in series.items()
    }
    averaged = {name: smoothed(points, smoothing) for name, points in usable.items()}
    drawn = [(x, y) for points in usable.values() for x, y in points if _drawable(x) and _drawable(y)]

    legend = []
    for index, (name, points) in enumerate(usable.items()):
        missing = sum(not (_drawable(x) and _drawable(y)) for x, y in points)
        legend.append(
            (name + (f" ({missing} not drawable)" if missing else ""), *_look((places or {}).get(name, index)))
        )
    legend_parts, legend_bottom = _legend(legend, width, 44.0)
    height += max(0, round(legend_bottom) - 62)  # more than two rows of names take no room from the lines
    frame = _Frame([x for x, _ in drawn], [y for _, y in drawn], width, height, round(legend_bottom + 16), log_y)

    size = f'width="{width}" height="{height}" color="#202124"' if standalone else 'width="100%"'
    parts = [
        f'<svg class="chart" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {size} '
        f'role="img" aria-label="{escape(title)}" font-family="system-ui, sans-serif" font-size="13" '
        f'fill="currentColor">',
        f"<title>{escape(title)}</title>",
        '<rect width="100%" height="100%" fill="#ffffff"/>' if standalone else "",
        f'<text x="58" y="20" font-size="15" font-weight="600">{escape(title)}</text>',
        *legend_parts,
        *_axes(frame, x_label, y_label),
    ]
    if not drawn:
        x, y = (frame.left + frame.right) / 2, (frame.top + frame.bottom) / 2
        parts.append(f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="middle" fill-opacity="0.6">no values yet</text>')
    for index, (name, points) in enumerate(usable.items()):
        colour, dashes = _look((places or {}).get(name, index))
        if smoothing > 0:
            parts.append(_line(_thinned(points), frame, colour, 0.25, 1.0))
        parts.append(_line(_thinned(averaged[name]), frame, colour, 1.0, 1.8, dashes))
        mark = (marks or {}).get(name)
        if mark is not None and _drawable(mark[0]) and _drawable(mark[1]) and (not log_y or mark[1] > 1e-100):
            parts.append(
                f'<circle cx="{frame.x(mark[0]):.1f}" cy="{frame.y(mark[1]):.1f}" r="5.5" fill="none" '
                f'stroke="{colour}" stroke-width="2"/>'
            )
    return "".join(parts) + "</svg>"
