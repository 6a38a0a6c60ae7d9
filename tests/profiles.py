"""Colour profiles for tests, of which it is plain what they do."""

from __future__ import annotations

import struct

import numpy as np

D50 = struct.pack(">4s4xiii", b"XYZ ", 63190, 65536, 54061)
COLUMNS = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
"""Red, green and blue of sRGB under D50 (IEC 61966-2-1, adapted)."""


def icc(space: bytes, connection: bytes = b"XYZ ", **tags: bytes) -> bytes:
    """A profile of version 2 with these tags."""
    named = {b"wtpt": D50, b"cprt": b"text\0\0\0\0none\0", **{name.encode(): data for name, data in tags.items()}}
    index, body = struct.pack(">I", len(named)), b""
    for name, data in named.items():
        index += struct.pack(">4sII", name, 132 + 12 * len(named) + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(
        ">I4sI4s4s4s", 132 + 12 * len(named) + len(body), b"test", 0x02100000, b"prtr", space, connection
    )
    return head.ljust(36, b"\0") + b"acsp".ljust(32, b"\0") + D50[8:] + bytes(48) + index + body


def gamma(value: float) -> bytes:
    return struct.pack(">4s4xIH", b"curv", 1, round(value * 256))


SRGB_CURVE = struct.pack(">4s4xHxx5i", b"para", 3, *(round(x * 65536) for x in (2.4, 1 / 1.055, 0.055 / 1.055,
                                                                              1 / 12.92, 0.04045)))  # fmt: skip
_TABLE = np.rint(65535 * (np.linspace(0, 1, 1024) ** 1.8)).astype(">u2")
CURVE_1_8 = struct.pack(">4s4xI", b"curv", len(_TABLE)) + _TABLE.tobytes()


def rgb(red: int = 0, green: int = 1, curve: bytes = SRGB_CURVE) -> bytes:
    """The primaries of sRGB, of which red and green may be exchanged."""
    names = [("rXYZ", red), ("gXYZ", green), ("bXYZ", 2)]
    columns = {name: struct.pack(">4s4x3i", b"XYZ ", *(round(65536 * x) for x in COLUMNS[of])) for name, of in names}
    return icc(b"RGB ", **columns, rTRC=curve, gTRC=curve, bTRC=curve)


EXCHANGED = rgb(1, 0)
"""As Display P3 is one of other primaries: red is green, green is red."""


def table(space: bytes, lightness_of: int) -> bytes:
    """A table of Lab, whose lightness falls with one of the channels: 100 where it is 0, 0 where it is full."""
    channels = {b"RGB ": 3, b"CMYK": 4}[space]
    ramp = bytes(range(256))
    nodes = [bytes([255 * (1 - (node >> (channels - 1 - lightness_of) & 1)), 128, 128]) for node in range(2**channels)]
    identity = struct.pack(">9i", *(65536 * (place % 4 == 0) for place in range(9)))
    lut = struct.pack(">4s4xBBBx", b"mft1", channels, 3, 2) + identity + ramp * channels + b"".join(nodes) + ramp * 3
    return icc(space, b"Lab ", A2B0=lut)


def encoded(light: np.ndarray) -> np.ndarray:
    """Linear light 0..1 in sRGB, 0..255."""
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def of_lightness(lightness: np.ndarray) -> np.ndarray:
    """L* in sRGB, 0..255."""
    return encoded(np.where(lightness > 8, ((lightness + 16) / 116) ** 3, lightness / 903.3))
