"""Tables and pictures of ``significance_study.py``: Markdown, histograms, and heat maps with the N points (Figure 2).

    python benchmarks/significance_report.py --study benchmarks/results/significance_photos_202611.json \
        --pictures docs/images/significance --heat qs_attn=runs/h2z-qs_attn --images ../shared/data/horse2zebra/testA

Writes a Markdown file beside the study and PICTURES_histograms.png; with ``--heat NAME=RUN``, PICTURES_heat_NAME.png.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from PIL import Image, ImageDraw
from torch import Tensor

from significance_study import BINS, SIMILARITIES, chosen_images, load_encoders, select
from unpaired.data import tensor_to_image
from unpaired.grids import INK, PAPER, font, image_grid, png_bytes
from unpaired.reporting.figures import QUERY_COLOUR
from unpaired.reporting.pictures import heat_map

ROWS = {
    "entropy_mean": ("mean entropy / log n", "{:.3f}"),
    "near_zero": ("H < 1e-6", "{:.1%}"),
    "zero_naive": ("exactly 0, naive float32", "{:.1%}"),
    "left_to_sort": ("picks left to the sort, naive float32", "{:.1%}"),
    "one_hot": ("one-hot, max p > 0.99", "{:.1%}"),
    "best_is_self": ("best key is the query", "{:.1%}"),
    "distinct_best": ("distinct best keys / n", "{:.3f}"),
    "one_hot_selected": ("one-hot among the N", "{:.1%}"),
    "self_selected": ("best key is the query, among the N", "{:.1%}"),
    "moved": ("how far routing moves the N features / their norm", "{:.3f}"),
    "distinct_best_selected": ("distinct best keys of the N / N", "{:.3f}"),
    "alike_routed": ("mean cosine between the N routed features", "{:.3f}"),
    "alike_plain": ("the same, not routed", "{:.3f}"),
    "norm_spearman": ("Spearman, significance and norm", "{:+.2f}"),
    "naive_agrees": ("naive float32 picks as float64", "{:.3f}"),
    "float32_agrees": ("our float32 picks as float64", "{:.3f}"),
    "local_near_zero": ("local: H < 1e-6", "{:.1%}"),
    "local_norm_spearman": ("local: Spearman, significance and norm", "{:+.2f}"),
    "local_global_overlap": ("local and global picks in common", "{:.3f}"),
    "inked": ("picks on the drawing", "{:.1%}"),
    "inked_all": ("locations on the drawing", "{:.1%}"),
}
"""Measured per map -> words and format of the table."""
BAR, FAINT = (61, 133, 198), (225, 227, 232)


@dataclass(frozen=True)
class Options:
    """What to make."""

    study: tuple[Path, ...]
    """JSON of ``significance_study.py``; the Markdown stands beside each, the histograms are one picture."""
    pictures: Path
    """Prefix of the pictures."""
    heat: tuple[str, ...] = ()
    """NAME=RUN or NAME=untrained:BASE_CHANNELS: draw heat maps for these encoders."""
    images: Path | None = None
    """Folder of images for the heat maps."""
    names: tuple[str, ...] = ()
    """Stems of the images for the heat maps; unset takes ``count`` of them, evenly spaced by name."""
    count: int = 3
    """Images of the heat maps."""
    size: int = 256
    """Side to which they are resized."""
    tap: str = "block5"
    """Place of the encoder for the heat maps."""
    num_queries: int = 256
    """N."""
    similarities: tuple[str, ...] = ("dot", "scaled", "cosine_0.03", "cosine_0.1", "cosine_1")
    """Columns of the heat maps."""
    cell: int = 192
    """Side of one heat map in pixels."""


def tables(found: dict[str, Any]) -> str:
    """Markdown: per encoder and tap the numbers by similarity, then the overlaps."""
    lines = []
    for name, encoder in found["encoders"].items():
        for tap, mean in encoder["taps"].items():
            side, channels = encoder["maps"][tap]
            names = list(mean["similarities"])
            lines += [f"### {name}, {tap} ({side} x {side} locations, {channels} channels)", ""]
            lines += ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
            for key, (words, form) in ROWS.items():
                first = mean["similarities"][names[0]]
                if key not in first or (key.startswith("inked") and first["inked_all"] > 0.95):
                    continue  # an older study; a photo has no white paper
                cells = [form.format(mean["similarities"][each][key]) for each in names]
                lines.append(f"| {words} | " + " | ".join(cells) + " |")
            others = list(mean["overlap"])
            lines += ["", "Share of the N in common:", "", "| | " + " | ".join(others) + " |"]
            lines.append("|---" * (len(others) + 1) + "|")
            for a in others:
                lines.append(f"| {a} | " + " | ".join(f"{mean['overlap'][a][b]:.2f}" for b in others) + " |")
            lines.append("")
    return "\n".join(lines)


def histogram_panel(found: dict[str, Any], n: int, width: int = 150, height: int = 84) -> Image.Image:
    """One histogram of entropies, 0 to log n nats, each panel scaled to its highest bar."""
    panel = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(panel)
    floor, top = height - 16, 16
    counts = found["histogram"]
    highest = max(counts)
    step = (width - 2) / BINS
    draw.rectangle((0, top, width - 1, floor), fill=(248, 248, 250))
    for index, count in enumerate(counts):
        if count:
            bar = max(1, round((floor - top) * count / highest))
            draw.rectangle((1 + index * step, floor - bar, max(1 + index * step, (index + 1) * step), floor), fill=BAR)
    draw.line((0, floor, width, floor), fill=INK)
    draw.text((1, floor + 2), "0", fill=INK, font=font(11))
    draw.text((width - 1, floor + 2), f"{math.log(n):.1f}", fill=INK, font=font(11), anchor="ra")
    draw.text((width / 2, 1), f"H < 1e-6: {found['near_zero']:.1%}", fill=INK, font=font(11), anchor="ma")
    return panel


def histograms(found: dict[str, Any]) -> Image.Image:
    """Rows encoders and taps, columns similarities."""
    rows = [
        (f"{name}, {tap}", mean["similarities"], encoder["maps"][tap][0] ** 2)
        for name, encoder in found["encoders"].items()
        for tap, mean in encoder["taps"].items()
    ]
    names = list(rows[0][1])
    width, height, gap, head = 150, 84, 10, 24
    label = max(int(font(13).getlength(words)) for words, _, _ in rows) + 16
    sheet = Image.new("RGB", (label + len(names) * (width + gap), head + len(rows) * (height + gap)), PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, name in enumerate(names):
        draw.text((label + column * (width + gap) + width / 2, 4), name, fill=INK, font=font(14), anchor="ma")
    for row, (words, by_name, n) in enumerate(rows):
        top = head + row * (height + gap)
        draw.text((label - 10, top + height / 2), words, fill=INK, font=font(13), anchor="rm")
        for column, name in enumerate(names):
            sheet.paste(histogram_panel(by_name[name], n, width, height), (label + column * (width + gap), top))
    return sheet


def _captioned(picture: Image.Image, words: str) -> Image.Image:
    """Write small words on a dark strip at the lower left."""
    draw = ImageDraw.Draw(picture)
    size = max(10, picture.height // 13)
    draw.rectangle((0, picture.height - size - 5, font(size).getlength(words) + 7, picture.height), fill=(20, 20, 24))
    draw.text((4, picture.height - 3), words, fill=(255, 255, 255), font=font(size), anchor="ld")
    return picture


def _points(photo: Image.Image, indices: Tensor, height: int, width: int, cell: int) -> Image.Image:
    """Selected locations as filled squares of their own size on the photo in pale grey; dots would be too small."""
    pale = photo.convert("L").point([110 + level * 130 // 255 for level in range(256)]).convert("RGB")
    mask = torch.zeros(height * width, dtype=torch.uint8)
    mask[indices] = 255
    stamp = Image.fromarray(mask.view(height, width).numpy()).resize((cell, cell), Image.Resampling.NEAREST)
    return Image.composite(Image.new("RGB", (cell, cell), QUERY_COLOUR), pale.resize((cell, cell)), stamp)


def heat_maps(method: Any, images: list[Tensor], options: Options) -> Image.Image:
    """Two rows per photo: entropy over the photo, and the N selected points."""
    cell = options.cell
    columns: dict[str, list[Image.Image | None]] = {"photo, translation": []}
    columns.update({name: [] for name in options.similarities})
    for image in images:
        photo = tensor_to_image(image)
        columns["photo, translation"] += [photo, tensor_to_image(method.translate(image[None])[0].clamp(-1, 1))]
        (features,) = method.encode(image[None], [options.tap])
        height, width = features.shape[2:]
        for name in options.similarities:
            selected = select(features.double(), options.num_queries, SIMILARITIES[name])
            entropy = selected.significance[0].view(height, width)
            low, high = float(entropy.min()), float(entropy.max())
            short = f"{low:.2g} to {high:.2g}" if high - low > 0.1 else f"{low:.3f} to {high:.3f}"
            columns[name] += [
                _captioned(heat_map(photo, entropy, size=cell), short),
                _points(photo, selected.indices[0], height, width, cell),
            ]
    return image_grid(columns, cell=cell, gutter=4, font_size=13)


def small_png(picture: Image.Image, colours: int = 160) -> bytes:
    """PNG with a palette: a third of the size, for pictures in the repository."""
    return png_bytes(picture.quantize(colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.FLOYDSTEINBERG))


@torch.no_grad()
def main() -> None:
    """Write tables and pictures."""
    options = tyro.cli(Options)
    found: dict[str, Any] = {"encoders": {}}
    for path in options.study:
        one = json.loads(path.read_text())
        path.with_suffix(".md").write_text(tables(one).rstrip() + "\n")
        found["encoders"].update(one["encoders"])
    Path(f"{options.pictures}_histograms.png").write_bytes(small_png(histograms(found), 64))
    if options.heat and options.images is None:
        raise SystemExit("--heat needs --images")
    for entry in options.heat:
        count = 10**6 if options.names else options.count
        stems, images = chosen_images(options.images, count, options.size)
        if options.names:
            images = [images[stems.index(name)] for name in options.names]
        name, methods = load_encoders(entry, "last")
        picture = heat_maps(methods[0], images, options)
        Path(f"{options.pictures}_heat_{name}.png").write_bytes(small_png(picture))


if __name__ == "__main__":
    main()
