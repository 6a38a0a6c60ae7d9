"""One run in a process of its own: ``python -m unpaired.benchmarking ORDER.json``.

The process ends when its standard input does, that is with the process that started it, however that ended: training
saves first.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import signal
import statistics
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unpaired.benchmarking.held_out import held_out
from unpaired.benchmarking.matrix import EvaluationOptions
from unpaired.benchmarking.plan import log_records
from unpaired.benchmarking.state import images_in_weights, mend_records
from unpaired.config import from_dict
from unpaired.errors import TrainingError, UserError
from unpaired.evaluation import ScoringNetworks, append_record, evaluate_run
from unpaired.files import write_atomically
from unpaired.training import RunConfig, train

STOPPED = 130
"""Exit code of a worker that was asked to end and saved."""
_INTERVALS, _WARM_UP, _STEPS = 8, 2, 4
"""A measurement takes so many intervals of so many steps; the first ones only warm up."""


@dataclass(frozen=True)
class Order:
    """What a worker is to do.

    Attributes:
        config: Settings of the run, as a run file has them.
        out: The run folder; for a measurement, one that is made and removed again.
        data: Name of the data set, for the record.
        device: Where to evaluate: cpu, cuda or mps.
        evaluate: ``EvaluationOptions`` as plain values.
        measured: File for the seconds per image; with it, nothing is trained to an end and nothing evaluated.
    """

    config: dict[str, Any]
    out: str
    data: str
    device: str
    evaluate: dict[str, Any]
    measured: str | None = None


def main(path: Path) -> int:
    """Do what the file orders; return 0 done, 130 stopped and saved, others as ``unpaired train``."""
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    order = Order(**json.loads(path.read_text(encoding="utf-8")))
    try:
        if order.measured is not None:
            return _measure(order, Path(order.measured))
        return _train_and_evaluate(order)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return STOPPED


def _end_with_the_parent() -> None:
    """Wait for the end of standard input, which only the parent holds open; then ask for a clean end."""
    while os.read(0, 1):  # not sys.stdin, whose lock this thread would hold when the process ends
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _train_and_evaluate(order: Order) -> int:
    out = Path(order.out)
    config = RunConfig.from_mapping(order.config, str(out))
    if images_in_weights(out) < (config.training.images or 0):
        result = train(config, out)
        if result.interrupted or not result.finished:
            return STOPPED
    options = from_dict(EvaluationOptions, order.evaluate, "evaluate")
    weights = {name: Path(file) for name, _, file in (entry.partition("=") for entry in options.weights)}
    tested = held_out(config.dataset)
    print(f"evaluating on {order.data}", flush=True)
    evaluation = evaluate_run(
        out,
        tested.files,
        device=order.device,
        batch_size=options.batch_size,
        wish=tested.wish,
        networks=ScoringNetworks(weights, order.device, download=options.download),
        names=options.metrics or None,
        paired=options.paired,
        seed=options.seed,
        intervals=options.intervals,
        report=print,
    )
    mend_records(out)
    append_record(out, evaluation, data=order.data, images_seen=images_in_weights(out))
    return 0


def _measure(order: Order, file: Path) -> int:
    """Train for some steps in a folder that is thrown away, with everything that takes time in a training step."""
    config = RunConfig.from_mapping(order.config, order.out)
    batch = config.training.batch_size
    steps = _INTERVALS * _STEPS
    training = dataclasses.replace(
        config.training, images=1000 * steps * batch, stop_after=steps * batch, log_every=_STEPS * batch,
        sample_every=2000 * steps * batch, checkpoint_every=2000 * steps * batch, score_every=0,
    )  # fmt: skip
    out = Path(order.out)
    shutil.rmtree(out, ignore_errors=True)
    try:
        result = train(dataclasses.replace(config, training=training), out)
        if result.interrupted:
            return STOPPED
        found = [float(record["seconds_per_image"]) for record in log_records(out)[_WARM_UP:]]
    finally:
        shutil.rmtree(out, ignore_errors=True)
    seconds = statistics.median(found) if found else math.nan
    if not seconds > 0:
        raise TrainingError("the speed could not be measured: the log of the measurement holds none")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, json.dumps({"seconds_per_image": seconds}).encode())
    return 0
