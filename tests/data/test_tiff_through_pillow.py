"""TIFF files whose pixels Pillow decodes keep what lies beside them: places, no data, masks, smaller copies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from unpaired.data.reading import describe, load
from unpaired.data.writing import encode

pytest.importorskip("imagecodecs", reason='needs pip install "unpaired[tiff]"')

SCALE = (33550, 12, 3, (0.5, 0.5, 0.0), True)
PLACE = (33922, 12, 6, (0.0, 0.0, 0.0, 4e5, 5e6, 0.0), True)


def declared(value: int) -> tuple[int, int, int, str, bool]:
    return 42113, 2, len(str(value)) + 1, str(value), True


def small(*shape: int, below: int) -> np.ndarray:
    return np.random.default_rng(2).integers(0, below, shape)


def orthophoto(file: tifffile.TiffWriter, **options: Any) -> np.ndarray:
    """JPEG in YCbCr, as GDAL writes it; no value is exact, so no-data is a mask."""
    smooth = np.linspace(40, 200, 32)[:, None, None] + np.zeros((32, 48, 3))
    file.write(smooth.astype(np.uint8), photometric="rgb", compression="jpeg", **options)
    return np.ones((32, 48), bool)


def palette(file: tifffile.TiffWriter, **options: Any) -> np.ndarray:
    indices = small(32, 48, below=9).astype(np.uint8)
    colours = np.random.default_rng(3).integers(0, 65536, (3, 256)).astype(np.uint16)
    file.write(indices, photometric="palette", colormap=colours, extratags=[*options.pop("extratags"), declared(5)])
    return np.asarray(indices != 5)


def few_bits(bits: int, key: int, photometric: str = "minisblack") -> Callable[..., np.ndarray]:
    def write(file: tifffile.TiffWriter, **options: Any) -> np.ndarray:
        shades = small(32, 48, below=2**bits).astype(bool if bits == 1 else np.uint16 if bits > 8 else np.uint8)
        tags = [*options.pop("extratags"), declared(key)]
        file.write(shades, photometric=photometric, bitspersample=bits, extratags=tags)
        return np.asarray(shades != key)

    return write


KINDS = {
    "YCbCr": orthophoto, "palette": palette, "1 bit": few_bits(1, 0), "1 bit, white is 0": few_bits(1, 0, "miniswhite"),
    "4 bits": few_bits(4, 3), "12 bits": few_bits(12, 7),
}  # fmt: skip


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_what_lies_beside_the_pixels_is_kept(kind: str, masked: bool, tmp_path: Path) -> None:
    source = tmp_path / "a.tif"
    mask = np.ones((32, 48), bool)
    with tifffile.TiffWriter(source) as file:
        known = KINDS[kind](file, extratags=[SCALE, PLACE], metadata=None)
        if masked:
            mask[4:9, 20:30] = False
            file.write(mask, photometric="mask", subfiletype=4, metadata=None)
            file.write(np.zeros((16, 24), np.uint8), subfiletype=1, metadata=None)
    known = known & mask
    facts = describe(source)
    assert facts.pages == 1
    stored = load(source)
    assert stored.values.shape[:2] == known.shape
    if known.all():
        assert stored.invalid is None
    else:
        assert stored.invalid is not None
        assert np.array_equal(~stored.invalid.all(-1), known)
    written = tmp_path / "b.tif"
    written.write_bytes(encode(stored.values, ".tif", facts.attached, [stored.invalid]))
    with tifffile.TiffFile(written) as tif:
        tags = tif.pages.first.tags
        assert (tags.valueof(33550), tags.valueof(33922)) == (SCALE[3], PLACE[3])
        assert (42113 in tags) == (not known.all())
    again = load(written)
    if not known.all():
        assert again.invalid is not None
        assert np.array_equal(~again.invalid.all(-1), known)
