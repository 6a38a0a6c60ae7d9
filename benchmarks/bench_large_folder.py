"""Start of a training on a large folder: processor time and memory from the command to the first step, and resumed.

    python benchmarks/bench_large_folder.py --out benchmarks/results/large_folder_202611 --work ../runs/large_folder

The folder holds hard links to forty of the embedded drawings. Each session is a process of its own that takes one step
(batch 1, tiny networks, one thread, no loading process), so that the difference between the rows is what the files
cost. A first session lists, samples and records the files; a resumed one finds them unchanged.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import tyro

from measure import Record
from unpaired.data import embedded_dataset

_SESSION = """
import json, resource, sys, time
from pathlib import Path
import torch
import unpaired
from unpaired.methods import METHODS
torch.set_num_threads(1)
data, run, images = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
config = unpaired.RunConfig(
    "cut", unpaired.DatasetConfig(folder=data), unpaired.DataConfig(image_size=64, load_size=64, num_workers=0),
    METHODS["cut"].Config(base_channels=4, blocks=1, taps=("padded_input", "block1"), num_queries=16),
    unpaired.TrainingConfig(images=2, stop_after=images, score_every=0, sample_every=100, logger=()),
)
started, loaded = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
unpaired.train(config, run, quiet=True)
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({"cpu_seconds": time.process_time() - started, "memory_mib": (used.ru_maxrss - loaded) / 1024}))
"""


def main(out: Path, work: Path, files: tuple[int, ...] = (614, 1_000_000)) -> None:
    """Measure and write OUT.json and OUT.md.

    Args:
        out: Name of the result files, without suffix.
        work: Folder for the images and runs; it stays.
        files: Images of domain A; B has the 614 of the embedded drawings.
    """
    record = Record(out, "Start of a training on a large folder")
    drawings = embedded_dataset().root
    for count in files:
        data, run = work / f"{count}", work / f"run_{count}"
        if not data.exists():
            (data / "trainA").mkdir(parents=True)
            (data / "trainB").symlink_to(drawings / "trainB")
            seeds = sorted((drawings / "trainA").iterdir())[:40]
            for number in range(count):
                (data / "trainA" / f"picture{number:07d}.png").hardlink_to(seeds[number % len(seeds)])
        for session, images in (("first", 1), ("resumed", 2)):
            wall = time.perf_counter()
            command = [sys.executable, "-c", _SESSION, str(data), str(run), str(images)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            record.add(f"{count:,} + 614 files", session=session, **found, seconds=time.perf_counter() - wall)


if __name__ == "__main__":
    tyro.cli(main)
