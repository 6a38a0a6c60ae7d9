"""Reading images: every mode becomes 8-bit RGB or gray, and every bad file one readable message."""

from __future__ import annotations

import builtins
import contextlib
import struct
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from unpaired.data import MAX_IMAGE_PIXELS, image_to_tensor, list_images, read_image, tensor_to_image
from unpaired.errors import DataError

RANDOM = np.random.default_rng(0)


def save(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def colours(path: Path, **options: Any) -> np.ndarray:
    image = read_image(path, **options)
    assert image.mode == ("L" if options.get("channels") == 1 else "RGB")
    return np.asarray(image)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff", ".webp", ".jpg", ".jpeg"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_format(tmp_path: Path, suffix: str, channels: int) -> None:
    pixels = np.full((5, 7, 3), (200, 100, 50), np.uint8)
    path = save(tmp_path / f"a{suffix}", Image.fromarray(pixels))
    read = colours(path, channels=channels)
    assert read.shape == ((5, 7, 3) if channels == 3 else (5, 7))
    expected = (200, 100, 50) if channels == 3 else round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)
    assert np.abs(read.astype(int) - expected).max() <= (4 if suffix in (".jpg", ".jpeg", ".webp") else 1)


def test_content_counts_not_the_suffix(tmp_path: Path) -> None:
    save(tmp_path / "a.jpg", Image.new("RGB", (3, 2), (1, 2, 3)), format="PNG")
    assert colours(tmp_path / "a.jpg")[0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    # What a viewer shows must be the same picture for each way that a camera stored it.
    upright = RANDOM.integers(0, 256, (4, 6, 3), dtype=np.uint8)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    assert np.array_equal(colours(path), upright)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_stop_reading(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", Image.new("RGB", (8, 8)), exif=b"Exif\0\0II*\0\xff\xff\xff\xff junk")
    assert colours(path).shape == (8, 8, 3)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "PA"])
@pytest.mark.parametrize("background", [(255, 255, 255), (10, 20, 30)])
def test_transparency_is_composited(tmp_path: Path, mode: str, background: tuple[int, int, int]) -> None:
    image = Image.new("RGBA", (2, 1), (40, 40, 40, 255))
    image.putpixel((1, 0), (40, 40, 40, 0))
    if mode == "P":
        palette = Image.new("P", (2, 1))
        palette.putpalette([40, 40, 40, 99, 99, 99])
        palette.putdata([0, 1])
        path = save(tmp_path / "a.png", palette, transparency=1)
    elif mode == "PA":
        path = save(tmp_path / "a.png", image.quantize(4))  # a palette with an alpha per entry
    else:
        path = save(tmp_path / "a.png", image.convert(mode))
    assert colours(path, background=background).tolist() == [[[40, 40, 40], list(background)]]
    gray = Image.new("RGB", (1, 1), background).convert("L").getpixel((0, 0))
    assert colours(path, background=background, channels=1).tolist() == [[40, gray]]


def test_half_transparent(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.new("RGBA", (1, 1), (0, 0, 0, 128)))
    assert abs(int(colours(path)[0, 0, 0]) - 127) <= 1


@pytest.mark.parametrize(("mode", "key"), [("RGB", (9, 9, 9)), ("L", 9)])
def test_transparent_colour_key(tmp_path: Path, mode: str, key: Any) -> None:
    path = save(tmp_path / "a.png", Image.new(mode, (1, 1), key), transparency=key)
    assert colours(path, background=(1, 2, 3)).tolist() == [[[1, 2, 3]]]


def test_palette_gray_bilevel_and_cmyk(tmp_path: Path) -> None:
    red = Image.new("RGB", (4, 4), (255, 0, 0))
    assert colours(save(tmp_path / "p.png", red.quantize(4)))[0, 0].tolist() == [255, 0, 0]
    assert colours(save(tmp_path / "l.png", Image.new("L", (4, 4), 7)))[0, 0].tolist() == [7, 7, 7]
    assert colours(save(tmp_path / "1.png", Image.new("1", (4, 4), 1)))[0, 0].tolist() == [255, 255, 255]
    cmyk = colours(save(tmp_path / "c.jpg", red.convert("CMYK"), quality=100))[0, 0].astype(int)
    assert np.abs(cmyk - (255, 0, 0)).max() < 8
    cmyk = colours(save(tmp_path / "c.tif", red.convert("CMYK")), channels=1)
    assert abs(int(cmyk[0, 0]) - 76) <= 1


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_gray_is_scaled(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 128, 129, 257, 32767, 32896, 65534, 65535]], np.uint16)
    path = save(tmp_path / f"a{suffix}", Image.fromarray(values))
    expected = np.round(values[0] / 257).astype(int).tolist()
    assert colours(path, channels=1)[0].tolist() == expected
    assert colours(path)[0].tolist() == [[v, v, v] for v in expected]


def test_big_endian_and_32_bit_gray(tmp_path: Path) -> None:
    big = Image.frombytes("I;16B", (2, 1), struct.pack(">HH", 0, 65535))
    assert colours(save(tmp_path / "b.tif", big), channels=1).tolist() == [[0, 255]]
    wide = Image.fromarray(np.array([[0, 25700]], np.int32))
    assert colours(save(tmp_path / "i.tif", wide), channels=1).tolist() == [[0, 100]]
    for value in (-1, 65536):
        save(tmp_path / "i.tif", Image.fromarray(np.array([[0, value]], np.int32)))
        with pytest.raises(DataError, match=r"i\.tif: holds int32 from .* convert it"):
            read_image(tmp_path / "i.tif")


def test_floating_point_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "f.tif", Image.fromarray(np.zeros((2, 2), np.float32)))
    with pytest.raises(DataError, match=r"f\.tif: holds float32, but the images of this domain are uint8; convert it"):
        read_image(tmp_path / "f.tif")


def test_first_page_of_several(tmp_path: Path) -> None:
    pages = [Image.new("L", (2, 2), value) for value in (10, 20)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert colours(tmp_path / "a.tif", channels=1).tolist() == [[10, 10], [10, 10]]


def huge_png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_image(path)
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    return message


def test_decompression_bomb_is_refused_by_its_header(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    path = tmp_path / "bomb.png"
    for width, height in ((100_000, 100_000), (2**14, 2**14 + 1)):
        path.write_bytes(huge_png(width, height))
        message = refusal(path)
        assert f"{width:,} x {height:,} pixels are more than the limit of 268,435,456" in message
        assert "tiles" in message
    assert MAX_IMAGE_PIXELS == 2**28
    before = Image.MAX_IMAGE_PIXELS
    path.write_bytes(huge_png(2**14, 2**14))  # not too large, so it is decoded, and then found truncated
    assert "truncated" in refusal(path)
    assert before == Image.MAX_IMAGE_PIXELS
    assert not recwarn.list


def test_pil_limit_survives_threads(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.new("RGB", (4, 4)))
    before = Image.MAX_IMAGE_PIXELS
    threads = [threading.Thread(target=lambda: [read_image(path) for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert before == Image.MAX_IMAGE_PIXELS
    assert before is not None


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp"])
def test_truncated_file(tmp_path: Path, suffix: str) -> None:
    pixels = RANDOM.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = save(tmp_path / f"cut{suffix}", Image.fromarray(pixels))
    whole = path.read_bytes()
    for share in (0.02, 0.3, 0.6, 0.95):
        path.write_bytes(whole[: int(len(whole) * share)])
        assert "copy or download it again" in refusal(path) or "move it elsewhere" in refusal(path)


@pytest.mark.filterwarnings("ignore::UserWarning")  # PIL's own remarks about what this test breaks
def test_damaged_bytes_never_escape_as_another_error(tmp_path: Path) -> None:
    pixels = RANDOM.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    for suffix in (".png", ".jpg", ".webp", ".tif", ".bmp"):
        path = save(tmp_path / f"hurt{suffix}", Image.fromarray(pixels))
        whole = bytearray(path.read_bytes())
        for _ in range(60):
            hurt = whole.copy()
            for position in RANDOM.integers(0, min(len(hurt), 300), 4):
                hurt[position] = RANDOM.integers(256)
            path.write_bytes(hurt)
            with contextlib.suppress(DataError):  # some damage is invisible; any other error fails the test
                read_image(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty (0 bytes)"),
        (b"hello, I am no picture\n", "content is text, not an image (it begins with 'hello, I am no picture"),
        (b"<!DOCTYPE html><html>", "content is text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\x00\x01\x02\x03" * 100, "not an image of a known kind"),
    ],
)
def test_what_is_not_an_image(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    assert words in refusal(path)


def test_no_pixels(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(huge_png(0, 5))
    message = refusal(path)
    assert "no pixels (0 x 5)" in message or "damaged" in message


def test_missing_folder_and_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "there is no such file" in refusal(tmp_path / "no.png")
    assert "is a folder" in refusal(tmp_path)

    def denied(*arguments: Any, **options: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(builtins, "open", denied)  # root, who runs tests in containers, may read everything
    with pytest.raises(DataError, match=r"a\.png: permission denied; make the file readable"):
        read_image(tmp_path / "a.png")


def test_wrong_channels(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="channels must be 1 or 3, got 4"):
        read_image(tmp_path / "a.png", channels=4)


def test_round_trip_is_exact_for_every_value() -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    tensor = image_to_tensor(Image.fromarray(values))
    assert tensor.shape == (1, 16, 16)
    assert tensor.dtype == torch.float32
    assert (tensor.min(), tensor.max()) == (-1, 1)
    assert np.array_equal(np.asarray(tensor_to_image(tensor)), values)
    pixels = RANDOM.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    tensor = image_to_tensor(Image.fromarray(pixels))
    assert tensor.shape == (3, 5, 7)
    assert tensor.is_contiguous()
    assert tensor[1, 2, 3] == pytest.approx(pixels[2, 3, 1] / 127.5 - 1)
    assert np.array_equal(np.asarray(tensor_to_image(tensor)), pixels)


def test_tensor_to_image_rounds_and_clamps() -> None:
    tensor = torch.tensor([-9.0, -1.0, (99.4 / 127.5) - 1, (99.6 / 127.5) - 1, 1.0, 9.0, float("inf")]).reshape(1, 1, 7)
    assert np.asarray(tensor_to_image(tensor))[0].tolist() == [0, 0, 99, 100, 255, 255, 255]
    assert tensor_to_image(tensor.bfloat16()).size == (7, 1)
    assert tensor_to_image(tensor.requires_grad_()).mode == "L"


def test_tensor_conversion_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="NaN"):
        tensor_to_image(torch.full((1, 2, 2), float("nan")))
    for shape in ((2, 2), (2, 4, 4), (1, 3, 4, 4)):
        with pytest.raises(ValueError, match="expected a tensor"):
            tensor_to_image(torch.zeros(shape))
    with pytest.raises(ValueError, match="mode RGB or L, got RGBA"):
        image_to_tensor(Image.new("RGBA", (1, 1)))


def test_gray_files_of_horse2zebra_become_colour(shared_data: Callable[[str], Path]) -> None:
    gray = []
    for path in list_images(shared_data("horse2zebra") / "trainB"):
        with Image.open(path) as image:
            if image.mode == "L":
                gray.append(path)
    assert gray
    assert {read_image(path).mode for path in gray} == {"RGB"}


def test_emoji_of_several_modes_over_white(shared_data: Callable[[str], Path]) -> None:
    modes = set()
    for path in list_images(shared_data("emoji") / "testB"):
        with Image.open(path) as image:
            modes.add(image.mode)
            clear = np.asarray(image.convert("RGBA"))[..., 3] == 0
        assert (colours(path)[clear] == 255).all()
    assert len(modes) > 1
