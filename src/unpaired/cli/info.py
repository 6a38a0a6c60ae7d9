"""``unpaired info``: versions, devices, methods, and which backends can run here and why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from unpaired.cli.options import parse


@dataclass(frozen=True)
class Info:
    """Show versions, devices, methods, metrics, and which query-selection backends can run here.

    Example: unpaired info
    """


def main(argv: Sequence[str]) -> int:
    """Print what a bug report needs."""
    parse(Info, argv, "unpaired info")
    import torch

    from unpaired.environment import environment
    from unpaired.evaluation import METRICS
    from unpaired.methods import METHODS
    from unpaired.ops import backend_report

    console = Console()
    facts = environment()
    console.print(_table("Versions", [("python", facts["python"]), *facts["versions"].items()]))
    devices = [("cpu", f"{facts['cpus']} cores, {facts['threads']} threads used by torch; {facts['platform']}")]
    devices += [
        (f"cuda:{i}", torch.cuda.get_device_name(i)) for i in range(torch.cuda.device_count())
    ] or [("cuda", "none usable")]  # fmt: skip
    console.print(_table("Devices", devices))
    rows = [(name, "; ".join(["available"] * available + reasons)) for name, available, reasons in backend_report()]
    console.print(_table("Query-selection backends", rows))
    console.print(_table("Methods", [(name, f"{m.title}. {m.citation}") for name, m in METHODS.items()]))
    rows = [(name, f"{metric.label}, {metric.better} is better") for name, metric in METRICS.items()]
    console.print(_table("Metrics", rows))
    return 0


def _table(title: str, rows: Sequence[tuple[str, object]]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    for row in rows:
        table.add_row(*map(str, row))
    return table
