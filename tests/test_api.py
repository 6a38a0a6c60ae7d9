"""The public names, and the page that shows them: its examples run in order, and it names every name."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import unpaired
from doc_pages import DOCS, run_examples

PAGE = DOCS / "api.md"


def test_the_examples_of_the_page_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _, (train, translate, significance, score, operation, bundle, errors) = run_examples(PAGE)
    assert train == "6 True"
    assert translate == "True"
    assert (tmp_path / "translated.png").is_file()
    assert significance == "torch.Size([16, 16]) torch.Size([16])"
    assert [line.split()[0] for line in score.splitlines()] == ["input", "real", "ema", "last"]
    assert all(name in score.splitlines()[2] for name in ("swd_progan_x1e3", "paired_l1_pm1"))
    assert operation.splitlines()[0] == "torch.Size([2, 128]) torch.Size([2, 128, 64]) torch.Size([2, 128, 64])"
    assert "README.md" in bundle
    assert "runs/nothing-here/weights is not a trained run" in errors


def test_the_page_lists_exactly_the_public_names() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(rows) == set(unpaired.__all__) - {"__version__"}
    assert len(rows) == len(set(rows))
    assert all(getattr(unpaired, name).__doc__ for name in rows)


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, unpaired; assert not {'torch', 'huggingface_hub', 'PIL'} & set(sys.modules), sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Translater'"):
        _ = unpaired.Translater
