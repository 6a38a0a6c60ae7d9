"""Equal and similar pictures: exact against brute force."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from official_archives import picture, pixels
from PIL import Image

from unpaired.data.inspection import ImageInfo, equal_pictures, inspect, similar_pictures
from unpaired.data.stored import Description


def info(look: int, content: int = 0, colour: int = 0) -> ImageInfo:
    digest = b"%d" % content
    facts = Description("PNG", "RGB", 8, 8, "uint8", 3, np.empty)
    return ImageInfo(facts, 0, digest, look.to_bytes(8, "big"), bytes([colour]) * 192)


@settings(max_examples=80, deadline=None)
@given(
    looks=st.lists(
        st.one_of(
            st.integers(0, 2**64 - 1), st.lists(st.integers(0, 63), max_size=6).map(lambda b: sum(1 << i for i in {*b}))
        ),
        max_size=40,
    ),
    threshold=st.integers(0, 16),
)
def test_the_search_is_exact(looks: list[int], threshold: int) -> None:
    found = {f"{i:02d}": info(look, content=i) for i, look in enumerate(looks)}
    expected = [
        (f"{i:02d}", f"{j:02d}")
        for i in range(len(looks))
        for j in range(i + 1, len(looks))
        if (looks[i] ^ looks[j]).bit_count() <= threshold
    ]
    assert similar_pictures(found, threshold) == expected


def test_equal_pictures_are_not_similar_and_other_colours_neither() -> None:
    found = {"a": info(7, 1), "b": info(7, 1), "c": info(7, 2, colour=12), "d": info(7, 3, colour=200)}
    assert equal_pictures(found) == [["a", "b"]]
    assert similar_pictures(found, 4) == [("a", "c"), ("b", "c")]
    assert similar_pictures(found, -1) == []


@pytest.mark.parametrize("seed", range(5))
def test_changed_copies_look_alike_and_others_do_not(seed: int) -> None:
    image = pixels(seed, (120, 100))
    copies = {
        "smaller": image.resize((60, 50), Image.Resampling.BICUBIC),
        "brighter": image.point(lambda value: min(255, value + 8)),
        "gray": image.convert("L").convert("RGB"),
        "mirrored": image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        "another": pixels(seed + 100, (120, 100)),
    }
    found = {name: inspect(png(copy), name) for name, copy in copies.items()} | {"": inspect(png(image), "")}
    file = io.BytesIO()
    image.save(file, "JPEG", quality=50)
    found["compressed"] = inspect(file.getvalue(), "")
    alike = {other for pair in similar_pictures(found, 4) if "" in pair for other in pair} - {""}
    assert alike == {"smaller", "brighter", "compressed"}


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def test_a_picture_is_the_same_however_it_is_stored() -> None:
    same = [
        picture(3), picture(3, format="BMP"), picture(3, format="TIFF"), picture(3, format="WEBP", lossless=True),
        png(pixels(3).convert("RGBA")),
    ]  # fmt: skip
    assert len({inspect(content, "").digest for content in same}) == 1
    exif = Image.Exif()
    exif[0x0112] = 3  # half a turn
    turned = io.BytesIO()
    pixels(3).rotate(180).save(turned, "PNG", exif=exif)
    assert inspect(turned.getvalue(), "").digest == inspect(same[0], "").digest
    assert inspect(turned.getvalue(), "").facts.orientation == 3
    hidden = np.array(pixels(3).convert("RGBA"))
    hidden[:10, :, 3] = 0
    other = hidden.copy()
    other[:10, :, :3] = 77  # colours that nobody sees
    assert inspect(png(Image.fromarray(hidden)), "").digest == inspect(png(Image.fromarray(other)), "").digest
    flat = [png(Image.new("RGB", size, "white")) for size in ((8, 4), (4, 8), (16, 2))]
    assert len({inspect(content, "").digest for content in flat}) == 3
