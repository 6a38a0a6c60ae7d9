"""What entropy calls significant: measured on the features of encoders, under each similarity.

    python benchmarks/significance_study.py --images ../shared/data/horse2zebra/testA --size 256 --num-queries 256 \
        --encoders initial=untrained:64 qs_attn=runs/h2z-qs_attn cut=runs/h2z-cut --out benchmarks/results/significance

Rows are judged in float64; naive float32 is what published code does: softmax, -p log p. Writes OUT.json, OUT.md and
OUT.png (histograms of the entropy). ``unpaired report RUN --figures`` draws the heat maps with the N points.
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import matplotlib.pyplot as plt
import torch
import tyro
from scipy.stats import spearmanr
from torch import Tensor

from measure import Record, untrained
from unpaired.data import DataConfig, list_images, load_for_protocol
from unpaired.evaluation import evenly_spaced
from unpaired.inference import Translator
from unpaired.ops import query_selected_attention
from unpaired.ops.attention import Attention, as_positions
from unpaired.ops.backends import reference

SIMILARITIES: dict[str, tuple[Any, float]] = {
    "dot": ("dot", 1.0), "scaled": ("scaled", 1.0), "scaled_4": ("scaled", 4.0), "cosine_0.03": ("cosine", 0.03),
    "cosine_0.1": ("cosine", 0.1), "cosine_0.3": ("cosine", 0.3), "cosine_1": ("cosine", 1.0),
}  # fmt: skip
"""Name -> similarity and temperature."""


def load(entry: str, weights: Literal["last", "ema"]) -> tuple[str, list[Any]]:
    """Name and methods of NAME=RUN[,RUN...] or NAME=untrained:BASE_CHANNELS."""
    name, _, where = entry.partition("=")
    if where.startswith("untrained:"):
        return name, [untrained("cut", base_channels=int(where.partition(":")[2])).eval().requires_grad_(False)]
    return name, [Translator.from_pretrained(run, weights=weights, device="cpu").method for run in where.split(",")]


def select(features: Tensor, count: int, name: str, **options: Any) -> Any:
    """Select from one map (1, C, H, W) in its own precision."""
    kind, temperature = SIMILARITIES[name]
    return query_selected_attention(
        features, [], count, similarity=kind, temperature=temperature, **{"routing": "none", **options}
    )


def shared(first: Tensor, second: Tensor) -> float:
    """Share of one selection that is in the other."""
    return float(torch.isin(first, second).double().mean())


def measure(features: Tensor, name: str, count: int) -> tuple[dict[str, float], Tensor, Tensor]:
    """All numbers of one map (1, C, H, W) under one similarity, the entropies in nats, and the N positions."""
    kind, temperature = SIMILARITIES[name]
    height, width = features.shape[2:]
    n, wide = height * width, features.double()
    norm = wide.flatten(2)[0].norm(dim=0)
    exact = select(wide, n, name)
    order, entropy = exact.indices[0], exact.significance[0]
    picks, rank = order[:count], torch.empty(n, dtype=torch.float64)
    rank[order] = torch.arange(n, 0, -1, dtype=torch.float64)  # entropies far apart may both show as 0

    attention = Attention(height, width, False, 7, kind, temperature)
    p = reference.attention_logits(as_positions(features), attention).softmax(dim=-1)
    naive = (p * (-p.log()).masked_fill(p == 0, 0.0)).sum(dim=-1)[0]
    last = naive.sort().values[count - 1]
    places, equal = count - int((naive < last).sum()), int((naive == last).sum())
    logits = reference.attention_logits(as_positions(wide), attention)[0]
    largest, best = logits.max(dim=1)
    top = (largest - logits.logsumexp(dim=1)).exp()
    routed = select(wide, n, name, routing="cross", indices=picks[None]).source[0]
    plain = wide.flatten(2)[0, :, picks].T
    rows = {
        "H < 1e-6": (entropy < 1e-6).double().mean(),
        "picks left to the sort, naive float32": places / count if equal > places else 0.0,
        "one-hot, max p > 0.99": (top > 0.99).double().mean(),
        "one-hot among the N": (top[picks] > 0.99).double().mean(),
        "best key is the query": (best == torch.arange(n)).double().mean(),
        "distinct best keys of the N / N": len(best[picks].unique()) / count,
        "how far routing moves the N / their norm": ((routed - plain).norm(dim=1) / plain.norm(dim=1)).mean(),
        "Spearman, significance and norm": spearmanr(rank, norm).statistic,
        "naive float32 picks as float64": shared(naive.sort(stable=True).indices[:count], picks),
        "our float32 picks as float64": shared(select(features, count, name).indices[0], picks),
        "picks in common with the N largest norms": shared(norm.sort(descending=True).indices[:count], picks),
    }
    return {key: float(value) for key, value in rows.items()}, entropy, picks


@torch.no_grad()
def main(
    images: Path, out: Path, encoders: tuple[str, ...], size: int = 256, count: int = 8, num_queries: int = 256,
    taps: tuple[str, ...] = ("block1", "block5"), similarities: tuple[str, ...] = tuple(SIMILARITIES),
    weights: Literal["last", "ema"] = "last", threads: int = 1,
) -> None:  # fmt: skip
    """Measure, write and draw.

    Args:
        images: Folder of images of the source domain.
        out: Name of the result files, without suffix.
        encoders: NAME=RUN[,RUN...] (mean over the runs) or NAME=untrained:BASE_CHANNELS.
        size: Side to which the images are resized.
        count: Images, evenly spaced by name.
        num_queries: N.
        taps: Places of the encoder.
        similarities: Names of ``SIMILARITIES``.
        weights: Which; the last ones are those that selection sees in training.
        threads: CPU threads.
    """
    torch.set_num_threads(threads)
    record = Record(out, "What entropy calls significant", images=count, size=size, num_queries=num_queries)
    pictures = [load_for_protocol(path, DataConfig(image_size=size)) for path in
                evenly_spaced(list_images(images), count)]  # fmt: skip
    panels: dict[str, list[Tensor]] = {}
    for entry in encoders:
        name, methods = load(entry, weights)
        for tap in taps:
            rows: dict[str, list[dict[str, float]]] = {each: [] for each in similarities}
            entropies: dict[str, list[Tensor]] = {each: [] for each in similarities}
            for method in methods:
                for image in pictures:
                    (features,) = method.encode(image[None], [tap])
                    first = None
                    for each in similarities:
                        row, entropy, picks = measure(features, each, num_queries)
                        first = picks if first is None else first
                        rows[each].append(row | {f"picks in common with {similarities[0]}": shared(picks, first)})
                        entropies[each].append(entropy)
            panels[f"{name}, {tap}"] = [torch.cat(entropies[each]) for each in similarities]
            for key in rows[similarities[0]][0]:
                means = {each: fmean(row[key] for row in found) for each, found in rows.items()}
                record.add(f"{name}, {tap}", what=key, **means)
    figure, axes = plt.subplots(len(panels), len(similarities), squeeze=False, layout="constrained",
                                figsize=(1.8 * len(similarities), 1.2 * len(panels)))  # fmt: skip
    for line, (words, found) in zip(axes, panels.items(), strict=True):
        line[0].set_ylabel(words, fontsize=7)
        for axis, title, entropy in zip(line, similarities, found, strict=True):
            axis.hist(entropy.numpy(), bins=40)
            axis.set_title(f"{title}: H < 1e-6 {float((entropy < 1e-6).double().mean()):.1%}", fontsize=7)
            axis.set_yticks([])
    figure.savefig(out.with_suffix(".png"), dpi=100)


if __name__ == "__main__":
    tyro.cli(main)
