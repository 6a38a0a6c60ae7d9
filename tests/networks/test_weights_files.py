"""Files of weights that ask for far more memory than they hold are refused before they get it; honest ones are read."""

from __future__ import annotations

import collections
import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from limited import limited
from published_networks import cyclegan
from unpaired.errors import BackendError, CheckpointError
from unpaired.importing import read_published
from unpaired.networks import ResnetGenerator
from unpaired.networks.pretrained import PRETRAINED
from unpaired.networks.weights import WeightsFile

FILE = WeightsFile("a small network", "Ask.")
MANY = 50_000_000
"""Values, of 200 MB as float32."""
STEM = "model.1.weight"


class _Call:
    """Pickled as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


class _Pickler(pickle.Pickler):
    """Pickles bytes of four as the storage of one value."""

    def persistent_id(self, thing: Any) -> Any:
        return ("storage", torch.FloatStorage, "0", "cpu", 1) if thing is _VALUE else None


_VALUE = object()


def crafted(path: Path, content: Any) -> None:
    """A file of torch whose pickle does what nobody's ``torch.save`` wrote."""
    pickled = io.BytesIO()
    _Pickler(pickled, 2).dump(content)
    torch.save({"a": torch.zeros(1)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, pickled.getvalue() if name.endswith("data.pkl") else data)


def packed(path: Path, method: int = zipfile.ZIP_DEFLATED) -> Path:
    """The same file compressed, as torch reads but never writes it."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def expanded(count: int = MANY) -> Tensor:
    return torch.zeros(1).expand(count // 10_000, 10_000)


def generator(width: int, make: Callable[[torch.Size], Tensor], blocks: int = 6) -> dict[str, Tensor]:
    """The state dict of a generator of CycleGAN of this width."""
    with torch.device("meta"):
        network = cyclegan(blocks=blocks, width=width)
    return {name: make(value.shape) for name, value in network.state_dict().items()}


def bombs(folder: Path) -> dict[str, Path]:
    old = {"_use_new_zipfile_serialization": False}
    saved: dict[str, tuple[Any, dict[str, Any]]] = {
        "expanded": ({STEM: expanded()}, {}),
        "expanded in an old file": ({STEM: expanded()}, old),
        "expanded parameter": ({STEM: torch.nn.Parameter(expanded())}, {}),
        "expanded in a checkpoint": ({"state_dict": {STEM: expanded()}}, {}),
        "overlapping": ({STEM: torch.zeros(60_000).as_strided((10_000, 50_000), (1, 1))}, {}),
        "sparse": ({STEM: torch.sparse_coo_tensor(torch.zeros(2, 1), torch.ones(1), (50_000, 50_000))}, {}),
        "meta": ({STEM: torch.zeros(MANY, device="meta")}, {}),
        "quantised": ({STEM: torch.quantize_per_tensor(torch.zeros(4), 0.1, 0, torch.quint8)}, {}),
        "nested": ({STEM: torch.nested.nested_tensor([torch.zeros(3), torch.zeros(2)])}, {}),
        "generator": (generator(1000, lambda shape: torch.zeros(1).expand(shape)), {}),
        "wide generator": (generator(10**7, lambda shape: torch.zeros(1).expand(shape)), {}),
        "generator of nothing": (generator(4, lambda shape: torch.zeros(())), {}),
        "flat generator": (generator(4, lambda shape: torch.zeros(2, 2)), {}),
        "empty generator": (generator(4, lambda shape: torch.zeros(0, *shape[1:])), {}),
    }
    paths = {name: folder / f"{name.replace(' ', '_')}.pth" for name in saved}
    for name, (content, options) in saved.items():
        torch.save(content, paths[name], **options)
    value = _Call(torch._utils._rebuild_tensor_v2, _VALUE, 0, (5000, 10_000), (0, 0), False, collections.OrderedDict())
    for name, made in {
        "bytearray": _Call(bytearray, 4 * MANY),
        "converted": _Call(torch._utils._rebuild_device_tensor_from_cpu_tensor, value, torch.float64, "cpu", False),
    }.items():
        crafted(paths.setdefault(name, folder / f"{name}.pth"), {STEM: made})
    torch.save({STEM: torch.zeros(MANY)}, folder / "packed.pth")
    paths["packed"] = packed(folder / "packed.pth")
    return paths


SMALL = """
import contextlib
import torch
from pathlib import Path
from unpaired.importing import import_published
from unpaired.networks.pretrained import PRETRAINED, load_pretrained
from unpaired.networks.weights import WeightsFile

torch.set_num_threads(1)
torch.zeros(4).expand(4, 4).isfinite().all()
with contextlib.suppress(Exception):
    import_published("nothing.pth", "cyclegan", "nowhere")

def work(item):
    kind, path = item
    if kind == "read":
        return len(WeightsFile("a small network", "Ask.").read(Path(path)))
    if kind == "load":
        return WeightsFile("a small network", "Ask.").load_into(torch.nn.Conv2d(1, 1, 1), Path(path))
    if kind == "import":
        return import_published(Path(path), "cyclegan", Path(path).with_suffix(""))
    return load_pretrained(kind, Path(path))
"""


def test_no_file_takes_far_more_memory_than_it_has(tmp_path: Path) -> None:
    paths = bombs(tmp_path)
    items = [[kind, str(path)] for path in paths.values() for kind in ("read", "load", "import")]
    for (kind, path), (said, grown) in zip(items, limited(SMALL, items), strict=True):
        assert grown < 30, (kind, path, said)
        assert said.isdecimal() if kind == "read" and "Error" not in said else path in said, (kind, path, said)
        assert kind == "read" or said.startswith(("BackendError: ", "CheckpointError: ")), (kind, path, said)
    for name, words in {
        "overlapping": "has values that overlap", "sparse": "is no plain tensor", "packed": "unpacks to far more",
        "bytearray": "it calls bytearray, which takes memory for the asking", "meta": "is no plain tensor",
    }.items():  # fmt: skip
        with pytest.raises(BackendError, match=words):
            FILE.read(paths[name])
    for name, words in {
        "expanded": "its tensors are far larger than the file", "generator": "its tensors are far larger than the file",
        "generator of nothing": r"'model\.1\.weight' is \(\) and the last one \(\), not 4D",
    }.items():  # fmt: skip
        with pytest.raises(CheckpointError, match=words):
            read_published(paths[name])


@pytest.mark.slow
def test_networks_of_scores_check_shapes_before_values(tmp_path: Path) -> None:
    paths = bombs(tmp_path)
    items = [[kind, str(paths[name])] for kind in PRETRAINED for name in ("expanded", "expanded", "bytearray")]
    found = limited(SMALL, items, mebibytes=900)
    for number, ((kind, path), (said, grown)) in enumerate(zip(items, found, strict=True)):
        assert said.startswith(f"BackendError: {path}: not the weights of "), (kind, said)
        assert number % 3 == 0 or grown < 60, (kind, grown)  # the first loads the network's package


@pytest.mark.parametrize(
    ("stem", "blocks", "words"),
    [
        ((4100, 3, 7, 7), 6, "base_channels must be at most 4096, not 4100"),
        ((0, 3, 7, 7), 6, "base_channels must be at least 1, not 0"),
        ((8, 17, 7, 7), 6, "channels must be at most 16, not 17"),
        ((8, 3, 7, 7), 65, "blocks must be at most 64, not 65"),
    ],
)
def test_a_generator_has_the_sizes_that_settings_may_have(
    stem: tuple[int, ...], blocks: int, words: str, tmp_path: Path
) -> None:
    names = generator(4, lambda shape: torch.zeros(1, 1, 1, 1), blocks)
    torch.save(names | {STEM: torch.zeros(stem)}, tmp_path / "net_G.pth")
    with pytest.raises(CheckpointError, match=rf"net_G\.pth: {words}"):
        read_published(tmp_path / "net_G.pth")


def honest() -> dict[str, Callable[[Path, dict[str, Tensor]], object]]:
    return {
        "as ever": lambda path, state: torch.save(state, path),
        "in the old format": lambda path, state: torch.save(state, path, _use_new_zipfile_serialization=False),
        "packed": lambda path, state: (torch.save(state, path), packed(path)),
        "of several devices": lambda path, state: torch.save({f"module.{key}": x for key, x in state.items()}, path),
        "in a checkpoint": lambda path, state: torch.save({"state_dict": state, "seen": {1, 2}, "lr": 0.1}, path),
        "with one bias of all": lambda path, state: torch.save(
            {key: torch.zeros(1).expand(x.shape) if key.endswith("bias") else x for key, x in state.items()}, path
        ),
        "with parts of one tensor": lambda path, state: torch.save(
            dict(zip(state, torch.cat([x.flatten() for x in state.values()]).split(
                [x.numel() for x in state.values()]), strict=True)) | {
                key: torch.cat([x.flatten(), x.flatten()])[: x.numel()].view(x.shape) for key, x in state.items()
            }, path
        ),
    }  # fmt: skip


@pytest.mark.parametrize("how", list(honest()))
def test_honest_files_are_read_however_they_were_written(how: str, tmp_path: Path) -> None:
    network = cyclegan(blocks=6, width=8)
    path = tmp_path / "net_G.pth"
    honest()[how](path, network.state_dict())
    found = read_published(path)
    assert (found.base_channels, found.blocks) == (8, 6)
    ours = ResnetGenerator(3, 3, base_channels=8, blocks=6, resampling="strided")
    expected = network.state_dict()
    values = dict(zip(dict(ours.named_parameters()), expected.values(), strict=True))
    for name, value in found.tensors.items():
        one = torch.zeros_like(value) if how == "with one bias of all" and name.endswith("bias") else values[name]
        assert torch.equal(value, one), name


def test_tied_and_expanded_weights_of_a_known_shape_are_loaded(tmp_path: Path) -> None:
    shared = torch.rand(64, 64)
    state = {"0.weight": shared, "1.weight": shared, "0.bias": torch.ones(1).expand(64), "1.bias": torch.zeros(64)}
    torch.save(state, tmp_path / "tied.pth")
    network = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Linear(64, 64))
    FILE.load_into(network, tmp_path / "tied.pth")
    assert torch.equal(network[1].weight, shared)
    assert torch.equal(network[0].bias, torch.ones(64))


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2, torch.int8]
)
def test_values_of_every_type_are_looked_at(dtype: torch.dtype, tmp_path: Path) -> None:
    torch.save({"x": torch.ones(3).to(dtype)}, tmp_path / "x.pth")
    assert FILE.read(tmp_path / "x.pth")["x"].dtype == dtype
    if dtype.is_floating_point:
        torch.save({"x": torch.full((3,), float("nan")).to(dtype)}, tmp_path / "x.pth")
        with pytest.raises(BackendError, match=r"'x' has values that are not finite"):
            FILE.read(tmp_path / "x.pth")


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex32, torch.complex128])
def test_imaginary_parts_are_not_dropped(dtype: torch.dtype, tmp_path: Path) -> None:
    torch.save({"x": torch.ones(3).to(dtype)}, tmp_path / "x.pth")
    with pytest.raises(BackendError, match=r"'x' has complex values"):
        FILE.read(tmp_path / "x.pth")


def test_safetensors_cannot_hold_a_tensor_larger_than_themselves(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(4, 4)}, tmp_path / "x.safetensors")
    content = (tmp_path / "x.safetensors").read_bytes()
    for shape, offsets in (("[4000,4000]", "[0,64]"), ("[4,4]", "[0,64000000]"), ("[4000,4000]", "[0,64000000]")):
        changed = content.replace(b"[4,4]", shape.encode()).replace(b"[0,64]", offsets.encode())
        size = changed.index(b"}}") + 2 - 8
        changed = size.to_bytes(8, "little") + changed[8 : 8 + size] + bytes(64)
        (tmp_path / "y.safetensors").write_bytes(changed)
        with pytest.raises(BackendError, match="cannot be read as plain tensors"):
            FILE.read(tmp_path / "y.safetensors")
