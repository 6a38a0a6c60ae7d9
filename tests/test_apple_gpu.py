"""Every command takes its device from one function: a machine with an Apple GPU alone, which none of ours is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from tiny import TINY_MODEL, write_images
from unpaired import cli

TINY = [word for name, value in TINY_MODEL.items() for word in (f"--{name.replace('_', '-')}", str(value))]
TINY += ["--image-size", "32", "--num-workers", "0", "--images", "2", "--score-images", "2"]


class _Apple(TorchFunctionMode):
    """What is asked of mps is done by the CPU, and counted; float64, which mps has not, is refused."""

    asked = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found: list[torch.device] = []
        if func is torch.device:
            return func(*args, **(kwargs or {}))

        def swapped(value: Any) -> Any:
            if isinstance(value, torch.device) and value.type == "mps":
                found.append(value)
                return torch.device("cpu")
            return value

        args, kwargs = tree_map(swapped, (args, kwargs or {}))
        made = func(*args, **kwargs)
        _Apple.asked += bool(found)
        if found and isinstance(made, torch.Tensor):
            assert made.dtype != torch.float64, func
        return made


@pytest.fixture
def apple(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from lightning_fabric.accelerators import MPSAccelerator

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(MPSAccelerator, "is_available", lambda: True)
    _Apple.asked = 0
    with _Apple():
        yield


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for place, name in enumerate(("trainA", "trainB", "testA", "testB")):
        write_images(tmp_path / "data" / name, 2, seed=place)
    return tmp_path / "data"


def test_train_translate_evaluate_studio_and_serve_take_it(
    apple: None, data: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, out = str(tmp_path / "run"), tmp_path / "out"

    def runs(*words: str) -> None:
        before = _Apple.asked
        assert cli.main([str(word) for word in words]) == 0
        assert _Apple.asked > before, words

    runs("train", str(data), "--out", run, *TINY)
    assert "QS-Attn on mps" in capsys.readouterr().err
    runs("translate", run, str(data / "testA"), "--out", str(out))
    runs("evaluate", run, str(data))
    assert (out / "image0.png").exists()

    pytest.importorskip("gradio", reason='needs pip install "unpaired[studio]"')
    from unpaired.studio.runs import open_runs

    (opened,) = open_runs([run])
    assert opened.translator is not None
    assert opened.translator.device.type == "mps"

    testing = pytest.importorskip("fastapi.testclient", reason='needs pip install "unpaired[serve]"')
    served: list[str] = []

    def ask(app: Any, bound: Any) -> None:
        served.append(testing.TestClient(app, base_url="http://127.0.0.1").get("/health").json()["device"])

    monkeypatch.setattr("unpaired.cli.serve.run_server", ask)
    runs("serve", run, "--port", "0")
    assert served == ["mps"]
