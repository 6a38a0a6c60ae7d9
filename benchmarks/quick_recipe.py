"""Train variants of a recipe for equal CPU seconds and score them: tables of docs/quick.md and docs/significance.md.

    python benchmarks/quick_recipe.py run horses --variants full random --seeds 0 1 --seconds 240 --out ../runs/quick
    python benchmarks/quick_recipe.py table ../runs/quick --out benchmarks/results/quick

One thread each. The length of a run in images follows from the CPU time of its steps, so that all schedules end when
the seconds do; loading images counts, scoring does not. The steps of all variants are timed in turns before the first
run (least of three rounds), and OUT/costs.json keeps that, so that other work on the machine and further seeds change
no lengths. Settings are chosen on ``--split choose``: every ninth training image is held out and scored. ``--split
test`` trains on all of them and scores the test images (of Cityscapes 200 evenly spaced pairs). What must not change is
scored outside boxes around the animals of 60 test photos, and on the blank paper of drawings. A segmenter scores the
photos made from label maps.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated, Any, Literal

import torch
import tyro
from PIL import Image
from scipy.stats import friedmanchisquare, rankdata, ttest_rel

import mobilenet_judge
from measure import SHARED, Record
from unpaired.data import (
    DataConfig,
    DatasetConfig,
    UnpairedFiles,
    embedded_dataset,
    list_images,
    load_for_protocol,
    shorter_side,
)
from unpaired.data import tensor_to_image as shown
from unpaired.engine.step import make_optimizers, random_batch, training_step
from unpaired.evaluation import Evaluator, ScoringNetworks, evaluate_run, evenly_spaced
from unpaired.files import write_atomically
from unpaired.grids import image_grid, side_by_side
from unpaired.inference import Translator
from unpaired.methods import METHODS
from unpaired.recipes import recipe
from unpaired.run_config import RunConfig
from unpaired.training import train

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
SEGMENTED = tuple(f"{name}_espnet_percent" for name in ("miou", "pixel_accuracy", "class_accuracy"))
ESPNET = SHARED.parent / "weights" / "espnet_p_2_q_8.pth"
VARIANTS: dict[str, dict[str, Any]] = {
    "full": {},
    "random": {"method": "cut"},
    **{method: {"method": method} for method in ("cyclegan", "fsesim", "santa", "enco")},
    "no_light": {"generator": "resnet", "taps": ("padded_input", "down1", "down2", "block1", "block5"),
                 "attention_taps": ("block1", "block5")},
    "smooth": {"generator": "light_smooth"},
    "demo": {"generator": "light_smooth", "batch_deviation": True, "augment_noise": 0.08},
    "no_projected": {"discriminator": "patch"},
    "no_patch": {"discriminator": "projected"},
    "noise": {"augment_noise": 0.08},
    "no_shift": {"augment_shift": 0.0},
    "identity_always": {"identity_interval": 1},
    "no_identity": {"identity_weight": 0.0},
    "usual_betas": {"beta1": 0.5, "beta2": 0.999},
    "usual_rate": {"learning_rate": 2e-4},
    "linear": {"schedule": "linear"},
    "batch_1": {"batch_size": 1},
    "batch_2": {"batch_size": 2},
    "fast": {"learning_rate": 1e-3},
    "contrast_half": {"contrastive_weight": 0.5},
    "contrast_2": {"contrastive_weight": 2.0},
    "contrast_4": {"contrastive_weight": 4.0},
    "wide": {"base_channels": 48},
    "dot": {"similarity": "dot"},
    "local": {"attention": "local"},
    "local_global": {"attention": "local_global"},
    "paper": {"recipe": None},
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
    replaced = {
        "image_size": side, "num_workers": 0, "load_size": side if side == 64 else 143, "seed": seed, "threads": 1,
        "accelerator": "cpu", "precision": "bf16-mixed", "score_every": 0, "log_every": 200, "sample_every": 10**9,
        "checkpoint_every": 10**9, "keep_checkpoints": 1, "ema_half_life_images": 300.0, **replaced,
    }  # fmt: skip
    sections: dict[str, Any] = {"data": base.data, "training": base.training, "model": base.model,
                                "optimiser": base.model.optimiser}  # fmt: skip
    changed: dict[str, dict[str, Any]] = defaultdict(dict)  # of a section at once: settings depend on each other
    for key, value in replaced.items():
        owner = next((name for name, section in sections.items() if hasattr(section, key)), None)
        if owner is None and named is not None:
            raise SystemExit(f"no setting '{key}'")
        if owner is not None:
            changed[owner][key] = value
    sections |= {name: replace(sections[name], **values) for name, values in changed.items()}
    sections["model"] = replace(sections["model"], optimiser=sections.pop("optimiser"))
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

    def known() -> dict[str, float]:
        return json.loads(kept.read_text()) if kept.exists() else {}

    timed: dict[str, list[float]] = {name: [] for name in configs if name not in known()}
    for _ in range(rounds):
        for name, found in timed.items():
            found.append(cpu_seconds_per_image(configs[name]))
    if timed:  # other processes may have timed other variants by now
        write_atomically(
            kept, json.dumps(known() | {name: min(found) for name, found in timed.items()}, indent=1).encode()
        )
    return known()


def folders(data: str, split: Literal["choose", "test"], out: Path) -> tuple[Path, UnpairedFiles]:
    """The folder to train on, and held-out files (source, target)."""
    name, direction, _ = SETS[data]
    if data == "drawings":  # the set in the package, which has a split of its own for choosing
        drawings = embedded_dataset("fluent", "drawing_to_colour")
        return drawings.root, drawings.test if split == "test" else drawings.validation
    folder = root = SHARED / name
    held = {side: list_images(root / f"test{side}") for side in "AB"}
    if split == "test" and data == "cityscapes":
        photos = {path.stem: path for path in held["B"]}
        held["A"] = evenly_spaced(held["A"], 200)
        held["B"] = [photos[path.stem] for path in held["A"]]
    elif split == "choose":
        folder = out / "data" / name
        for side in "AB":
            files = list_images(root / f"train{side}")
            held[side], kept = files[4::9], folder / f"train{side}"
            if not kept.exists():
                kept.mkdir(parents=True)
                for file in set(files) - set(held[side]):
                    (kept / file.name).symlink_to(file)
    source, target = ("A", "B") if direction == "AtoB" else ("B", "A")
    return folder, UnpairedFiles(tuple(held[source]), tuple(held[target]))


def grid(run: Path, files: UnpairedFiles, side: int, count: int = 24) -> Image.Image:
    """Inputs beside their translations, averaged and last weights, in two columns."""
    data = DataConfig(image_size=side, load_size=side)
    inputs = [load_for_protocol(path, data) for path in evenly_spaced(files.source, count)]
    columns = {"input": inputs}
    for name in ("ema", "last"):
        translator = Translator.from_pretrained(run, weights=name, device="cpu")  # type: ignore[arg-type]
        columns[name] = [translator.translate(x[None])[0].clamp(-1, 1) for x in inputs]
    half = (len(inputs) + 1) // 2
    return side_by_side([image_grid({name: [shown(x) for x in images[part]] for name, images in columns.items()}, side)
                         for part in (slice(half), slice(half, None))])  # fmt: skip


@cache
def scoring_networks() -> ScoringNetworks:
    """The same for all runs of this process; the segmenter sees label maps and true photos once, not with each run."""
    networks, seen = ScoringNetworks({"espnet": ESPNET}), dict[bytes, torch.Tensor]()
    if ESPNET.exists():
        espnet = networks.load("espnet").module
        segment = espnet.forward

        def once(images: torch.Tensor) -> torch.Tensor:
            key = sha256(images.numpy().tobytes()).digest()
            if key not in seen:
                seen[key] = segment(images)
            return seen[key]

        espnet.forward = once  # type: ignore[method-assign]
    return networks


def scored(data: str, run: Path, files: UnpairedFiles) -> dict[str, dict[str, list[Any]]]:
    """Row -> score -> value, its interval, and the values per image of what must not change."""
    mobilenet_judge.register()
    paired = {path.stem for path in files.source} <= {path.stem for path in files.target}
    names = [name for name in SCORES if paired or not name.startswith("paired")]
    names += {"drawings": UNCHANGED["paper"], "cityscapes": SEGMENTED}.get(data, ())
    found = evaluate_run(run, files, device="cpu", real=(), names=names, networks=scoring_networks()).scores
    if data == "horses":
        tests = SHARED / "horse2zebra"
        boxed = {Path(name).stem for name in json.loads(BOXES.read_text())["boxes"]}
        photos = UnpairedFiles(tuple(file for file in list_images(tests / "testA") if file.stem in boxed),
                               tuple(list_images(tests / "testB")))  # fmt: skip
        outside = evaluate_run(run, photos, device="cpu", real=(), names=UNCHANGED["masks"], unchanged_masks=BOXES)
        found = {row: {**scores, **outside.scores.get(row, {})} for row, scores in found.items()}
    return {
        row: {
            key: [round(score.value, 3), score.interval]
            + ([[round(value, 3) for value in score.per_image]] if key.startswith("unchanged") else [])
            for key, score in scores.items()
        }
        for row, scores in found.items()
    }


@dataclass
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
        make = partial(settings, self.data, changes=json.loads(self.changes), folder=folder)
        names = {variant: f"{self.data}-{variant}{self.label}" for variant in self.variants}
        cost = costs({name: make(variant, seed=0) for variant, name in names.items()}, self.out / "costs.json")
        for seed in self.seeds:
            for variant, base in names.items():
                name = f"{base}-seed{seed}-{self.seconds:g}s-{self.split}"
                run, record = self.out / name, self.out / f"{name}.json"
                if record.exists():
                    continue
                config = make(variant, seed=seed)
                size = config.training.batch_size
                if (run / "run.yaml").exists():
                    images = RunConfig.load(run / "run.yaml").training.images
                else:
                    images = max(2, round(self.seconds / cost[base] / size)) * size
                config = replace(config, training=replace(config.training, images=images))
                started = time.process_time()
                if not train(config, run, quiet=True).finished:
                    raise SystemExit("stopped and saved; the same command goes on")
                spent = time.process_time() - started
                scores = scored(self.data, run, files)
                grid(run, files, shorter_side(config.data.image_size)).save(self.out / f"{name}.png")
                told = {"name": name, "data": self.data, "variant": variant + self.label, "seed": seed,
                        "split": self.split, "seconds": self.seconds, "cpu_seconds_spent": round(spent, 1),
                        "images": images, "scores": scores}  # fmt: skip
                record.write_text(json.dumps(told, default=str))
                print(name, images, round(spent, 1), {r: {k: v[0] for k, v in s.items()} for r, s in scores.items()})


def real_scores(data: str, split: Literal["choose", "test"], out: Path) -> dict[str, float]:
    """As many training images of the target domain as there are sources, scored in the place of translations."""
    mobilenet_judge.register()
    (folder, files), (_, direction, side) = folders(data, split, out), SETS[data]
    evaluator = Evaluator(files, DataConfig(image_size=side, load_size=side), ScoringNetworks(), names=SCORES[:3])
    further = evenly_spaced(list_images(folder / f"train{direction[-1]}"), len(files.source))
    scores = evaluator.score_set(evaluator.read(further, "further real images"), "real against real")
    return {name: score.value for name, score in scores.items()}


def tested(values: list[float], others: list[float]) -> dict[str, Any]:
    """Differences by seed and what a paired t-test says of them, two-sided."""
    differences = [a - b for a, b in zip(values, others, strict=True)]
    return {"by_seed": differences, "p": float(ttest_rel(values, others).pvalue)}


@dataclass
class Table:
    """Means and deviations over seeds of all records in folders, and paired t-tests against random locations and input.

    The unit of a test is the training: tests over the images of one training would tell two networks apart, not two
    methods. P-values are not corrected for their number. Variants that have the same seeds on several sets of images
    are ranked there seed by seed, and Friedman's test says whether the ranks differ.
    """

    records: tyro.conf.Positional[tuple[Path, ...]]
    out: Path
    rank_by: str = "kid_mobilenet_x1e3"
    """The score by which variants are ranked."""

    def __call__(self) -> None:
        sets: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
        runs = list[dict[str, Any]]()
        for path in sorted(path for folder in self.records for path in folder.glob("*-seed*-*.json")):
            record = json.loads(path.read_text())
            variant = record["variant"]  # with a label, which is the same for all variants of a set
            base = max((each for each in VARIANTS if f"{variant}_".startswith(f"{each}_")), key=len)
            sets[record["data"]][base].append(record)
            short = {row: {name: score[:2] for name, score in found.items()} for row, found in record["scores"].items()}
            runs.append(record | {"scores": short})  # without the values of single images
        table = Record(self.out, "Variants of the quick recipe")
        self.out.with_name(f"{self.out.name}_runs.json").write_text(json.dumps(runs) + "\n")
        for data, variants in sets.items():
            first = next(iter(variants.values()))[0]
            for name, known in (("untranslated input", first["scores"]["input"]),
                                ("real against real", real_scores(data, first["split"], self.out.parent))):  # fmt: skip
                cells = {key: value if isinstance(value, float) else value[0] for key, value in known.items()}
                table.add(f"{data}, floor and ceiling", **{"": name}, **cells)
            for row in ("ema", "last"):
                for variant, found in variants.items():
                    found.sort(key=lambda record: record["seed"])
                    values = {name: [each["scores"][row][name][0] for each in found] for name in first["scores"][row]}
                    cells = {name: f"{fmean(each):.4g}" + (f" ± {stdev(each):.2g}" if each[1:] else "")
                             for name, each in values.items()}  # fmt: skip
                    table.add(f"{data}, {row}", variant=variant, seeds=[each["seed"] for each in found],
                              images=[each["images"] for each in found], **cells)  # fmt: skip
                    others = {each["seed"]: each["scores"][row] for each in variants.get("random", ())}
                    both = [number for number, each in enumerate(found) if each["seed"] in others]
                    for name, each in values.items() if found[1:] else ():
                        inputs = [first["scores"]["input"][name][0]] * len(found)
                        table.add(f"{data}, {row}, minus input", variant=variant, score=name, **tested(each, inputs))
                        if variant != "random" and both[1:]:
                            theirs = [others[found[n]["seed"]][name][0] for n in both]
                            table.add(f"{data}, {row}, minus random", variant=variant, score=name,
                                      **tested([each[n] for n in both], theirs))  # fmt: skip
        for row in ("ema", "last") if sets else ():
            self.rank(table, sets, row)

    def rank(self, table: Record, sets: dict[str, dict[str, list[dict[str, Any]]]], row: str) -> None:
        """Rank the variants that are everywhere, in every set and seed."""
        values = {(data, variant): {each["seed"]: each["scores"][row][self.rank_by][0] for each in found}
                  for data, variants in sets.items() for variant, found in variants.items()}  # fmt: skip
        names = [name for name in VARIANTS if all((data, name) in values for data in sets)]
        seeds = {data: set[int].intersection(*(set(values[data, name]) for name in names)) for data in sets}
        blocks = [[values[data, name][seed] for name in names] for data in sets for seed in sorted(seeds[data])]
        if len(names) < 3 or len(blocks) < 2:
            return
        p = float(friedmanchisquare(*zip(*blocks, strict=True)).pvalue)
        for name, rank in zip(names, rankdata(blocks, axis=1).mean(0), strict=True):
            table.add(f"{self.rank_by}, {row}: mean rank over sets and seeds", variant=name, rank=float(rank),
                      blocks=len(blocks), friedman_p=p)  # fmt: skip


if __name__ == "__main__":
    tyro.cli(Annotated[Run, tyro.conf.subcommand("run")] | Annotated[Table, tyro.conf.subcommand("table")])()  # type: ignore[operator]
