"""Train the demo with some settings replaced and score it: the table "The demo's recipe" of docs/results.md.

Recipes are compared on the validation drawings, so that the test drawings choose nothing.

python benchmarks/demo_recipes.py --out runs/wide --images 2600 --changes '{"discriminator_channels": 32}'
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import tyro

from unpaired.data import embedded_dataset
from unpaired.errors import ConfigError, nearest
from unpaired.evaluation import evaluate_run
from unpaired.recipes import demo
from unpaired.training import RunConfig, train


def replaced(config: RunConfig, changes: dict[str, Any]) -> RunConfig:
    """``config`` with settings replaced by name, in whichever section (or in the optimiser) they stand."""
    sections: dict[str, Any] = {name: getattr(config, name) for name in ("data", "training", "model")}
    optimiser = sections["model"].optimiser
    for key, value in changes.items():
        owner = next((name for name, section in sections.items() if hasattr(section, key)), None)
        if owner is not None:
            sections[owner] = dataclasses.replace(sections[owner], **{key: value})
        elif hasattr(optimiser, key):
            optimiser = dataclasses.replace(optimiser, **{key: value})
        else:
            known = [field.name for section in (*sections.values(), optimiser) for field in dataclasses.fields(section)]
            raise ConfigError(f"there is no setting '{key}'{nearest(key, known)}")
    sections["model"] = dataclasses.replace(sections["model"], optimiser=optimiser)
    return dataclasses.replace(config, **sections)


def main(out: Path, images: int = 2600, seed: int = 0, changes: str = "{}") -> None:
    """Train in OUT on one thread and print one line of scores.

    Args:
        out: The run folder.
        images: Training images.
        seed: Seed of everything random.
        changes: JSON: name of a setting -> its value.
    """
    config = replaced(demo(images, seed), {"threads": 1, "log_every": 200, **json.loads(changes)})
    train(config, out, quiet=True)
    found = evaluate_run(out, embedded_dataset("fluent").validation, device="cpu").scores
    print(json.dumps({row: {name: round(s.value, 3) for name, s in scores.items()} for row, scores in found.items()}))


if __name__ == "__main__":
    tyro.cli(main)
