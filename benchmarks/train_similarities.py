"""Train QS-Attn with each similarity, and with random sampling, on the embedded drawings: equal budget, same seeds.

    python benchmarks/train_similarities.py --out runs/similarities --images 3300 --seeds 0 1 2 --jobs 2

One run folder per contender and seed, the demo's recipe otherwise, one thread per run. Start it again to go on where
it stopped. ``significance_scores.py`` scores what this makes; ``significance_study.py`` measures its features.
"""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import tyro

CONTENDERS: dict[str, dict[str, Any]] = {
    "dot": {"similarity": "dot"},
    "scaled": {"similarity": "scaled"},
    "cosine_0.1": {"similarity": "cosine", "similarity_temperature": 0.1},
    "cosine_0.03": {"similarity": "cosine", "similarity_temperature": 0.03},
    "random": {"significance": "random", "routing": "none"},  # CUT, bit for bit
}
"""Name -> what replaces the demo's settings."""


def main(out: Path, images: int = 3300, seeds: tuple[int, ...] = (0, 1, 2), jobs: int = 2, one: str = "") -> None:
    """Train every contender with every seed.

    Args:
        out: Folder of the run folders.
        images: Training images of each run.
        seeds: Seeds, each with every contender.
        jobs: Runs side by side, one thread each.
        one: Only this one, NAME:SEED, in this process.
    """
    if one:
        name, _, seed = one.partition(":")
        _train(out / f"{name}_seed{seed}", images, int(seed), CONTENDERS[name])
        return
    names = [f"{name}:{seed}" for seed in seeds for name in CONTENDERS]
    command = [sys.executable, __file__, "--out", str(out), "--images", str(images), "--one"]
    with ThreadPoolExecutor(jobs) as pool:
        codes = list(pool.map(lambda each: subprocess.run([*command, each], check=False).returncode, names))
    failed = [name for name, code in zip(names, codes, strict=True) if code]
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


def _train(run: Path, images: int, seed: int, changes: dict[str, Any]) -> None:
    from demo_recipes import replaced  # torch takes seconds to import: only where it is needed
    from unpaired.recipes import demo
    from unpaired.training import train

    train(replaced(demo(images, seed), {"threads": 1, "log_every": 100, **changes}), run, quiet=True)
    print(f"{run} is trained", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
