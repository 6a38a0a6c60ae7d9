"""Colour profiles (ICC.1:2022): which are other ones than sRGB, and values of these in sRGB."""

from __future__ import annotations

import functools
import io
import struct
from typing import Literal

import numpy as np
from PIL import Image, ImageCms

CHANNELS = {b"GRAY": 1, b"RGB ": 3, b"CMYK": 4}
"""Colour space of a profile -> channels that it speaks of."""
_MODES = {1: "L", 3: "RGB", 4: "CMYK"}
_PIXELS = 2**20
"""Of 16 bits, that are converted at a time."""
_Fate = Literal["", "convert", "keep"]


@functools.lru_cache(maxsize=1)
def srgb() -> bytes:
    """The profile that converted pixels are in."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@functools.lru_cache(maxsize=64)
def fate_of(profile: bytes, channels: int, dtype: str) -> _Fate:
    """Whether values of a profile can be converted to sRGB (``convert``) or not (``keep``).

    Nothing (``""``) has to be done where it does not speak of so many channels, is damaged, or is nowhere more than two
    levels of 255 away from sRGB. 8 bits are converted through any profile, 16 bits through those that consist of curves
    and a matrix, as profiles of cameras, screens and working spaces do; other types have no white that all agree on.
    """
    if CHANNELS.get(profile[16:20]) != channels:
        return ""
    levels = np.stack(np.meshgrid(*[np.arange(0, 256, 51, dtype=np.uint8)] * channels), -1).reshape(1, -1, channels)
    try:
        made = to_srgb(levels, profile).astype(int)
    except (OSError, ImageCms.PyCMSError):  # damaged
        return ""
    if channels <= 3 and np.abs(made - levels).max() <= 2:
        return ""
    return "convert" if dtype == "uint8" or (dtype == "uint16" and _curves(profile)) else "keep"


def to_srgb(values_HWC: np.ndarray, profile: bytes) -> np.ndarray:
    """Values of a profile's channels, uint8 or uint16, in sRGB: colours as such, inks as colours, gray as gray."""
    channels = values_HWC.shape[2]
    if values_HWC.dtype == np.uint8 and channels == 1:
        ramp = np.arange(256, dtype=np.uint8).reshape(1, 256, 1)
        return _in_bytes(ramp, profile, ImageCms.Flags.NOOPTIMIZE)[0, :, 0][values_HWC]
    if values_HWC.dtype == np.uint8:
        return _in_bytes(values_HWC, profile)
    curves, matrix = _curves(profile), _matrix(profile)
    flat = values_HWC.reshape(-1, channels)
    made = np.empty_like(flat)
    for start in range(0, len(flat), _PIXELS):
        part = flat[start : start + _PIXELS]
        light = np.stack([curve[part[:, place]] for place, curve in enumerate(curves)], -1)
        light = np.clip(light @ matrix.T, 0, 1)
        encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)  # IEC 61966-2-1
        made[start : start + _PIXELS] = np.rint(encoded * 65535)
    return made.reshape(values_HWC.shape)


def _in_bytes(values_HWC: np.ndarray, profile: bytes, flags: int = 0) -> np.ndarray:
    height, width, channels = values_HWC.shape
    image = Image.frombytes(_MODES[channels], (width, height), values_HWC.tobytes())
    return np.asarray(ImageCms.applyTransform(image, _transform(profile, image.mode, flags)))


@functools.lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str, flags: int) -> ImageCms.ImageCmsTransform:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB", flags=ImageCms.Flags(flags))


def _tags(profile: bytes) -> dict[bytes, memoryview]:
    (count,) = struct.unpack_from(">I", profile, 128)
    entries = (struct.unpack_from(">4sII", profile, 132 + 12 * place) for place in range(min(count, 1000)))
    whole = memoryview(profile)  # each of its tags may be all of it: no copies
    return {name: whole[start : start + size] for name, start, size in entries}


@functools.lru_cache(maxsize=16)
def _curves(profile: bytes) -> tuple[np.ndarray, ...]:
    """Per channel, the light of each of the 65536 values; none where it is no profile of curves and a matrix."""
    tags = _tags(profile)
    if b"A2B0" in tags or profile[20:24] != b"XYZ ":
        return ()
    names = (b"kTRC",) if CHANNELS[profile[16:20]] == 1 else (b"rTRC", b"gTRC", b"bTRC")
    try:
        return tuple(_curve(tags[name]).astype(np.float32) for name in names)
    except (LookupError, ValueError, struct.error):
        return ()


def _curve(tag: memoryview) -> np.ndarray:
    x = np.linspace(0, 1, 65536)
    if tag[:4] == b"curv":
        (count,) = struct.unpack_from(">I", tag, 8)
        table = np.frombuffer(tag, ">u2", count, 12)
        return np.interp(x, np.linspace(0, 1, count), table / 65535) if count > 1 else x ** (table.sum() / 256 or 1)
    if tag[:4] != b"para":
        raise ValueError(f"a curve of the unknown type {bytes(tag[:4])!r}")
    (kind,) = struct.unpack_from(">H", tag, 8)
    given = dict(zip("gabcdef", np.frombuffer(tag, ">i4", (1, 3, 4, 5, 7)[kind], 12) / 65536, strict=False))
    a, b, c = given.get("a", 1.0), given.get("b", 0.0), given.get("c", 0.0)
    if kind <= 2:  # constant below the power, which c raises
        slope, start, above, below = 0.0, -b / a, c, c
    else:
        slope, start, above, below = c, given["d"], given.get("e", 0.0), given.get("f", 0.0)
    curve = np.where(x >= start, np.maximum(a * x + b, 0) ** given["g"] + above, slope * x + below)
    return np.clip(curve, 0, 1)


def _matrix(profile: bytes) -> np.ndarray:
    """Linear light of the profile to that of sRGB, through XYZ under D50."""
    if CHANNELS[profile[16:20]] == 1:
        return np.eye(1, dtype=np.float32)
    own, ours = (
        np.stack([np.frombuffer(_tags(p)[name], ">i4", 3, 8) for name in (b"rXYZ", b"gXYZ", b"bXYZ")], -1) / 65536
        for p in (profile, srgb())
    )
    return (np.linalg.inv(ours) @ own).astype(np.float32)
