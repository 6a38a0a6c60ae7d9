"""Run folders with the records that training and evaluation leave, without any training or evaluation."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unpaired.config import save_yaml
from unpaired.methods import METHODS
from unpaired.run_config import DatasetConfig, RunConfig

Record = dict[str, Any]

METRICS: dict[str, tuple[str, str, str, str]] = {
    "kid_lite0_x1e3": ("KID (Lite0)", "x 1e-3", "lower", "kernel distance on Lite0"),
    "fd_lite0": ("FD (Lite0)", "", "lower", "Frechet distance on Lite0"),
    "swd_progan_x1e3": ("SWD", "x 1e-3", "lower", "sliced Wasserstein distance"),
    "paired_l1_pm1": ("L1 to truth", "", "lower", "mean absolute error"),
    "paired_psnr_db": ("PSNR to truth", "dB", "higher", "peak signal-to-noise ratio"),
    "paired_ssim_gauss11": ("SSIM to truth", "", "higher", "structural similarity"),
    "structure_lite0": ("structure lost", "", "lower", "self-similarities of Lite0"),
    "identity_percent": ("input returned", "%", "lower", "share of images that come back"),
    "diversity_lite0": ("diversity", "", "higher", "distance between outputs over that between real ones"),
}
"""Name -> label, unit, better, protocol."""
LABELS = {"input": "input (untranslated)", "real": "real against real", "truth": "real photos",
          "ema": "average (EMA)", "made": "generated images", "last": "last", "best": "best"}  # fmt: skip
KID, SWD, PSNR = "kid_lite0_x1e3", "swd_progan_x1e3", "paired_psnr_db"
Values = Mapping[str, float | None]


def score(name: str, value: float | None, counts: tuple[int, int] = (200, 200), **changes: Any) -> Record:
    """One score as the files hold it; ``interval`` and ``spread`` among ``changes`` where it has them."""
    label, unit, better, protocol = METRICS[name]
    plain = str(value) if value is not None and math.isinf(value) else value
    return {
        "name": name, "value": plain, "spread": None, "interval": None, "label": label, "unit": unit, "better": better,
        "protocol": protocol, "images": counts[0], "reference_images": counts[1], "per_level": {}, **changes,
    }  # fmt: skip


def named(scores: Sequence[Record]) -> dict[str, Record]:
    """Scores by full name."""
    return {f"{one['name']}_{one['images']}v{one['reference_images']}": one for one in scores}


def evaluation(rows: Mapping[str, Values], **changes: Any) -> Record:
    """One line of ``evaluations.jsonl`` from row -> metric -> value; ``changes`` replace keys, ``data`` is joined."""
    data = {
        "name": "data/drawings", "source_digest": "aaaa1111aaaa1111", "target_digest": "bbbb2222bbbb2222",
        "source_images": 200, "target_images": 200, "image_size": 64, "paired": True,
    }  # fmt: skip
    described: Record = {row: {"label": LABELS[row], "reference": row in ("input", "real", "truth")} for row in rows}
    if "best" in rows:
        described["best"] |= {
            "images_seen": 1200, "weights": "ema", "score": "kid_lite0_x1e3_100v100",
            "chosen_on": "testA and testB of drawings",
        }  # fmt: skip
    return {
        "format": 2,
        "time": "2026-11-25T18:00:00+00:00",
        "images_seen": 3300,
        "seed": 0,
        "networks": {"lite0": {"title": "EfficientNet-Lite0, ImageNet", "digest": "cccc3333cccc3333"}},
        "rows": described,
        "scores": {row: named([score(name, value) for name, value in values.items()]) for row, values in rows.items()},
        "environment": {},
        **changes,
        "data": {**data, **changes.get("data", {})},
    }


def training_line(images_seen: int, weights: str, values: Values, **changes: Any) -> Record:
    """One line of ``scores.jsonl``."""
    scores = named([score(name, value, (100, 100)) for name, value in values.items()])
    where = "testA and testB of drawings"
    return {"images_seen": images_seen, "weights": weights, "seconds": 2.5, "chosen_on": where, "scores": scores,
            **changes}  # fmt: skip


def write_run(
    folder: Path,
    *evaluations: Record,
    method: str = "qs_attn",
    seed: int = 0,
    model: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    files_digest: str | None = "dddd4444dddd4444",
    scores: Sequence[Record] = (),
    best: Record | None = None,
) -> Path:
    """Make a run folder with ``run.yaml``, ``sessions.jsonl`` and the records given."""
    config = RunConfig(
        method,
        DatasetConfig(folder=folder.parent / "drawings"),
        model=METHODS[method].Config(**(model or {})),
    ).to_mapping()
    config["training"] |= {"seed": seed, "images": 3300, **(training or {})}
    config["data"] |= data or {}
    folder.mkdir(parents=True)
    save_yaml(folder / "run.yaml", config)
    if files_digest is not None:
        write_lines(folder / "sessions.jsonl", [{"files_digest": files_digest}])
    if evaluations:
        write_lines(folder / "evaluations.jsonl", evaluations)
    if scores:
        write_lines(folder / "scores.jsonl", scores)
    if best is not None:
        (folder / "weights").mkdir()
        (folder / "weights" / "best.json").write_text(json.dumps(best))
    return folder


def write_lines(path: Path, entries: Sequence[Record | str]) -> None:
    """Write JSON lines; text goes in as it is."""
    lines = (entry if isinstance(entry, str) else json.dumps(entry) for entry in entries)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
