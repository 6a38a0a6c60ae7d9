"""NPY files, and arrays in memory."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np

from unpaired.data.mapping import PixelType
from unpaired.data.sizes import MAX_CHANNELS
from unpaired.data.stored import (
    Attached,
    Description,
    FileKind,
    Pages,
    check_channels,
    check_size,
    file_kind,
    mode_name,
)
from unpaired.errors import DataError


@file_kind
class Npy(FileKind):
    """Arrays of numpy; never pickled objects."""

    suffixes: ClassVar[dict[str, str]] = {".npy": "NPY"}
    begins = (b"\x93NUMPY",)

    def describe(self, file: IO[bytes], where: Path | str, pages: Pages, channels: int | None) -> Description:
        try:
            if isinstance(file, io.BytesIO):
                array = np.lib.format.read_array(file, allow_pickle=False)
            else:  # mapped, not yet read
                array = np.load(file.name, mmap_mode="r", allow_pickle=False)
        except Exception as error:  # numpy's readers let EOFError, SyntaxError and more escape
            why = (str(error) or type(error).__name__).splitlines()[0]
            raise DataError(
                f"{where}: the NPY file cannot be read ({why}); write it again with numpy.save, or move it elsewhere"
            ) from error
        return describe_array(array, where, channels)

    def can_hold(self, suffix: str, dtype: PixelType, channels: int, pages: int) -> bool:
        return pages == 1

    def encode(self, images: Sequence[np.ndarray], suffix: str, attached: Attached, durations: Sequence[float]) -> Any:
        held = io.BytesIO()
        (values,) = images
        np.save(held, values[:, :, 0] if values.shape[2] == 1 else values)
        return held.getbuffer()


def describe_array(array: np.ndarray, where: Path | str, channels: int | None) -> Description:
    """An array (H, W), (H, W, C) or (C, H, W), masked or not; ``channels`` are expected, which tells C from H and W.

    Raises:
        DataError: It is none of these.
    """
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3:
        raise DataError(f"{where}: an array of an image is (H, W), (H, W, C) or (C, H, W), not {array.shape}")
    first, last = array.shape[0], array.shape[2]
    if last != channels and (first == channels or (last > MAX_CHANNELS >= first)):
        array = np.moveaxis(array, 0, 2)
    height, width, count = array.shape
    check_size(width, height, where)
    check_channels(count, where)
    if not array.dtype.itemsize:  # copied as text, such values would take bytes that the file does not have
        raise DataError(f"{where}: holds {array.dtype}, which is not an image type; convert it to float32")
    valid = None
    if isinstance(array, np.ma.MaskedArray):
        mask, array = np.ma.getmaskarray(array), array.data
        valid = lambda: ~mask  # noqa: E731
    values = array
    dtype = np.dtype(np.uint8) if array.dtype == bool else array.dtype.newbyteorder("=")

    def samples(page: int) -> np.ndarray:
        return np.where(values, np.uint8(255), np.uint8(0)) if values.dtype == bool else np.array(values, dtype)

    mode = mode_name(dtype.name, count, colour=count == 3)
    attached = Attached(channels=count)
    return Description("NPY", mode, width, height, dtype.name, count, samples, valid=valid, attached=attached)
