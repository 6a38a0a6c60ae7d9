"""Train variants of a recipe for equal CPU seconds and score them: the tables of docs/quick.md.

python benchmarks/quick_recipe.py run horses --variants full random --seeds 0 1 --seconds 240 --out ../long_runs/quick
python benchmarks/quick_recipe.py table ../long_runs/quick

One thread each. The length of a run in images follows from the CPU time of its steps, so that all schedules end when
the seconds do; loading images counts, scoring does not. The steps of all variants are timed in turns before the first
run (least of three rounds), and OUT/costs.json keeps that, so that other work on the machine and further seeds change
no lengths. Settings are chosen on ``--split choose``: every ninth training image is held out and scored. ``--split
test`` trains on all of them and scores the test images. What must not change is scored outside boxes around the animals
of 60 test photos, and on the blank paper of drawings.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from PIL import Image

import mobilenet_judge
from unpaired.data import DatasetConfig, UnpairedFiles, embedded_dataset, list_images
from unpaired.engine.step import make_optimizers, random_batch, training_step
from unpaired.evaluation import evaluate_run
from unpaired.inference import Translator
from unpaired.methods import METHODS
from unpaired.recipes import recipe
from unpaired.run_config import RunConfig
from unpaired.training import train

SHARED = Path(os.environ.get("SHARED", Path(__file__).resolve().parents[2] / "shared")) / "data"
SETS: dict[str, tuple[str, str, int]] = {
    "horses": ("horse2zebra", "AtoB", 128),
    "drawings": ("fluent", "BtoA", 64),
    "emoji": ("emoji", "AtoB", 64),
    "cityscapes": ("cityscapes", "AtoB", 128),
}
"""Name -> folder of shared/data, direction, side of the crops in pixels."""
SCORES = ("kid_mobilenet_x1e3", "kid_lite0_x1e3", "swd_progan_x1e3", "paired_l1_pm1", "structure_lite0")
UNCHANGED = {kept: (f"unchanged_colour_{kept}_de", f"unchanged_detail_{kept}_de") for kept in ("paper", "masks")}
BOXES = Path(__file__).parent / "horse2zebra_boxes.json"
PAPER: dict[str, Any] = {"recipe": None}
VARIANTS: dict[str, dict[str, Any]] = {
    "full": {},
    "random": {"method": "cut"},
    "no_light": {"generator": "resnet", "taps": ("padded_input", "down1", "down2", "block1", "block5"),
                 "attention_taps": ("block1", "block5")},
    "smooth": {"generator": "light_smooth"},
    "no_projected": {"discriminator": "patch"},
    "no_patch": {"discriminator": "projected"},
    "no_noise": {"augment_noise": 0.0},
    "no_shift": {"augment_shift": 0.0},
    "identity_always": {"identity_interval": 1},
    "no_identity": {"identity_weight": 0.0},
    "usual_betas": {"beta1": 0.5, "beta2": 0.999},
    "usual_rate": {"learning_rate": 2e-4},
    "linear": {"schedule": "linear"},
    "batch_2": {"batch_size": 2},
    "contrast_half": {"contrastive_weight": 0.5},
    "contrast_2": {"contrastive_weight": 2.0},
    "contrast_4": {"contrastive_weight": 4.0},
    "wide": {"base_channels": 48},
    "dot": {"similarity": "dot"},
    "local": {"attention": "local"},
    "local_global": {"attention": "local_global"},
    "paper": PAPER,
    "paper_cut": {"recipe": None, "method": "cut"},
}  # fmt: skip
"""What each changes of the recipe; 'paper' is the method's own defaults at the same size."""


def settings(data: str, variant: str, changes: dict[str, Any], folder: Path, seed: int) -> RunConfig:
    """The run of a variant, without its length."""
    _, direction, side = SETS[data]
    replaced = {**VARIANTS[variant], **changes}
    named, method = replaced.pop("recipe", "quick"), replaced.pop("method", "qs_attn")
    dataset = DatasetConfig(folder=folder, direction=direction)  # type: ignore[arg-type]
    base = RunConfig(method, dataset) if named is None else recipe(named, method, dataset)
    if named is None:  # at these sides the 34 x 34 PatchGAN, and a quarter of the locations as in the paper
        replaced = {"discriminator_layers": 2, "num_queries": 256 if side == 128 else 64, **replaced}
    load = {"load_size": side} if side == 64 else {"load_size": 143}
    sections: dict[str, Any] = {
        "data": replace(base.data, image_size=side, num_workers=0, **load),
        "training": replace(
            base.training, seed=seed, threads=1, accelerator="cpu", precision="bf16-mixed", score_every=0,
            log_every=200, sample_every=10**9, checkpoint_every=10**9, keep_checkpoints=1, ema_half_life_images=300.0,
        ),
        "model": base.model,
    }  # fmt: skip
    for key, value in replaced.items():
        owner = next((name for name, section in sections.items() if hasattr(section, key)), None)
        if owner is not None:
            sections[owner] = replace(sections[owner], **{key: value})
        elif hasattr(sections["model"].optimiser, key):
            optimiser = replace(sections["model"].optimiser, **{key: value})
            sections["model"] = replace(sections["model"], optimiser=optimiser)
        elif not named:
            raise SystemExit(f"no setting '{key}'")
    return replace(base, **sections)


def cpu_seconds_per_image(config: RunConfig, steps: int = 8) -> float:
    """CPU seconds of a training step, loading left out, per image; the mean over ``steps``, the first three dropped."""
    torch.manual_seed(0)
    method = METHODS[config.method](config.model)
    method.prepare()
    layout = torch.channels_last if config.training.precision != "32" else torch.contiguous_format
    method.to(memory_format=layout)
    optimizers = make_optimizers(method, config.model.optimiser)
    autocast = partial(torch.autocast, "cpu", dtype=torch.bfloat16, enabled=layout is torch.channels_last)
    side, started = config.data.image_size, 0.0
    for number in range(steps + 3):
        if number == 3:
            started = time.process_time()
        source, target = torch.rand(2, config.training.batch_size, 3, side, side) * 2 - 1  # type: ignore[arg-type]
        images = random_batch(method, *(x.contiguous(memory_format=layout) for x in (source, target)))
        training_step(method, optimizers, replace(images, number=number), number=number, autocast=autocast)
    return (time.process_time() - started) / steps / config.training.batch_size


def costs(configs: dict[str, RunConfig], kept: Path, rounds: int = 3) -> dict[str, float]:
    """CPU seconds per image of each, timed in turns unless ``kept`` has them; the least of the rounds."""
    known: dict[str, float] = json.loads(kept.read_text()) if kept.exists() else {}
    timed: dict[str, list[float]] = {name: [] for name in configs if name not in known}
    for _ in range(rounds):
        for name, found in timed.items():
            found.append(cpu_seconds_per_image(configs[name]))
    known |= {name: min(found) for name, found in timed.items()}
    kept.write_text(json.dumps(known, indent=1))
    return known


def folders(data: str, split: Literal["choose", "test"], out: Path) -> tuple[Path, UnpairedFiles]:
    """The folder to train on, and held-out files (source, target)."""
    name, direction, _ = SETS[data]
    if data == "drawings":  # the set in the package, which has a split of its own for choosing
        drawings = embedded_dataset("fluent", "drawing_to_colour")
        return drawings.root, drawings.test if split == "test" else drawings.validation
    root = SHARED / name
    if split == "test":
        folder = root
        held = {side: list_images(root / f"test{side}") for side in "AB"}
    else:
        folder = out / "data" / name
        held = {}
        for side in "AB":
            files = list_images(root / f"train{side}")
            held[side] = files[4::9]
            kept = folder / f"train{side}"
            if not kept.exists():
                kept.mkdir(parents=True)
                for file in files:
                    if file not in held[side]:
                        (kept / file.name).symlink_to(file)
    source, target = ("A", "B") if direction == "AtoB" else ("B", "A")
    return folder, UnpairedFiles(tuple(held[source]), tuple(held[target]))


def grid(run: Path, files: UnpairedFiles, side: int, count: int = 24) -> Image.Image:
    """Inputs beside their translations, averaged and last weights, in two columns."""
    chosen = [files.source[k * len(files.source) // count] for k in range(count)]
    translators = [Translator.from_pretrained(run, weights=weights, device="cpu") for weights in ("ema", "last")]
    cells = []
    for path in chosen:
        image = Image.open(path).convert("RGBA")
        white = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image).convert("RGB")
        given = white.resize((side, side), Image.Resampling.BICUBIC)
        tensor = torch.from_numpy(np.array(given)).permute(2, 0, 1)[None].float() / 127.5 - 1
        made = [
            ((t.translate(tensor)[0].clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
            for t in translators
        ]
        cells.append(np.concatenate([np.array(given), *made], axis=1))
    rows = [np.concatenate(cells[k : k + 2], axis=1) for k in range(0, count, 2)]
    return Image.fromarray(np.concatenate(rows, axis=0))


@dataclasses.dataclass
class Run:
    """Train and score variants."""

    data: tyro.conf.Positional[Literal["horses", "drawings", "emoji", "cityscapes"]]
    out: Path
    variants: tuple[str, ...] = ("full",)
    seeds: tuple[int, ...] = (0,)
    seconds: float = 240.0
    """CPU seconds of training, one thread."""
    split: Literal["choose", "test"] = "choose"
    changes: str = "{}"
    """JSON: further settings, for all variants."""
    label: str = ""
    """Added to the names of the runs."""

    def __call__(self) -> None:
        torch.set_num_threads(1)
        self.out.mkdir(parents=True, exist_ok=True)
        folder, files = folders(self.data, self.split, self.out)
        changes = json.loads(self.changes)
        configs = {
            f"{self.data}-{variant}{self.label}": settings(self.data, variant, changes, folder, 0)
            for variant in self.variants
        }
        cost = costs(configs, self.out / "costs.json")
        for seed in self.seeds:
            for variant in self.variants:
                base = f"{self.data}-{variant}{self.label}"
                name = f"{base}-seed{seed}-{self.seconds:g}s-{self.split}"
                run, record = self.out / name, self.out / f"{name}.json"
                if record.exists():
                    continue
                config = settings(self.data, variant, changes, folder, seed)
                size = config.training.batch_size
                if (run / "run.yaml").exists():
                    images = RunConfig.load(run / "run.yaml").training.images
                else:
                    images = max(2, round(self.seconds / cost[base] / size)) * size
                config = replace(config, training=replace(config.training, images=images))
                started = time.process_time()
                train(config, run, quiet=True)
                spent = time.process_time() - started
                scores = scored(self.data, run, files)
                grid(run, files, SETS[self.data][2]).save(self.out / f"{name}.png")
                record.write_text(
                    json.dumps({"name": name, "data": self.data, "variant": variant + self.label, "seed": seed,
                                "split": self.split, "seconds": self.seconds, "cpu_seconds_spent": round(spent, 1),
                                "images": images, "scores": scores}, default=str)
                )  # fmt: skip
                print(
                    name, images, round(spent, 1),
                    {row: {key: value[0] for key, value in found.items()} for row, found in scores.items()}, flush=True,
                )  # fmt: skip


def scored(data: str, run: Path, files: UnpairedFiles) -> dict[str, dict[str, list[Any]]]:
    """Row -> score -> value, its interval, and the values per image of what must not change."""
    mobilenet_judge.register()
    found = evaluate_run(run, files, device="cpu", real=(), names=_possible(files, data)).scores
    if data == "horses":
        tests = SHARED / "horse2zebra"
        boxed = {Path(name).stem for name in json.loads(BOXES.read_text())["boxes"]}
        photos = UnpairedFiles(
            tuple(file for file in list_images(tests / "testA") if file.stem in boxed),
            tuple(list_images(tests / "testB")),
        )
        outside = evaluate_run(
            run, photos, device="cpu", real=(), names=UNCHANGED["masks"], unchanged_masks=BOXES
        ).scores  # fmt: skip
        found = {row: {**scores, **outside.get(row, {})} for row, scores in found.items()}
    return {
        row: {
            key: [round(score.value, 3), score.interval]
            + ([[round(value, 3) for value in score.per_image]] if key.startswith("unchanged") else [])
            for key, score in scores.items()
        }
        for row, scores in found.items()
    }


def _possible(files: UnpairedFiles, data: str) -> tuple[str, ...]:
    paired = {path.stem for path in files.source} <= {path.stem for path in files.target}
    names = tuple(name for name in SCORES if paired or not name.startswith("paired"))
    return (*names, *UNCHANGED["paper"]) if data == "drawings" else names


@dataclasses.dataclass
class Table:
    """Print the scores of all records in OUT."""

    out: tyro.conf.Positional[Path]
    match: str = ""

    def __call__(self) -> None:
        for path in sorted(self.out.glob(f"*{self.match}*.json")):
            record = json.loads(path.read_text())
            scores = record["scores"]
            words = [
                f"{name.split('_x1e3')[0]} "
                + " / ".join(f"{scores[row][name][0]:g}" for row in ("input", "ema", "last") if name in scores[row])
                for name in scores["ema"]
            ]
            print(f"{record['name']}: {record['images']} images; " + "; ".join(words))


if __name__ == "__main__":
    tyro.cli(Annotated[Run, tyro.conf.subcommand("run")] | Annotated[Table, tyro.conf.subcommand("table")])()  # type: ignore[operator]
