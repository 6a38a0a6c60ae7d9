"""Checkpoints survive what disks and people do to them."""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from limited import limited
from unpaired.engine.checkpoint import CheckpointFolder, export_weights, load_weights, read_checkpoint
from unpaired.errors import CheckpointError, TrainingError


class Box:
    def __init__(self, value: float = 0.0) -> None:
        self.value = torch.full((1000,), value)

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state["value"]


def saved(folder: Path, *counts: int, keep: int = 3) -> CheckpointFolder:
    checkpoints = CheckpointFolder(folder, "cut", keep)
    for count in counts:
        checkpoints.save({"box": Box(count)}, count)
    return checkpoints


def test_the_newest_is_restored_and_old_ones_are_removed(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1, 20, 300, 4000)
    assert [p.name for p in checkpoints.files()] == [f"checkpoint_{n:09d}.pt" for n in (20, 300, 4000)]
    box = Box()
    assert checkpoints.restore({"box": box}, print) == 4000
    assert box.value[0] == 4000
    assert sorted(p.name for p in tmp_path.iterdir()) == [p.name for p in checkpoints.files()]


@pytest.mark.parametrize("damaged", [False, True])
def test_restoring_removes_what_a_session_killed_after_saving_left(tmp_path: Path, damaged: bool) -> None:
    checkpoints = saved(tmp_path, 1, 2, 3, 4, 5, keep=5)
    if damaged:
        checkpoints.files()[-1].write_bytes(b"")
    assert CheckpointFolder(tmp_path, "cut", 2).restore({"box": Box()}, lambda words: None) == 5 - damaged
    assert [int(p.stem[-9:]) for p in checkpoints.files()] == ([3, 4, 5] if damaged else [4, 5])


def test_a_new_checkpoint_outlives_later_damaged_ones(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 4, 6)
    checkpoints.files()[-1].write_bytes(b"")
    checkpoints.keep = 1
    checkpoints.save({"box": Box(5)}, 5)
    assert [p.name for p in checkpoints.files()] == ["checkpoint_000000005.pt"]


def test_an_empty_folder_restores_nothing(tmp_path: Path) -> None:
    assert CheckpointFolder(tmp_path / "none", "cut").restore({"box": Box()}, print) == 0


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "text"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_taken(tmp_path: Path, damage: str) -> None:
    checkpoints = saved(tmp_path, 1, 2)
    path = checkpoints.files()[-1]
    raw = bytearray(path.read_bytes())
    if damage == "flipped":
        raw[len(raw) // 2] ^= 1
    path.write_bytes({"truncated": raw[:-100], "flipped": raw, "empty": b"", "text": b"hello" * 100}[damage])
    said: list[str] = []
    box = Box()
    assert checkpoints.restore({"box": box}, said.append) == 1
    assert box.value[0] == 1
    assert "checkpoint_000000002.pt is damaged" in said[0]
    path.with_name("checkpoint_000000001.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"every checkpoint in .* is damaged"):
        checkpoints.restore({"box": box}, said.append)


def test_a_checkpoint_of_another_method_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    with pytest.raises(CheckpointError, match="of the method 'cut', not of 'qs_attn'"):
        CheckpointFolder(tmp_path, "qs_attn").restore({"box": Box()}, print)


def test_a_checkpoint_of_other_shapes_is_refused(tmp_path: Path) -> None:
    CheckpointFolder(tmp_path, "cut").save({"net": torch.nn.Linear(2, 3)}, 1)
    with pytest.raises(CheckpointError, match=r"does not fit this run: 'net'.*size mismatch"):
        CheckpointFolder(tmp_path, "cut").restore({"net": torch.nn.Linear(2, 4)}, print)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("step", torch.tensor(-1e23), "negative"), ("step", torch.tensor(-1.0), "negative"),
        ("step", torch.tensor(float("inf")), "not finite"), ("step", torch.ones(1), "is (1,)"),
        ("exp_avg_sq", torch.full((3,), -1e-9), "negative"), ("exp_avg_sq", torch.zeros(4), "is (4,)"),
        ("exp_avg", torch.full((3,), float("nan")), "not finite"), ("momentum", torch.zeros(3), "state holds"),
    ],
)  # fmt: skip
def test_what_adam_cannot_have_counted_is_refused(tmp_path: Path, name: str, value: torch.Tensor, reason: str) -> None:
    weight = torch.nn.Parameter(torch.zeros(3))
    adam = torch.optim.Adam([weight])
    weight.grad = torch.tensor([-1.0, 0.0, 1.0])
    adam.step()
    CheckpointFolder(tmp_path, "cut").save({"optimizer": adam}, 1)
    assert CheckpointFolder(tmp_path, "cut").restore({"optimizer": adam}, print) == 1
    adam.state[weight][name] = value
    CheckpointFolder(tmp_path, "cut").save({"optimizer": adam}, 2)
    with pytest.raises(CheckpointError, match=rf"'optimizer' cannot be loaded \(.*{re.escape(reason)}"):
        CheckpointFolder(tmp_path, "cut").restore({"optimizer": torch.optim.Adam([weight])}, print)


@pytest.mark.parametrize("numbers", [[1, 0], [0, 0], [0], [0, 1, 2], [0.0, "1"], []])
def test_what_adam_has_counted_stays_with_its_parameters(tmp_path: Path, numbers: list[Any]) -> None:
    weights = [torch.nn.Parameter(torch.zeros(size)) for size in (3, 4)]
    adam = torch.optim.Adam(weights)
    sum(weight.sum() for weight in weights).backward()  # type: ignore[union-attr]
    adam.step()
    state = adam.state_dict()
    state["param_groups"][0]["params"] = numbers
    box = Box()
    box.state_dict = lambda: state  # type: ignore[method-assign]
    CheckpointFolder(tmp_path, "cut").save({"optimizer": box}, 1)
    before = {number: {**counted} for number, counted in adam.state_dict()["state"].items()}
    with pytest.raises(CheckpointError, match="its parameters are not numbered as those of this run"):
        CheckpointFolder(tmp_path, "cut").restore({"optimizer": adam}, print)
    assert str(adam.state_dict()["state"]) == str(before)


def test_a_full_disk_keeps_the_previous_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = saved(tmp_path, 1)
    real_open = Path.open

    class Full:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, data: Any) -> None:
            self.file.write(bytes(data[:100]))
            raise OSError(errno.ENOSPC, "No space left on device")

    def full(self: Path, mode: str = "r", *rest: Any, **named: Any) -> Any:
        return Full(real_open(self, mode, *rest, **named)) if "w" in mode else real_open(self, mode, *rest, **named)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(TrainingError, match=r"No space left on device; the last good checkpoint is .*000000001\.pt"):
        checkpoints.save({"box": Box(2)}, 2)
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint_000000001.pt"]
    assert read_checkpoint(checkpoints.files()[0])["images_seen"] == 1


def test_a_pickle_that_runs_code_is_not_run(tmp_path: Path) -> None:
    import hashlib
    import io

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    buffer = io.BytesIO()
    torch.save(Evil(), buffer)
    body = buffer.getvalue()
    path = tmp_path / "checkpoint_000000001.pt"
    path.write_bytes(body + b"unpaired-sha256:" + hashlib.sha256(body).digest())
    with pytest.raises(CheckpointError, match="cannot be decoded"):
        read_checkpoint(path)
    assert not (tmp_path / "ran").exists()


_READING = """
import torch
from pathlib import Path
from unpaired.engine.checkpoint import CheckpointFolder

def work(item):
    weight = torch.nn.Parameter(torch.zeros(3))
    return CheckpointFolder(Path(item), "cut").restore({"optimizer": torch.optim.Adam([weight])}, str)

torch.optim.Adam([torch.nn.Parameter(torch.zeros(3))])
"""


def test_a_checkpoint_takes_no_more_memory_than_it_holds(tmp_path: Path) -> None:
    """Whoever writes a file can write its checksum, too."""

    class Asks:
        def __reduce__(self) -> tuple[Any, ...]:
            return bytearray, (300_000_000,)

    def made(name: str, value: Any) -> str:
        state = {"step": torch.tensor(1.0), "exp_avg": value, "exp_avg_sq": torch.zeros(3)}
        box = Box()
        box.state_dict = lambda: {  # type: ignore[method-assign]
            "state": {0: state}, "param_groups": torch.optim.Adam([torch.zeros(3)]).state_dict()["param_groups"]
        }  # fmt: skip
        CheckpointFolder(tmp_path / name, "cut").save({"optimizer": box}, 1)
        return str(tmp_path / name)

    wide = torch.zeros(1, dtype=torch.float64).expand(50_000_000)
    found = limited(_READING, [made("asks", Asks()), made("wide", wide), made("right", torch.zeros(3))])
    for (said, grown), words in zip(found, ("CheckpointError: ", "CheckpointError: ", "1"), strict=True):
        assert said.startswith(words), said
        assert grown < 60


def test_weights_round_trip_and_damage_is_named(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 2).t(), "b": torch.zeros(0)}
    export_weights(tmp_path, {"format": 1}, {"ema": tensors})
    loaded = load_weights(tmp_path / "ema.safetensors")
    assert all(torch.equal(loaded[key], value) for key, value in tensors.items())
    (tmp_path / "ema.safetensors").write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="are damaged"):
        load_weights(tmp_path / "ema.safetensors")
    with pytest.raises(CheckpointError, match="cannot read the weights"):
        load_weights(tmp_path / "none.safetensors")
