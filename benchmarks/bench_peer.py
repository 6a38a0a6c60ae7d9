"""CUT of another package beside ours: time of a step, and pictures after equal CPU seconds.

    pip download --no-deps pytorch-image-translation-models==0.6.0 && unzip *.whl -d peer
    PYTHONPATH=peer python benchmarks/bench_peer.py step --out benchmarks/results/peer_step
    PYTHONPATH=peer python benchmarks/bench_peer.py train --seconds 300 --out ../runs/peer

The peer is pytorch-image-translation-models 0.6.0 (MIT), the one package of this field on the index that has CUT. Its
requirements pin 222 versions, torch 2.8.0+cu126 among them, which no index offers to pip, so it is not installable as
it says; here it runs on our torch, with diffusers, peft and transformers in the versions that it names. No line of it
is in this repository. Its trainer and its settings are its own; ours are the paper's, or the quick recipe.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
import tyro
from torch.utils.data import DataLoader
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import save_image

import mobilenet_judge
from measure import SHARED, Record, in_turns, peak_gib
from unpaired.data import DataConfig, UnpairedFiles, list_images, load_for_protocol
from unpaired.engine.step import make_optimizers, training_step
from unpaired.evaluation import evaluate_made
from unpaired.methods import METHODS, ImageBatch, image_seeds
from unpaired.ops.winograd import direct_convolutions

SCORES = ("kid_mobilenet_x1e3", "kid_lite0_x1e3", "swd_progan_x1e3", "structure_lite0")


def peer(**settings: Any) -> Any:
    """The peer's CUT trainer."""
    from examples.cut.config import CUTConfig
    from examples.cut.train_cut import CUTTrainer

    torch.manual_seed(0)
    return CUTTrainer(CUTConfig(device="cpu", **settings))


@dataclass
class Step:
    """One training step of CUT at its published size, batch 1, in turns; CPU seconds, ratios of neighbours in time."""

    out: Path
    image_size: int = 256
    rounds: int = 5

    def __call__(self) -> None:
        torch.set_num_threads(1)
        images = torch.rand(2, 1, 3, self.image_size, self.image_size, generator=torch.Generator().manual_seed(1))
        theirs = peer(batch_size=1, resolution=self.image_size)
        works = {"peer": lambda: theirs.train_step(*images)}
        for name in ("float32", "float32, no fast convolutions", "bf16"):
            works[name] = self.ours(*(images * 2 - 1), half=name == "bf16", direct="no fast" in name)
        times = in_turns(works, self.rounds)
        record = Record(self.out, "A training step of CUT beside another package's", image_size=self.image_size)
        for name, work in works.items():
            of_peer = median(b / a for a, b in zip(times["peer"].cpu, times[name].cpu, strict=True))
            record.add("step", step=name, **times[name].row(), of_the_peers=of_peer, peak_gib=peak_gib(work))

    def ours(self, source: torch.Tensor, target: torch.Tensor, *, half: bool, direct: bool) -> Any:
        torch.manual_seed(0)
        method = METHODS["cut"](METHODS["cut"].Config())
        layout = torch.channels_last if half else torch.contiguous_format
        method.to(memory_format=layout)
        batch = ImageBatch(source.to(memory_format=layout), target.to(memory_format=layout), image_seeds(0, [0]))
        optimizers = make_optimizers(method, method.config.optimiser)

        def step() -> None:
            with direct_convolutions() if direct else nullcontext():
                training_step(
                    method, optimizers, batch, autocast=lambda: torch.autocast("cpu", torch.bfloat16, enabled=half)
                )

        return step


@dataclass
class Train:
    """Train the peer on horse2zebra for so many CPU seconds of one thread, translate the test horses and score them."""

    out: Path
    seconds: float = 300.0
    side: int = 128

    def __call__(self) -> None:
        torch.set_num_threads(1)
        root = SHARED / "horse2zebra"
        trainer = peer(resolution=self.side)
        loader = DataLoader(
            trainer.build_dataset(root / "trainA", root / "trainB"), trainer.config.batch_size, shuffle=True,
            drop_last=True, generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
        seen, started = 0, time.process_time()
        while time.process_time() - started < self.seconds:
            for batch in loader:
                trainer.train_step(batch["A"], batch["B"])
                seen += len(batch["A"])
                if time.process_time() - started >= self.seconds:
                    break
        spent = time.process_time() - started
        made = self.out / f"peer-{self.seconds:g}s"
        made.mkdir(parents=True, exist_ok=True)
        data = DataConfig(image_size=self.side, load_size=self.side)
        files = UnpairedFiles(tuple(list_images(root / "testA")), tuple(list_images(root / "testB")))
        images = []
        with torch.no_grad():
            for path in files.source:
                image = trainer.netG(load_for_protocol(path, data)[None])[0].clamp(-1, 1)
                images.append(image / 2 + 0.5)
                to_pil_image(images[-1]).save(made / f"{path.stem}.png")
        mobilenet_judge.register()
        found = evaluate_made(made, files, data, names=SCORES).scores["made"]
        record = Record(made, "CUT of another package on horse2zebra", side=self.side)
        scores = {name: score.value for name, score in found.items()}
        record.add("scores", images=seen, cpu_seconds=spent, **scores)
        save_image(images[::10], made.with_suffix(".png"), nrow=6)


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"step": Step, "train": Train})()
