"""Files of a few kilobytes that ask for a gigabyte are refused before they get it, and no honest file is."""

from __future__ import annotations

import functools
import io
import lzma
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

import profiles
from limited import files, limited
from unpaired.data.profiles import fate_of
from unpaired.data.reading import describe, load
from unpaired.data.stored import check_tiles
from unpaired.errors import DataError

MUCH = 100 << 20
"""Bytes that bombs unpack to, and far more than reading a small image may take."""
WORDS = "a strip or tile unpacks to more than it can hold of the image"
CODECS = (("jpeg8", 7), ("jpeg8", 34892), ("jpeg2k", 34712), ("png", 34933), ("jpegxl", 50002), ("jpegxr", 34934),
          ("lerc", 34887), ("webp", 50001))  # fmt: skip
"""Codecs of images that TIFF files may hold, and their numbers there."""
READ = """
if {without}: sys.modules["imagecodecs"] = None
import io
from pathlib import Path
import numpy as np
import tifffile
from PIL import Image
from unpaired.data.reading import describe, load

def work(item):
    describe(Path(item))
    load(io.BytesIO(Path(item).read_bytes()))
    return load(Path(item)).values.shape

for options in ({{}}, {{"compression": "zlib"}}, {{"photometric": "palette", "colormap": np.zeros((3, 256), "u2")}}):
    held = io.BytesIO()
    tifffile.imwrite(held, np.zeros((64, 64), np.uint8), **options)
    load(held)
"""


@functools.cache
def deflated(count: int = MUCH) -> bytes:
    made = zlib.compressobj(9)
    return b"".join(made.compress(bytes(1 << 20)) for _ in range(count >> 20)) + made.flush()


def tiff(tags: dict[int, Any] | list[tuple[int, Any]], *segments: bytes, at: int = 0) -> bytes:
    """A TIFF whose tags are integers (tuples: of 16 bits), texts, or where the segments are and how long; ``at`` is
    where in a file it stands."""
    starts = [at + 8 + sum(map(len, segments[:number])) for number in range(len(segments))]
    filled = {"starts": starts, "sizes": [len(each) for each in segments]}
    body = b"".join(segments) + bytes(sum(map(len, segments)) % 2)
    directory, behind = b"", b""
    beyond = at + 8 + len(body) + 2 + 12 * len(tags) + 4
    for code, value in sorted(tags.items() if isinstance(tags, dict) else tags, key=lambda tag: tag[0]):
        values = filled.get(value, value) if isinstance(value, str) else value
        kind, size, packed = 4, len(values), b""
        if isinstance(values, bytes):
            kind, packed = 2, values
        elif isinstance(values, tuple):
            kind, packed = 3, struct.pack(f"<{size}H", *values)
        else:
            packed = struct.pack(f"<{size}I", *values)
        place = packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack("<I", beyond + len(behind))
        behind += packed + bytes(len(packed) % 2) if len(packed) > 4 else b""
        directory += struct.pack("<HHI", code, kind, size) + place
    head = b"II*\0" + struct.pack("<I", at + 8 + len(body))
    return head + body + struct.pack("<H", len(tags)) + directory + bytes(4) + behind


def striped(segment: bytes, compression: int, more: dict[int, Any] | None = None) -> bytes:
    """64 x 64 gray pixels in one strip."""
    tags = {256: [64], 257: [64], 258: (8,), 259: (compression,), 262: (1,), 277: (1,), 278: [64], 273: "starts",
            279: "sizes"}  # fmt: skip
    return tiff(tags | (more or {}), segment)


def tiled(width: int, length: int, segment: bytes, more: dict[int, Any] | None = None) -> bytes:
    """64 x 64 gray pixels in one tile."""
    tags = {256: [64], 257: [64], 258: (8,), 259: (8,), 262: (1,), 277: (1,), 322: [width], 323: [length],
            324: "starts", 325: "sizes"}  # fmt: skip
    return tiff(tags | (more or {}), segment)


def ome(planes: int = 1, inside: str = "", order: str = "XYZCT", start: str = '<?xml version="1.0"?>') -> bytes:
    return (
        f'{start}<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1"><Image ID="Image:0">'
        f'<Pixels DimensionOrder="{order}" ID="P:0" SizeC="1" SizeT="{planes}" SizeX="64" SizeY="64" SizeZ="1" '
        f'Type="uint8">{inside or "<TiffData/>"}</Pixels></Image></OME>\0'
    ).encode()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(bits: int, kind: int, *chunks: bytes) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, bits, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IEND", b"")


def npy(kind: str) -> bytes:
    head = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': (16384, 16384), }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head


@functools.cache
def coded(codec: str) -> bytes:
    """Many pixels, of one value, in a codec of images."""
    import imagecodecs

    options: dict[str, Any] = {"jpegxl": {"effort": 1}, "webp": {"level": 0}}.get(codec, {})
    side, more = (6000, (3,)) if codec == "webp" else (10_000, ())
    return getattr(imagecodecs, f"{codec}_encode")(np.zeros((side, side, *more), np.uint8), **options)


def bombs() -> dict[str, bytes]:
    packbits = b"\x81\0" * (MUCH // 128)
    modulo = '<TiffData/></Pixels></Image><StructuredAnnotations><XMLAnnotation ID="a" Namespace="modulo"><Value>'
    modulo += '<Modulo><ModuloAlongZ Type="other" Start="0" End="100000000"/></Modulo></Value></XMLAnnotation>'
    modulo += '</StructuredAnnotations><Image ID="b"><Pixels>'
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10 if n else "many letters"}">' for n in range(8))
    palette = {262: (3,), 320: (0,) * 768}
    return {
        "tile.tif": tiled(12_000, 12_000, deflated()),
        "long_tile.tif": tiled(16, 9_000_000, deflated()),
        "deep_tile.tif": tiled(64, 64, deflated(), {32998: [40_000]}),
        "palette_tile.tif": tiled(12_000, 12_000, deflated(), palette),
        "deflate.tif": striped(deflated(), 8),
        "deflate_predicted.tif": striped(deflated(), 32946, {317: (2,)}),
        "deflate_reversed.tif": striped(deflated().translate(REVERSED), 8, {266: (2,)}),
        "rows.tif": striped(deflated(), 8, {278: [2**32 - 1]}),
        "lzma.tif": striped(lzma.compress(bytes(MUCH), preset=0), 34925),
        "packbits.tif": striped(packbits, 32773),
        "images.tif": striped(bytes(4096), 1, {270: b'{"shape": [50000000, 64, 64]}\0'}),
        "ome_planes.tif": striped(bytes(4096), 1, {270: ome(50_000_000)}),
        "ome_axes.tif": striped(bytes(4096), 1, {270: ome(500, order="XYTTT")}),
        "ome_count.tif": striped(bytes(4096), 1, {270: ome(9, '<TiffData IFD="0" PlaneCount="50000000"/>')}),
        "ome_modulo.tif": striped(bytes(4096), 1, {270: ome(1, modulo)}),
        "ome_entities.tif": striped(
            bytes(4096), 1, {270: ome(1, "&e7;", start=f'<?xml version="1.0"?><!DOCTYPE OME [{entities}]>')}
        ),
        "imagej.tif": striped(bytes(4096), 1, {270: b"ImageJ=1.53\nimages=50000000\nframes=50000000\n\0"}),
        "idat.png": png(8, 0, chunk(b"IDAT", deflated())),
        "idat16.png": png(16, 2, chunk(b"IDAT", deflated())),
        "profile.png": png(8, 0, chunk(b"iCCP", b"x\0\0" + deflated()), chunk(b"IDAT", zlib.compress(bytes(65 * 64)))),
        "words.png": png(8, 0, chunk(b"zTXt", b"x\0\0" + deflated()), chunk(b"IDAT", zlib.compress(bytes(65 * 64)))),
        "text.npy": npy("<U0"),
        "bytes.npy": npy("|S0"),
        "nothing.npy": npy("|V0"),
    }


REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@pytest.mark.parametrize("without", [False, True], ids=["imagecodecs", "plain"])
def test_small_files_take_little_memory(without: bool, tmp_path: Path) -> None:
    if not without:
        pytest.importorskip("imagecodecs")
    names = files(tmp_path, bombs())
    found = dict(zip(names, limited(READ.format(without=without), names), strict=True))
    assert {name: round(grown) for name, (_, grown) in found.items() if grown > 30} == {}
    for name, (said, _) in found.items():
        assert said.startswith("(64, 64, ") or (said.startswith("DataError: ") and "\n" not in said), (name, said)
    tiles = {name: said for name, (said, _) in found.items() if "tile" in name}
    assert len(tiles) == 4
    assert all("far too large for an image of 64 x 64" in said for said in tiles.values()), tiles
    for name, words in {
        "deflate.tif": WORDS if without else "truncated or damaged", "packbits.tif": WORDS if without else "damaged",
        "images.tif": "its header speaks of 50,000,000 images, more than the file can hold",
        "text.npy": "holds <U0, which is not an image type",
    }.items():  # fmt: skip
        assert words in found[str(tmp_path / name)][0], name


def test_images_inside_of_strips_and_tiles_have_their_size(tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs")
    contents = {}
    for codec, compression in CODECS:
        more = {259: (compression,)} | ({258: (8, 8, 8), 262: (2,), 277: (3,)} if codec == "webp" else {})
        contents[f"{codec}_{compression}_strip.tif"] = striped(coded(codec), compression, more)
        contents[f"{codec}_{compression}_tile.tif"] = tiled(64, 64, coded(codec), more)
    names = files(tmp_path, contents)
    for name, (said, grown) in zip(names, limited(READ.format(without=False), names), strict=True):
        assert said.endswith(f"{WORDS}; write the file again, or move it elsewhere"), (name, said)
        assert grown < 30, name


def test_all_of_a_slide_has_the_size_of_its_header(tmp_path: Path) -> None:
    """tifffile decodes files of Hamamatsu at once, not by its tiles."""
    pytest.importorskip("imagecodecs")
    held = io.BytesIO()
    Image.new("L", (10_000, 10_000)).save(held, "JPEG", restart_marker_blocks=125)
    content = held.getvalue()
    scan = content.index(b"\xff\xda")
    start = scan + 2 + int.from_bytes(content[scan + 2 : scan + 4])
    slide = striped(content, 7, {271: b"Hamamatsu\0", 65420: [1], 65426: [start, start + 100]})
    ((said, grown),) = limited(READ.format(without=False), files(tmp_path, {"slide.tif": slide}))
    assert WORDS in said
    assert grown < 30


def test_no_tag_that_is_given_twice_leads_past_the_check(tmp_path: Path) -> None:
    """Of two, Pillow takes the last, its decoder the first."""
    plain = {256: [64], 257: [64], 258: (8,), 259: (8,), 262: (3,), 277: (1,), 320: (0,) * 768, 324: "starts",
             325: "sizes"}  # fmt: skip
    twice = {
        f"{first}.tif": tiff(
            [*plain.items(), (322, [first]), (322, [second]), (323, [first]), (323, [second])], deflated()
        )
        for first, second in ((64, 12_000), (12_000, 64))
    }
    for said, grown in limited(READ.format(without=False), files(tmp_path, twice)):
        assert "tiles of 12,000 x 12,000 pixels are far too large for an image of 64 x 64" in said
        assert grown < 30


HONEST: dict[str, dict[str, Any]] = {
    "plain": {}, "deflate": {"compression": "zlib"}, "predicted": {"compression": "zlib", "predictor": True},
    "lzma": {"compression": "lzma"}, "packbits": {"compression": "packbits"}, "lzw": {"compression": "lzw"},
    "zstd": {"compression": "zstd"}, "png": {"compression": "png"}, "jpegxl": {"compression": "jpegxl"},
    "jpeg2000": {"compression": "jpeg2000"}, "jpegxr": {"compression": "jpegxr"}, "lerc": {"compression": "lerc"},
}  # fmt: skip
LAYOUTS: tuple[dict[str, Any], ...] = (
    {}, {"rowsperstrip": 7}, {"tile": (16, 16)}, {"tile": (32, 256)}, {"tile": (512, 512)},
)  # fmt: skip
SHAPES = ("u1", (61, 67)), ("u1", (61, 67, 3)), ("u2", (61, 67)), ("f4", (2, 61, 67))
WITHOUT = ("plain", "deflate", "predicted", "lzma", "packbits")
"""What is read without imagecodecs."""


def honest(folder: Path, kinds: tuple[str, ...]) -> list[str]:
    """Files of every layout, types and channels, and beside each what it holds."""
    random, names = np.random.default_rng(1), []
    for kind in kinds:
        for number, layout in enumerate(LAYOUTS):
            for dtype, shape in SHAPES if kind != "predicted" else SHAPES[:3]:  # predicted floats need imagecodecs
                values = random.integers(0, 200, shape).astype(dtype)
                planar = {"planarconfig": "separate", "photometric": "minisblack"} if len(shape) == 3 > shape[0] else {}
                path = folder / f"{kind}{number}_{dtype}_{len(shape)}.tif"
                try:
                    tifffile.imwrite(path, values, **HONEST[kind], **layout, **planar)
                except (ValueError, TypeError, NotImplementedError, RuntimeError):  # no such types in this compression
                    path.unlink(missing_ok=True)
                    continue
                np.save(path.with_suffix(".npy"), np.moveaxis(values, 0, -1) if planar else values.reshape(61, 67, -1))
                names.append(str(path))
    return names


SAME = (
    READ
    + """
def work(item):
    return "" if np.array_equal(load(Path(item)).values, np.load(Path(item).with_suffix(".npy"))) else "other"
"""
)


@pytest.mark.parametrize("without", [False, True], ids=["imagecodecs", "plain"])
def test_honest_files_in_strips_and_tiles_are_read_as_ever(without: bool, tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs")  # writes them
    names = honest(tmp_path, WITHOUT if without else tuple(HONEST))
    assert len(names) >= (len(WITHOUT) if without else len(HONEST)) * 10
    if without:
        turned = zlib.compress(bytes(range(256)) * 16).translate(REVERSED)
        names += files(tmp_path, {"turned.tif": striped(turned, 8, {266: (2,)})})
        np.save(tmp_path / "turned.npy", np.frombuffer(bytes(range(256)) * 16, np.uint8).reshape(64, 64, 1))
        names += files(tmp_path, {"longer.tif": striped(zlib.compress(bytes(range(256)) * 20), 8)})
        np.save(tmp_path / "longer.npy", np.frombuffer(bytes(range(256)) * 16, np.uint8).reshape(64, 64, 1))
    said = dict(zip(names, limited(SAME.format(without=without), names), strict=True))
    assert {name: words for name, (words, _) in said.items() if words} == {}


@pytest.mark.parametrize(
    ("tile", "size", "pixel"),
    [
        ((512, 512), (1, 1), 16), ((4096, 4096), (64, 64), 8), ((10_240, 10_240), (10_000, 10_000), 16),
        ((16_384, 16_384), (16_384, 16_384), 16), ((4096, 4096), (20_000, 100), 1), ((256, 256), (16_000, 16_000), 64),
    ],
)  # fmt: skip
def test_tiles_may_be_larger_than_their_image(tile: tuple[int, int], size: tuple[int, int], pixel: int) -> None:
    check_tiles(tile, size, pixel, "a.tif")
    with pytest.raises(DataError, match=r"^a\.tif: tiles of 30,000 x 30,000 pixels are far too large for an image of"):
        check_tiles((30_000, 30_000), (min(size[0], 9000), min(size[1], 9000)), pixel, "a.tif")


@pytest.mark.parametrize("second", ["other.tif", "sub/other.tif", "../up/other.tif", "{whole}", "..\\other.tif"])
def test_the_header_of_a_microscope_names_files_beside_it_only(second: str, tmp_path: Path) -> None:
    """A stack of OME may lie in several files; those elsewhere on this machine are none of them."""
    folder = tmp_path / "up"
    (folder / "sub").mkdir(parents=True)
    named = second.format(whole=folder / "sub" / "other.tif")
    inside = f'<TiffData IFD="0" PlaneCount="1"><UUID FileName="{named}">urn:uuid:2</UUID></TiffData>'
    other = striped(b"\x77" * 4096, 1)
    files(folder, {"a.tif": striped(bytes(4096), 1, {270: ome(1, inside)}), "other.tif": other, "sub/other.tif": other})
    assert load(folder / "a.tif").values.max() == (0x77 if second == "other.tif" else 0)


def test_every_frame_has_a_size_of_its_own(tmp_path: Path) -> None:
    frames = []
    for side in (64, 17_000):
        held = io.BytesIO()
        Image.new("P", (side, 64)).save(held, "GIF")
        frames.append(held.getvalue())
    one, two = (content[content.index(b",\0\0\0\0") : -1] for content in frames)
    wide = bytearray(two)
    wide[7:9] = struct.pack("<H", 17_000)  # 17,000 x 17,000, which its header does not say
    path = tmp_path / "two.gif"
    path.write_bytes(frames[0][: frames[0].index(b",\0\0\0\0")] + one + bytes(wide) + b";")
    assert describe(path).pages == 2
    assert load(path).values.shape == (64, 64, 3)
    with pytest.raises(DataError, match=r"two\.gif: .*289,?000,?000 pixels|17,000 x 17,000 pixels are more than"):
        load(path, page=1)
    palette = {256: [64], 257: [64], 258: (8,), 259: (8,), 262: (3,), 277: (1,), 320: (0,) * 768}
    pages = tmp_path / "pages.tif"
    first = tiff(palette | {278: [64], 273: "starts", 279: "sizes"}, zlib.compress(bytes(4096)))
    second = tiff(palette | {322: [30_000], 323: [30_000], 324: "starts", 325: "sizes"}, b"none", at=len(first))
    link = int.from_bytes(first[4:8], "little") + 2 + 12 * (len(palette) + 3)
    pages.write_bytes(first[:link] + second[4:8] + first[link + 4 :] + second)
    assert load(pages).values.shape == (64, 64, 3)
    with pytest.raises(DataError, match="tiles of 30,000 x 30,000 pixels are far too large for an image of 64 x 64"):
        load(pages, page=1)


def test_tags_of_a_profile_may_overlap_without_being_copied() -> None:
    plain = profiles.EXCHANGED
    count = int.from_bytes(plain[128:132])
    old = [struct.unpack_from(">4sII", plain, 132 + 12 * place) for place in range(count)]
    added = 100 - count
    whole = 4 << 20
    table = b"".join(struct.pack(">4sII", name, start + 12 * added, size) for name, start, size in old)
    table += b"".join(struct.pack(">4sII", b"x%03d" % number, 132, whole - 132) for number in range(added))
    made = plain[:128] + struct.pack(">I", 100) + table + plain[132 + 12 * count :]
    made = struct.pack(">I", whole) + made[4:].ljust(whole - 4, b"\0")
    import tracemalloc

    tracemalloc.start()
    assert fate_of(made, 3, "uint16") == "convert"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20
