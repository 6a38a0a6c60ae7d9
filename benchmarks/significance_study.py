"""What entropy calls significant: measured on the features of encoders, under each similarity.

    python benchmarks/significance_study.py --images ../shared/data/horse2zebra/testA --size 256 --num-queries 256 \
        --encoders initial=untrained:64 qs_attn=runs/h2z-qs_attn cut=runs/h2z-cut --out benchmarks/results/significance

Writes OUT.json. Rows are judged in float64 (``ops/backends/blocked.py`` on float64 features; the first image of each
encoder is checked against ``reference.py`` beside it); naive float32 is what published code does: softmax, -p log p.
``significance_report.py`` makes tables and pictures of it, ``significance_scores.py`` scores the trained contenders.

Legend: n locations of a map, N selected; A and B two selections.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from torch import Tensor

from unpaired.data import DataConfig, list_images, load_for_protocol
from unpaired.engine.checkpoint import read_checkpoint
from unpaired.environment import environment
from unpaired.errors import ConfigError
from unpaired.inference import Translator
from unpaired.methods.cut import CUT, CUTConfig
from unpaired.ops import query_selected_attention
from unpaired.ops.attention import Attention, as_positions
from unpaired.ops.backends import reference

Similarity = Literal["dot", "scaled", "cosine"]
SIMILARITIES: dict[str, tuple[Similarity, float]] = {
    "dot": ("dot", 1.0),
    "scaled": ("scaled", 1.0),
    "scaled_4": ("scaled", 4.0),
    "cosine_0.03": ("cosine", 0.03),
    "cosine_0.1": ("cosine", 0.1),
    "cosine_0.3": ("cosine", 0.3),
    "cosine_1": ("cosine", 1.0),
}
"""Name -> similarity and temperature."""
BINS = 40
"""Bins of the histograms, from 0 to log n nats."""


@dataclass(frozen=True)
class Options:
    """What to measure."""

    images: Path
    """Folder of images of the source domain."""
    out: Path
    """Prefix of the files written."""
    encoders: tuple[str, ...]
    """NAME=RUN[,RUN...] (mean over the runs), NAME=RUN@IMAGES (the checkpoint after so many images, its last weights),
    or NAME=untrained:BASE_CHANNELS (seed 0)."""
    size: int = 256
    """Side to which the images are resized."""
    count: int = 8
    """Images, evenly spaced by name."""
    num_queries: int = 256
    """N."""
    taps: tuple[str, ...] = ("block1", "block5")
    """Places of the encoder."""
    similarities: tuple[str, ...] = tuple(SIMILARITIES)
    """Names of ``SIMILARITIES``."""
    weights: Literal["last", "ema"] = "last"
    """Which weights; the last ones are those that selection sees in training."""
    threads: int = 1
    """CPU threads."""


def spearman(first: Tensor, second: Tensor) -> float:
    """Spearman's rank correlation of two vectors, equal values sharing their mean rank.

    >>> round(spearman(torch.tensor([1.0, 2.0, 2.0, 3.0]), torch.tensor([10.0, 20.0, 30.0, 40.0])), 4)
    0.9487
    """
    ranks = torch.stack([_ranks(first), _ranks(second)])
    return float(torch.corrcoef(ranks)[0, 1])


def _ranks(values: Tensor) -> Tensor:
    _, inverse, counts = values.unique(return_inverse=True, return_counts=True)
    ends = counts.cumsum(0)
    return (ends - (counts + 1) / 2).double()[inverse]


def _by_rank(order: Tensor) -> Tensor:
    """Significance as a rank, n for the first of ``order``: entropies far apart may both show as 0."""
    ranks = torch.empty(len(order), dtype=torch.float64)
    ranks[order] = torch.arange(len(order), 0, -1, dtype=torch.float64)
    return ranks


def overlap(first: Tensor, second: Tensor) -> float:
    """|A n B| / N of two selections."""
    return float(torch.isin(first, second).double().mean())


def chosen_images(folder: Path, count: int, size: int) -> tuple[list[str], list[Tensor]]:
    """Stems and tensors (3, size, size) of ``count`` images of a folder, evenly spaced by name."""
    paths = list_images(folder)
    paths = [paths[index * len(paths) // count] for index in range(min(count, len(paths)))]
    return [path.stem for path in paths], [load_for_protocol(path, DataConfig(image_size=size)) for path in paths]


def load_encoders(entry: str, weights: Literal["last", "ema"]) -> tuple[str, list[CUT]]:
    """Name and methods of one entry of ``Options.encoders``."""
    name, _, where = entry.partition("=")
    if where.startswith("untrained:"):
        torch.manual_seed(0)
        return name, [CUT(CUTConfig(base_channels=int(where.partition(":")[2]))).eval().requires_grad_(False)]
    if not where:
        raise ConfigError(f"encoders: '{entry}' is not NAME=RUN")
    methods: list[Any] = []
    for each in where.split(","):
        run, _, images = each.partition("@")
        methods.append(Translator.from_pretrained(run, weights=weights, device="cpu").method)
        if images:
            state = read_checkpoint(Path(run) / "checkpoints" / f"checkpoint_{int(images):09d}.pt")["state"]
            methods[-1].load_state_dict(state["method"])
    return name, methods


def naive_entropy(logits: Tensor) -> Tensor:
    """-sum p log p of a plain softmax, terms of p = 0 left out: what underflows."""
    probabilities = logits.softmax(dim=-1)
    surprise = -probabilities.log()
    return (probabilities * surprise.masked_fill_(surprise.isinf(), 0.0)).sum(dim=-1)


def left_to_sort(values: Tensor, num_queries: int) -> float:
    """Share of the N places that equal values compete for, so that the order of sorting fills them."""
    last = values.sort().values[num_queries - 1]
    below, equal = int((values < last).sum()), int((values == last).sum())
    places = num_queries - below
    return places / num_queries if equal > places else 0.0


def select(features: Tensor, count: int, similarity: tuple[Similarity, float], **options: Any) -> Any:
    """Select from one map (1, C, H, W) in its own precision."""
    kind, temperature = similarity
    return query_selected_attention(
        features, [], count, similarity=kind, temperature=temperature, **{"routing": "none", **options}
    )


def _alike(features_NC: Tensor) -> float:
    """Mean cosine between different rows."""
    unit = torch.nn.functional.normalize(features_NC.double(), dim=1)
    count = len(unit)
    return float((unit.sum(0).square().sum() - count) / (count * (count - 1)))


def _cells_inked(image: Tensor, height: int, width: int) -> Tensor:
    """Which locations of a map see a pixel that is not white in their own square: (H * W,) in {0, 1}."""
    inked = (image.amin(dim=0) < 0.9).double()[None]
    return torch.nn.functional.adaptive_max_pool2d(inked, (height, width)).flatten()


def measure_one(features: Tensor, image: Tensor, name: str, num_queries: int) -> tuple[dict[str, Any], Tensor]:
    """All numbers of one map (1, C, H, W) under one similarity, and the N positions selected in float64."""
    kind, temperature = SIMILARITIES[name]
    height, width = features.shape[2:]
    n = height * width
    wide = features.double()
    norm = wide.flatten(2)[0].norm(dim=0)
    inked = _cells_inked(image, height, width)

    exact = select(wide, n, SIMILARITIES[name])
    order, entropy = exact.indices[0], exact.significance[0]
    picks = order[:num_queries]

    attention = Attention(height, width, False, 7, kind, temperature)
    naive = naive_entropy(reference.attention_logits(as_positions(features), attention))[0]
    naive_picks = naive.sort(stable=True).indices[:num_queries]
    logits = reference.attention_logits(as_positions(wide), attention)[0]
    largest, best = logits.max(dim=1)
    top = (largest - logits.logsumexp(dim=1)).exp()
    del logits
    local = select(wide, n, SIMILARITIES[name], attention="local")
    routed = select(wide, n, SIMILARITIES[name], routing="cross", indices=picks[None]).source[0]
    plain = wide.flatten(2)[0, :, picks].T

    found: dict[str, Any] = {
        "entropy_mean": float(entropy.mean()) / math.log(n),
        "near_zero": float((entropy < 1e-6).double().mean()),
        "zero_naive": float((naive == 0).double().mean()),
        "left_to_sort": left_to_sort(naive, num_queries),
        "one_hot": float((top > 0.99).double().mean()),
        "best_is_self": float((best == torch.arange(n)).double().mean()),
        "distinct_best": len(best.unique()) / n,
        "distinct_best_selected": len(best[picks].unique()) / num_queries,
        "alike_routed": _alike(routed),
        "alike_plain": _alike(plain),
        "one_hot_selected": float((top[picks] > 0.99).double().mean()),
        "self_selected": float((best[picks] == picks).double().mean()),
        "moved": float(((routed - plain).norm(dim=1) / plain.norm(dim=1)).mean()),
        "norm_spearman": spearman(_by_rank(order), norm),
        "naive_agrees": overlap(naive_picks, picks),
        "float32_agrees": overlap(select(features, num_queries, SIMILARITIES[name]).indices[0], picks),
        "local_near_zero": float((local.significance[0] < 1e-6).double().mean()),
        "local_norm_spearman": spearman(_by_rank(local.indices[0]), norm),
        "local_global_overlap": overlap(local.indices[0, :num_queries], picks),
        "inked": float(inked[picks].mean()),
        "inked_all": float(inked.mean()),
        "histogram": torch.histc(entropy, BINS, 0.0, math.log(n)).int().tolist(),
    }
    return found, picks


def measure_map(features: Tensor, image: Tensor, num_queries: int, names: tuple[str, ...]) -> dict[str, Any]:
    """One map (1, C, H, W) under the named similarities, and the overlap of all selections."""
    rows, picks = {}, {}
    for name in names:
        rows[name], picks[name] = measure_one(features, image, name, num_queries)
    wide = features.double()
    norm = wide.flatten(2)[0].norm(dim=0)
    picks["max_mean"] = select(wide, num_queries, SIMILARITIES["dot"], significance="max_mean").indices[0]
    picks["largest norm"] = norm.sort(descending=True, stable=True).indices[:num_queries]
    self_products = norm.square()
    return {
        "similarities": rows,
        "overlap": {a: {b: overlap(picks[a], picks[b]) for b in picks} for a in picks},
        "self_product": {"mean": float(self_products.mean()), "max": float(self_products.max())},
        "norm_max_over_median": float(norm.max() / norm.median()),
    }


def check_against_reference(features: Tensor, num_queries: int, names: tuple[str, ...]) -> dict[str, int]:
    """Positions, of N, that the reference in float64 selects and the blocked code in float64 does not."""
    wide = features.double()
    differing = {}
    for name in names:
        first, second = (
            select(wide, num_queries, SIMILARITIES[name], backend=backend).indices[0]
            for backend in ("reference", "blocked")
        )
        differing[name] = num_queries - round(overlap(first, second) * num_queries)
    return differing


def averaged(values: list[Any]) -> Any:
    """Mean over maps, number by number; histograms are added up."""
    if isinstance(values[0], dict):
        return {key: averaged([value[key] for value in values]) for key in values[0]}
    if isinstance(values[0], list):
        return [sum(column) for column in zip(*values, strict=True)]
    return sum(values) / len(values)


@torch.no_grad()
def main() -> None:
    """Measure and write."""
    options = tyro.cli(Options)
    torch.set_num_threads(options.threads)
    stems, images = chosen_images(options.images, options.count, options.size)
    found: dict[str, Any] = {"encoders": {}}
    for entry in options.encoders:
        name, methods = load_encoders(entry, options.weights)
        runs: list[dict[str, Any]] = []
        maps, differing = {}, {}
        for method in methods:
            per_tap: dict[str, list[Any]] = {tap: [] for tap in options.taps}
            for image in images:
                for tap, features in zip(options.taps, method.encode(image[None], options.taps), strict=True):
                    if tap not in maps:
                        maps[tap] = [features.shape[2], features.shape[1]]
                        differing[tap] = check_against_reference(features, options.num_queries, options.similarities)
                    per_tap[tap].append(measure_map(features, image, options.num_queries, options.similarities))
            runs.append({tap: averaged(values) for tap, values in per_tap.items()})
            print(name, "measured", flush=True)
        found["encoders"][name] = {
            "from": entry.partition("=")[2],
            "maps": maps,
            "taps": averaged(runs),
            "runs": runs if len(runs) > 1 else [],
            "picks_where_blocked_differs_from_reference": differing,
        }
    found["images"] = stems
    found["options"] = {key: str(value) for key, value in vars(options).items()}
    found["load_average"] = os.getloadavg()
    found["environment"] = environment()
    Path(f"{options.out}.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
