"""Translator: what goes in comes out in kind, size and value; and what does not fit is refused by name."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from methods.steps import batch, losses, make
from tiny import forget_digests, tiny_run, write_images
from unpaired.data import image_to_tensor, read_image, tensor_to_image
from unpaired.engine.devices import choose_device
from unpaired.errors import BackendError, CheckpointError, ConfigError, DataError, UserError, ValueRangeWarning
from unpaired.inference import Translator
from unpaired.methods import METHODS, TranslateRequest
from unpaired.training import train

STEP = 1 / 127.5  # one of 256 levels on the [-1, 1] scale


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Trained tiny runs: colour, gray, CUT, and one that ranks by max-mean."""
    root = tmp_path_factory.mktemp("runs")
    for split, seed in (("trainA", 1), ("trainB", 2)):
        write_images(root / "data" / split, 3, seed=seed)
    changes: dict[str, dict[str, Any]] = {
        "colour": {}, "gray": {"channels": 1}, "cut": {"method": "cut"}, "max_mean": {"significance": "max_mean"},
    }  # fmt: skip
    for name, change in changes.items():
        config = tiny_run(root / "data", **{"images": 2, "checkpoint_every": 2, "sample_every": 100, **change})
        train(config, root / name, quiet=True)
    return {name: root / name for name in changes}


@pytest.fixture(scope="module")
def colour(runs: dict[str, Path]) -> Translator:
    return Translator.from_pretrained(runs["colour"], device="cpu")


@pytest.fixture(scope="module")
def gray(runs: dict[str, Path]) -> Translator:
    return Translator.from_pretrained(runs["gray"], device="cpu")


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


# ---------------------------------------------------------------------------------------------------------------------
# kinds, sizes, values
# ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [(32, 32), (37, 50), (5, 7), (1, 1), (16, 3)])
def test_every_kind_gives_the_same_picture(colour: Translator, size: tuple[int, int]) -> None:
    array = pixels(*size, 3)
    picture = Image.fromarray(array)
    tensor = image_to_tensor(picture)
    expected = colour.translate(tensor)
    assert expected.shape == tensor.shape
    assert expected.dtype == torch.float32
    assert expected.abs().max() <= 1
    assert torch.equal(colour.translate(tensor[None])[0], expected)

    from_array = colour.translate(array)
    assert (from_array.shape, from_array.dtype) == (array.shape, np.uint8)
    assert np.array_equal(from_array, np.asarray(tensor_to_image(expected)))
    assert np.array_equal(colour.translate(array[None])[0], from_array)

    from_picture = colour.translate(picture)
    assert (from_picture.mode, from_picture.size) == ("RGB", picture.size)
    assert np.array_equal(np.asarray(from_picture), from_array)


def test_gray_kinds(gray: Translator) -> None:
    array = pixels(20, 33)
    flat = gray.translate(array)
    assert (flat.shape, flat.dtype) == ((20, 33), np.uint8)
    assert np.array_equal(gray.translate(array[:, :, None])[:, :, 0], flat)
    assert np.array_equal(gray.translate(array[None, :, :, None])[0, :, :, 0], flat)
    picture = gray.translate(Image.fromarray(array))
    assert picture.mode == "L"
    assert np.array_equal(np.asarray(picture), flat)
    tensor = gray.translate(image_to_tensor(Image.fromarray(array)))
    assert tensor.shape == (1, 20, 33)
    assert np.abs(tensor[0].numpy() - (flat / 127.5 - 1)).max() <= STEP / 2 + 1e-6


def test_lists_with_sizes_and_kinds_mixed(colour: Translator) -> None:
    images = [Image.fromarray(pixels(20, 24, 3)), pixels(9, 40, 3), torch.rand(3, 33, 18) * 2 - 1]
    made = colour.translate(images)
    assert [type(x) for x in made] == [Image.Image, np.ndarray, torch.Tensor]
    assert (made[0].size, made[1].shape, made[2].shape) == ((24, 20), (9, 40, 3), (3, 33, 18))
    assert made[0].tobytes() == colour.translate(images[0]).tobytes()
    assert colour.translate([]) == []


def test_files_addresses_and_integer_tensors_are_the_same_picture(
    colour: Translator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = pixels(20, 26, 3)
    Image.fromarray(array).save(tmp_path / "photo.png")
    monkeypatch.setattr("urllib.request.urlopen", lambda address, timeout: (tmp_path / "photo.png").open("rb"))
    expected = colour.translate(array)
    places = [tmp_path / "photo.png", str(tmp_path / "photo.png"), "https://example.org/photo.png?size=3"]
    for made in colour(places):
        assert isinstance(made, Image.Image)
        assert np.array_equal(np.asarray(made), expected)
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    for given, wanted in ((tensor, expected), (tensor[None], expected[None])):
        made = colour(given)
        assert (made.dtype, made.shape) == (torch.uint8, given.shape)
        assert np.array_equal(made.movedim(-3, -1).numpy(), wanted)


def test_the_range_of_other_libraries_is_noticed(colour: Translator) -> None:
    x = torch.rand(3, 16, 16)
    with pytest.warns(ValueRangeWarning, match=r"scale \[0, 1\] to \[-1, 1\]"):
        colour(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for fine in (x * 2 - 1, torch.zeros(3, 16, 16), x - 0.5, pixels(16, 16, 3)):
            colour(fine)


def test_objects_say_what_they_are_in_one_line_and_move(colour: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    words = repr(colour)
    assert re.fullmatch(
        r"Translator\(QS-Attn.*, 3 channels of uint8 to 3 channels of uint8, on cpu, ema of .*\)", words
    )
    assert colour.to("cpu") is colour
    with pytest.raises(BackendError, match="'gpu'"):
        colour.to("gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto").type == "mps"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_at_loading(
    runs: dict[str, Path], tmp_path: Path, value: float
) -> None:
    folder = shutil.copytree(runs["colour"] / "weights", tmp_path / "weights")
    forget_digests(folder)
    tensors = load_file(folder / "ema.safetensors")
    key = sorted(tensors)[0]
    tensors[key].flatten()[0] = value
    save_file(tensors, folder / "ema.safetensors")
    with pytest.raises(CheckpointError, match=rf"ema.safetensors: the weights '{key}' are not finite"):
        Translator.from_pretrained(folder)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_the_dtype_of_a_tensor_is_kept(colour: Translator, dtype: torch.dtype) -> None:
    x = image_to_tensor(Image.fromarray(pixels(16, 20, 3)))
    made = colour.translate(x.to(dtype))
    assert made.dtype == dtype
    torch.testing.assert_close(made.float(), colour.translate(x), rtol=0, atol=0.05 if dtype != torch.float64 else 1e-6)


def test_a_batch_is_its_images(colour: Translator) -> None:
    x = torch.rand(3, 3, 22, 30) * 2 - 1
    torch.testing.assert_close(colour.translate(x), torch.stack([colour.translate(one) for one in x]))


def test_arrays_of_any_memory_layout_work_and_inputs_stay_as_they_are(colour: Translator) -> None:
    array = pixels(20, 24, 3)
    for view in (array[:, ::-1], array[::2, 1:], np.asfortranarray(array), np.asarray(Image.fromarray(array))):
        before = view.copy()
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # torch warns about arrays that must not be written to
            made = colour.translate(view)
        assert np.array_equal(made, colour.translate(np.ascontiguousarray(view)))
        assert np.array_equal(view, before)
    x = torch.rand(3, 20, 24) * 2 - 1
    kept = x.clone()
    made = colour.translate(x)
    assert torch.equal(x, kept)
    assert not made.requires_grad


def test_translation_is_without_state(colour: Translator) -> None:
    x = torch.rand(3, 32, 32) * 2 - 1
    first = colour.translate(x)
    colour.translate(torch.rand(2, 3, 40, 40) - 0.5)
    torch.manual_seed(5)
    assert torch.equal(colour.translate(x), first)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "1", "CMYK"])
@pytest.mark.parametrize("model", ["colour", "gray"])
def test_a_picture_of_any_mode_is_seen_as_its_file_would_be(
    mode: str, model: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    translator: Translator = request.getfixturevalue(model)
    picture = Image.fromarray(pixels(18, 22, 4), "RGBA").convert(mode)
    picture.save(tmp_path / "x.tiff" if mode == "CMYK" else tmp_path / "x.png")
    read = read_image(next(tmp_path.iterdir()), translator.channels, translator.background)
    made, expected = translator.translate(picture), translator.translate(read)
    assert made.mode == expected.mode
    assert made.tobytes() == expected.tobytes()


# ---------------------------------------------------------------------------------------------------------------------
# refusals
# ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.zeros(3, 8, 8, dtype=torch.int64), "holds int64; convert it to uint8 or uint16"),
        (torch.zeros(8, 8, dtype=torch.uint8), r"not Tensor|must be"),
        (torch.zeros(8, 8), r"not torch\.float32 \(8, 8\)"),
        (torch.zeros(1, 3, 1, 8, 8), r"\(1, 3, 1, 8, 8\)"),
        (torch.zeros(1, 8, 8), r"takes images with 3 channel\(s\), but the input has 1"),
        (torch.zeros(2, 4, 8, 8), r"has 4: \(2, 4, 8, 8\)"),
        (torch.zeros(0, 3, 8, 8), r"nothing to translate .*\(0, 3, 8, 8\)"),
        (torch.zeros(3, 0, 8), "nothing to translate"),
        (torch.full((3, 8, 8), 255.0), r"must lie in \[-1, 1\], but this one holds 255"),
        (torch.full((3, 8, 8), float("nan")), "holds nan"),
        (np.zeros((8, 8, 3)), r"array of float64 \(8, 8, 3\): holds float64"),
        (np.zeros((8,), np.uint8), r"not \(8,\)"),
        (np.zeros((8, 8, 4), np.uint8), "has 4 channels"),
        (np.zeros((0, 8, 3), np.uint8), "nothing to translate"),
        (Image.new("F", (8, 8)), "mode F: holds float32"),
        ("photo.png", "photo.png: there is no such file"),
        ([Path("photo.png")], "photo.png: there is no such file"),
        ("http://127.0.0.1:9/photo.png", "photo.png cannot be fetched"),
        ("https://[", "cannot be fetched"),
        (None, "not NoneType"),
    ],
)
def test_what_does_not_fit_is_refused(colour: Translator, images: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        colour.translate(images)


def test_a_gray_model_refuses_colour(gray: Translator) -> None:
    for images in (torch.zeros(3, 8, 8), np.zeros((8, 8, 3), np.uint8)):
        with pytest.raises(
            DataError,
            match=r"takes images with 1 channel\(s\), but the input has 3|has 3 channels, but .* have 1 channel",
        ):
            gray.translate(images)


# ---------------------------------------------------------------------------------------------------------------------
# significance
# ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["colour", "gray", "cut", "max_mean"])
@pytest.mark.parametrize(("tap", "scale"), [("padded_input", 1), ("down2", 2), ("block1", 4), ("block5", 4)])
def test_significance_of_every_method(runs: dict[str, Path], name: str, tap: str, scale: int) -> None:
    translator = Translator.from_pretrained(runs[name], device="cpu")
    seen = translator.significance(torch.rand(translator.channels, 24, 32) * 2 - 1, tap)
    height, width = seen.entropy.shape
    border = height - 24 if tap == "padded_input" else 0
    assert (height, width) == (24 // scale + border, 32 // scale + border)
    assert (seen.entropy.dtype, seen.indices.dtype) == (torch.float32, torch.int64)
    assert 0 <= seen.entropy.min() <= seen.entropy.max() <= np.log(height * width) + 1e-4
    assert len(seen.indices) == len(seen.indices.unique()) == 16
    assert 0 <= seen.indices.min() <= seen.indices.max() < height * width


def test_the_selected_locations_are_the_most_significant(colour: Translator) -> None:
    seen = colour.significance(torch.rand(3, 32, 32) * 2 - 1, "block5", num_queries=5)
    entropy = seen.entropy.flatten()
    assert len(seen.indices) == 5
    assert entropy[seen.indices].max() <= entropy.sort().values[5]
    assert (entropy[seen.indices].diff() >= -1e-5).all()


@pytest.mark.parametrize(
    ("image", "tap", "queries", "error", "words"),
    [
        (torch.zeros(3, 32, 32), "block55", None, ConfigError, "no tap 'block55'"),
        (torch.zeros(3, 32, 32), "block5", 0, UserError, "num_queries"),
        (torch.zeros(1, 32, 32), "block5", None, DataError, "3 channel"),
        (torch.zeros(1, 3, 32, 32), "block5", None, DataError, r"one image \(C, H, W\)"),
    ],
)
def test_significance_refuses(
    colour: Translator, image: torch.Tensor, tap: str, queries: int | None, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        colour.significance(image, tap, queries)


# ---------------------------------------------------------------------------------------------------------------------
# loading
# ---------------------------------------------------------------------------------------------------------------------
def test_run_folder_weights_folder_and_both_weights(runs: dict[str, Path]) -> None:
    x = torch.rand(3, 32, 32) * 2 - 1
    averaged = Translator.from_pretrained(runs["colour"])
    assert torch.equal(averaged.translate(x), Translator.from_pretrained(runs["colour"] / "weights").translate(x))
    assert torch.equal(averaged.translate(x), Translator.from_pretrained(str(runs["colour"])).translate(x))
    last = Translator.from_pretrained(runs["colour"], weights="last")
    assert not torch.equal(averaged.translate(x), last.translate(x))
    assert (averaged.channels, averaged.image_size, averaged.background) == (3, 32, (255, 255, 255))
    assert averaged.description["images_seen"] == 2
    assert not any(p.requires_grad for p in averaged.method.parameters())


def test_the_weights_alone_are_enough(runs: dict[str, Path], tmp_path: Path) -> None:
    for name in ("model.json", "ema.safetensors"):
        shutil.copy(runs["colour"] / "weights" / name, tmp_path / name)
    x = torch.rand(3, 32, 32) * 2 - 1
    one, other = Translator.from_pretrained(tmp_path), Translator.from_pretrained(runs["colour"])
    assert torch.equal(one.translate(x), other.translate(x))
    with pytest.raises(CheckpointError, match=r"cannot read the weights .*last\.safetensors: No such file"):
        Translator.from_pretrained(tmp_path, weights="last")


def lacking(tensors: dict[str, torch.Tensor], key: str) -> None:
    del tensors[key]


def extra(tensors: dict[str, torch.Tensor], key: str) -> None:
    tensors["generator.nose.weight"] = torch.zeros(2)


def reshaped(tensors: dict[str, torch.Tensor], key: str) -> None:
    tensors[key] = torch.zeros(2, 5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lacking, "it lacks '{key}'"),
        (extra, "it has the unknown tensor 'generator.nose.weight'"),
        (reshaped, "'{key}' is (2, 5), expected {shape}"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(
    runs: dict[str, Path], tmp_path: Path, change: Callable[[dict[str, torch.Tensor], str], None], words: str
) -> None:
    folder = shutil.copytree(runs["colour"] / "weights", tmp_path / "weights")
    forget_digests(folder)
    path = folder / "ema.safetensors"
    tensors = load_file(path)
    key = sorted(tensors)[3]
    expected = words.format(key=key, shape=tuple(tensors[key].shape))
    change(tensors, key)
    save_file(tensors, path)
    with pytest.raises(CheckpointError) as caught:
        Translator.from_pretrained(folder)
    assert str(caught.value) == f"{path} does not fit model.json: {expected}"


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"format": 2}, CheckpointError, "has format 2, but this version of unpaired reads 1; install a newer one"),
        ({"method": "qs_atn"}, CheckpointError, r"unknown method 'qs_atn' \(did you mean 'qs_attn'\?\)"),
        ({"method": None}, CheckpointError, "method must be text, not null"),
        ({"channels": "three"}, CheckpointError, "channels must be a whole number"),
        ({"image_size": None}, CheckpointError, "image_size must be a whole number or a list"),
        ({"background": None}, CheckpointError, "background must be a list"),
        ({"model": {"blokcs": 9}}, CheckpointError, r"unknown setting 'blokcs' \(did you mean 'blocks'\?\)"),
    ],
)
def test_a_description_that_cannot_be_used(
    runs: dict[str, Path], tmp_path: Path, change: dict[str, Any], error: type[Exception], words: str
) -> None:
    folder = shutil.copytree(runs["colour"] / "weights", tmp_path / "weights")
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(error, match=words) as caught:
        Translator.from_pretrained(folder)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "3", b"\xff\xfe".decode("latin1")])
def test_a_damaged_description(runs: dict[str, Path], tmp_path: Path, content: str) -> None:
    folder = shutil.copytree(runs["colour"] / "weights", tmp_path / "weights")
    (folder / "model.json").write_text(content, encoding="latin1")
    with pytest.raises(CheckpointError, match=r"model\.json"):
        Translator.from_pretrained(folder)


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:-5], lambda raw: b"", lambda raw: b"\xff" * 64, lambda raw: raw[9:]]
)
def test_damaged_weights(runs: dict[str, Path], tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    folder = shutil.copytree(runs["colour"] / "weights", tmp_path / "weights")
    forget_digests(folder)
    path = folder / "ema.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError, match=r"the weights .*ema\.safetensors are damaged"):
        Translator.from_pretrained(folder)


def test_what_is_no_run_at_all(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a trained run: no such folder; give the --out folder"):
        Translator.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"not a trained run: it has no weights/model\.json"):
        Translator.from_pretrained(tmp_path)


class _NoFloat64(TorchDispatchMode):
    """Nothing that is computed from narrower floats may be float64, of which mps has none."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        given, found = ({x.dtype for x in tree_leaves(tree) if isinstance(x, torch.Tensor) and x.ndim}
                        for tree in (args, made))  # fmt: skip
        assert torch.float64 not in found or not given & {torch.float32, torch.bfloat16}, func
        return made


@pytest.mark.parametrize("name", METHODS)
def test_networks_and_losses_use_no_float64(name: str) -> None:
    method = make(name)
    with _NoFloat64():
        losses(method, batch())
        for reverse in {False, "reverse" in method.supports}:
            method.translate(batch().source, TranslateRequest(reverse=reverse))


def test_translating_uses_no_float64(colour: Translator) -> None:
    image = tensor_to_image(torch.rand(3, 24, 20))
    with _NoFloat64():
        made = colour.translate(image)
        colour.significance(image_to_tensor(image), "block1")
    assert np.array_equal(made, colour.translate(image))


@pytest.mark.parametrize("name", ["cpux", "meta", "xla", "cpu:x", ""])
def test_unusable_devices(name: str) -> None:
    with pytest.raises(BackendError, match=f"'{name}'.*use auto, cpu, cuda, cuda:N or mps"):
        choose_device(name)


def test_cuda_devices_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto").type == "cuda"
    assert choose_device("cuda:1").index == 1
    with pytest.raises(BackendError, match="'cuda:2' was asked for, but the last GPU here is cuda:1"):
        choose_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"
    with pytest.raises(BackendError, match="'cuda' was asked for, but this machine has no usable CUDA device; use cpu"):
        choose_device("cuda")
