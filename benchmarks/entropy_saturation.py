"""How far attention has become one-hot in trained networks: entropies and lengths of features where they select.

    python benchmarks/entropy_saturation.py RUN... --out benchmarks/results/entropy_saturation_202611

Each run's own held-out source images, at the size of its crops, averaged weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from measure import Record
from unpaired import Translator
from unpaired.data import list_images, load_for_protocol
from unpaired.evaluation import evenly_spaced
from unpaired.ops import significance_map
from unpaired.run_config import RunConfig


@dataclass
class Saturation:
    """Measure and write OUT.json and OUT.md."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    out: Path
    images: Path
    """Folder of source images."""
    show: int = 20
    """How many of them, evenly spaced by name."""

    @torch.no_grad()
    def __call__(self) -> None:
        record = Record(self.out, "How far attention is one-hot in trained networks", images=self.show)
        for run in self.runs:
            config = RunConfig.load(run / "run.yaml")
            method = Translator.from_pretrained(run).method
            files = evenly_spaced(list_images(self.images), self.show)
            sources = [load_for_protocol(path, config.data)[None] for path in files]
            for tap in config.model.attention_taps:  # type: ignore[attr-defined]
                maps = [method.generator.encode(each, (tap,))[0].float() for each in sources]
                for similarity, temperature in (("scaled", None), ("cosine", 0.05)):
                    found = [
                        significance_map(each, similarity=similarity, temperature=temperature).flatten()  # type: ignore[arg-type]
                        for each in maps
                    ]
                    entropies = torch.cat(found)
                    record.add(
                        "entropy", run=run.name, tap=tap, similarity=similarity,
                        median_length=torch.cat([each.norm(dim=1).flatten() for each in maps]).median().item(),
                        locations=maps[0][0, 0].numel(), median_nats=entropies.median().item(),
                        share_below_001=(entropies < 0.01).float().mean().item(),
                    )  # fmt: skip


if __name__ == "__main__":
    tyro.cli(Saturation)()
