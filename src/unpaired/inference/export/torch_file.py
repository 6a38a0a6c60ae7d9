"""A generator as a program of ``torch.export``, which torch loads without this package."""

from __future__ import annotations

import io
import json
from pathlib import Path

import torch
from torch import Tensor

from unpaired.inference.export.exported import Exported, ExportedGenerator, check_and_write, on_any_sides

FACTS_FILE = "unpaired_facts.json"
"""Name of the extra file, inside a program, that holds what it says of itself."""


def write_program(generator: ExportedGenerator, path: Path, facts: dict[str, str]) -> Exported:
    """Write one ``.pt2`` file, free in batch and sides (multiples of 4), and compare it with PyTorch first.

    ``torch.export.load(path, extra_files=...).module()`` runs it.

    Args:
        generator: What to write.
        path: The file.
        facts: What the file says of itself, see :func:`unpaired.inference.export.exported.describe`.

    Raises:
        CheckpointError: It differs from PyTorch, or cannot be written; what was there stays.
    """
    buffer = io.BytesIO()
    torch.export.save(generator.record(), buffer, extra_files={FACTS_FILE: json.dumps(facts)})
    buffer.seek(0)
    program = torch.export.load(buffer).module()

    def run(*inputs: Tensor) -> Tensor:
        with torch.no_grad():
            return on_any_sides(program, *inputs)

    return Exported(path, check_and_write(generator, run, path, buffer.getbuffer()))
