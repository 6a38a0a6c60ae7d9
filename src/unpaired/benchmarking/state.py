"""How far a run is, read off its folder: nothing else is believed, so any interruption may have come before."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Any

from unpaired.benchmarking.cells import PATHS
from unpaired.benchmarking.matrix import EvaluationOptions
from unpaired.benchmarking.plan import Run
from unpaired.errors import ConfigError
from unpaired.evaluation import METRICS
from unpaired.reporting.records import EvaluationRecord, evaluations
from unpaired.run_config import as_begun, store
from unpaired.training import MAY_CHANGE, RunConfig, first_digest, flat


class Stage(Enum):
    """How far a run is."""

    NEW = "not begun"
    BEGUN = "begun"
    TRAINED = "trained"
    EVALUATED = "done"


def stage_of(run: Run, options: EvaluationOptions) -> Stage:
    """How far a run is. Its settings are taken to be the plan's; see ``check_settings``."""
    if not (run.folder / "run.yaml").exists():
        return Stage.NEW
    if images_in_weights(run.folder) < run.images:
        return Stage.BEGUN
    return Stage.TRAINED if accepted_record(run, options) is None else Stage.EVALUATED


def images_in_weights(folder: Path) -> int:
    """Images that the exported weights have seen; 0 where there are none. The description is written after them."""
    try:
        seen = json.loads((folder / "weights" / "model.json").read_text(encoding="utf-8"))["images_seen"]
    except (OSError, ValueError, KeyError, TypeError):
        return 0
    return seen if isinstance(seen, int) else 0


def accepted_record(run: Run, options: EvaluationOptions) -> EvaluationRecord | None:
    """The newest evaluation that is what this benchmark would make: of its images, by its protocol, of all weights."""
    fitting = [record for record in evaluations(run.folder) if _fits(record, run, options)]
    return fitting[-1] if fitting else None


def _fits(record: EvaluationRecord, run: Run, options: EvaluationOptions) -> bool:
    if (record.data.source_digest, record.data.target_digest) != run.cell.held_out.digests:
        return False
    if record.images_seen != run.images or record.seed != options.seed:
        return False
    if record.data.image_size != run.config.data.image_size or "ema" not in record.scores:
        return False
    scores = {score.name: score for score in record.scores["ema"].values()}
    if any(METRICS[name].protocol != score.protocol for name, score in scores.items() if name in METRICS):
        return False
    return all(name in scores for name in options.metrics)


def check_settings(run: Run, *, change: bool = True) -> str:
    """Refuse a folder that holds another run than the plan's; take over one that was made by hand or has moved.

    Args:
        run: The run.
        change: Whether to do so, or only to look.

    Returns:
        What was changed in the folder, in words; usually nothing.

    Raises:
        ConfigError: A setting differs; the message names the run and the setting.
    """
    folder = run.folder
    if not (folder / "run.yaml").exists():
        if change:
            _check_empty(folder)
        return ""
    previous = RunConfig.load(folder / "run.yaml").to_mapping()
    config = as_begun(run.config, folder)
    before, now = flat(previous), flat(config.to_mapping())
    if "model.domains" in now and not now["model.domains"]:
        before["model.domains"] = now["model.domains"]  # filled in from the folder when the run began
    changed = [
        key for key in dict.fromkeys((*now, *before)) if before.get(key) != now.get(key) and key not in MAY_CHANGE
    ]
    if settings := [key for key in changed if key not in PATHS]:
        listed = "; ".join(f"{key} was {before.get(key)!r}, now {now.get(key)!r}" for key in settings[:4])
        raise ConfigError(
            f"{folder} was made with other settings ({listed}); set them back, give the contender another name, or "
            "remove that folder to train it anew"
        )
    if first_digest(folder) not in (run.cell.files_digest, None):
        raise ConfigError(
            f"{folder} was trained on other images (names or number differ from those of data.{run.cell.data}); give "
            "the data set another name, or remove that folder to train it anew"
        )
    if not changed:
        return ""
    if change:
        store(folder / "run.yaml", {**previous, "dataset": run.config.to_mapping()["dataset"]})
    return f"{folder.name}: taken over; its images lay in {before.get(changed[0])} and lie in {now.get(changed[0])} now"


def _check_empty(folder: Path) -> None:
    """Clear what a power loss left of a file being written; refuse what is no run."""
    if not folder.is_dir():
        return
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)
    if any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty and holds no run; remove it or choose another --out")


def mend_records(folder: Path) -> None:
    """End a line of ``evaluations.jsonl`` that a power loss cut short, so that the next one stands alone."""
    path = folder / "evaluations.jsonl"
    try:
        with path.open("rb+") as file:
            if file.seek(0, 2) and (file.seek(-1, 2), file.read(1))[1] != b"\n":
                file.write(b"\n")
    except FileNotFoundError:
        return


# ---------------------------------------------------------------------------------------------------------------------
# failures
# ---------------------------------------------------------------------------------------------------------------------
class Failures:
    """Runs that ended with an error of their own: they wait for ``--retry``, or for other settings.

    Args:
        out: The benchmark's folder.
    """

    def __init__(self, out: Path) -> None:
        self.folder = out / "failures"

    def words(self, run: Run) -> str | None:
        """What a run failed of with these settings; ``None`` where it did not."""
        try:
            entry: dict[str, Any] = json.loads((self.folder / f"{run.name}.json").read_text(encoding="utf-8"))
            return str(entry["words"]) if entry["settings"] == run.config.to_mapping() else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep(self, run: Run, words: str) -> None:
        """File a failure."""
        self.folder.mkdir(parents=True, exist_ok=True)
        entry = {"words": words, "settings": run.config.to_mapping()}
        (self.folder / f"{run.name}.json").write_text(json.dumps(entry, indent=1), encoding="utf-8")

    def forget(self, run: Run) -> None:
        """Take a failure off the file."""
        (self.folder / f"{run.name}.json").unlink(missing_ok=True)
