"""Translating an image of any size within a bound on memory: whole where it fits, in stripes where it does not."""

from __future__ import annotations

import math
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unpaired.errors import DataError
from unpaired.inference.large_images.memory import taken_memory
from unpaired.inference.large_images.plan import Plan, Size, make_plan, stripe_rows, whole, working_set
from unpaired.inference.large_images.program import Program, UnsuitableNetworkError, trace
from unpaired.inference.large_images.steps import Norm, row_bytes
from unpaired.inference.large_images.stream import StoredMap, stream
from unpaired.methods.base import DEFAULT_REQUEST, Method, TranslateRequest

Progress = Callable[[float], None]
"""Told the share of the work that is done, from 0 to 1."""

_SAFETY = 0.9  # of a bound: the rest is for what the allocator and the libraries keep
_WHOLE_FACTOR, _WHOLE_MORE = 2, 64 * 2**20  # what is held beside the maps that the next step needs (measured)
_STRIPES = 768 * 2**20  # more than this makes stripes no faster
_DISK_SHARE = 0.9
_LARGEST_STRIPE = 24 * 2**20  # bytes of one map's: larger blocks are given back to the system and fetched again
_LARGEST_STRIPE_ELSEWHERE = 512 * 2**20


def translate_within(
    method: Method,
    x_BCHW: Tensor,
    memory_bytes: int,
    request: TranslateRequest = DEFAULT_REQUEST,
    *,
    half: Method | None = None,
    scratch: Path | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """``method.translate(x_BCHW, request)``, by stripes where an image is too large to be translated whole.

    Statistics of norms are those of the whole map and stripes see their real neighbours, so the result is that of the
    whole image up to rounding (float32 sums in another order).

    Args:
        method: In evaluation mode.
        x_BCHW: (B, C, H, W) float32 in [-1, 1], sides multiples of 4.
        memory_bytes: What this process may take in all (on a GPU: its tensors there).
        request: As for ``method.translate``.
        half: The same method with bf16 weights, to compute in bf16; unset computes in float32. Statistics of norms,
            maps between two passes and the result are float32 in any case.
        scratch: Folder for maps that do not fit; unset takes the system's for temporary files (``TMPDIR``).
        progress: Told the share of an image's work that is done, when it is translated by stripes.

    Returns:
        (B, C_out, H, W).

    Raises:
        DataError: The image is too large for the bound, also in stripes, or it needs them and the method's network
            allows none; or the scratch folder cannot be written or is full.
    """
    with torch.no_grad():
        free = memory_bytes - taken_memory(x_BCHW.device)
        if _loose_bound(method, x_BCHW) <= free:
            return run_whole(half or method, x_BCHW, request, half=half is not None)
        batch, channels, height, width = x_BCHW.shape
        try:
            program = trace(method, channels, of_image(request, 0))
        except UnsuitableNetworkError as error:
            raise DataError(
                f"memory_gib: {width} x {height} pixels may not fit into {memory_bytes / 2**30:.1f} GiB whole, and "
                f"{method.title} cannot be translated in stripes: {error}; allow more memory, or use a smaller size"
            ) from error
        if memory_needed(program, batch, height, width) <= free:
            return run_whole(half or method, x_BCHW, request, half=half is not None)
        if batch == 1:
            program = program.in_half() if half else program
            return translate_in_stripes(program, x_BCHW, memory_bytes, scratch=scratch, progress=progress)
        options: dict[str, Any] = {"half": half, "scratch": scratch, "progress": progress}
        images = enumerate(x_BCHW.split(1))
        return torch.cat(
            [translate_within(method, x, memory_bytes, of_image(request, n), **options) for n, x in images]
        )


def translate_in_stripes(
    program: Program,
    x_1CHW: Tensor,
    memory_bytes: int,
    *,
    scratch: Path | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Run a program on one image by stripes, whether it would fit or not; see :func:`translate_within`."""
    folder = Path(tempfile.gettempdir()) if scratch is None else scratch
    fit = _fit(program, program.sizes(*x_1CHW.shape[2:]), memory_bytes, x_1CHW.device, folder)
    return run_plan(program, fit, x_1CHW, folder, progress)


class Fit(NamedTuple):
    """How a translation fits: the plan, the rows of its stripes, and the bytes that stored maps may take in memory."""

    plan: Plan
    rows: list[int]
    maps: int


def run_plan(program: Program, fit: Fit, x_1CHW: Tensor, folder: Path, progress: Progress | None = None) -> Tensor:
    """Run all passes of a plan on one image; scratch files lie in ``folder``."""
    sizes, last = program.sizes(*x_1CHW.shape[2:]), len(program.steps) - 1
    out_CHW = x_1CHW.new_empty(program.steps[last].channels, *sizes[last])
    maps = {0: StoredMap(x_1CHW[0]), last: StoredMap(out_CHW)}
    total = sum(program.steps[number].work(*sizes[number]) for work in fit.plan.passes for number in work.computed)
    done = 0.0

    def advance(work: float) -> None:
        nonlocal done
        done += work
        if progress is not None:
            progress(min(done / total, 1.0))

    norms: dict[int, tuple[Tensor, Tensor]] = {}
    for work, rows in zip(fit.plan.passes, fit.rows, strict=True):
        for number in work.stored:
            if number in work.places:
                maps[number] = maps[work.places[number]]
                continue
            channels, (height, width) = program.steps[number].channels, sizes[number]
            left = fit.maps - sum({id(each): each.top_CHW.nbytes for n, each in maps.items() if n % last}.values())
            above = min(height, left // row_bytes(channels, width))
            maps[number] = StoredMap(x_1CHW.new_empty(channels, above, width), height - above, folder)
        found = stream(program, sizes, work, rows, norms=norms, maps=maps, advance=advance)
        if work.norm is not None:
            norm = program.steps[work.norm]
            assert isinstance(norm, Norm)
            norms[work.norm] = found.scale_and_shift(norm)
        maps = {number: maps[number] for number in {0, last, *work.kept}}
    if progress is not None:
        progress(1.0)
    return out_CHW[None]


def _fit(program: Program, sizes: Sequence[Size], memory_bytes: int, device: torch.device, folder: Path) -> Fit:
    height, width = sizes[-1]
    taken = taken_memory(device) + height * row_bytes(program.steps[-1].channels, width)
    left = int(_SAFETY * memory_bytes) - taken
    stripes = min(left // 2, _STRIPES)
    disk = int(_DISK_SHARE * _free_disk(folder))
    plan = make_plan(program, sizes, left - stripes, disk) if left > 0 else None
    if plan is None:
        ideal = make_plan(program, sizes, 0, sys.maxsize)
        assert ideal is not None, "with endless space there is a plan"
        if left > 0:
            raise DataError(
                f"{folder} has {disk / 2**30:.1f} GiB to spare, but {width} x {height} pixels within "
                f"{memory_bytes / 2**30:.1f} GiB of memory need {ideal.stored_bytes / 2**30:.1f} GiB for maps in "
                "scratch files; name another folder by the environment variable TMPDIR, or allow more (memory_gib)"
            )
        plan = ideal
    largest = _LARGEST_STRIPE if device.type == "cpu" else _LARGEST_STRIPE_ELSEWHERE
    rows = [stripe_rows(program, sizes, work, stripes, largest) for work in plan.passes]
    most = max(working_set(program, sizes, work, each) for work, each in zip(plan.passes, rows, strict=True))
    if most > stripes:
        needed = (taken + 2 * most) / _SAFETY / 2**30
        raise DataError(
            f"memory_gib: {memory_bytes / 2**30:.2f} GiB are too little for {width} x {height} pixels even in stripes; "
            f"they need {math.ceil(100 * needed) / 100:.2f} GiB"
        )
    return Fit(plan, rows, left - stripes)


def _free_disk(folder: Path) -> int:
    try:
        return shutil.disk_usage(folder).free
    except OSError as error:
        raise DataError(f"scratch files cannot be made in {folder} ({error.strerror or error})") from error


def memory_needed(program: Program, batch: int, height: int, width: int) -> int:
    """Bytes that the maps of a batch take at most, beside the images, when it is translated whole: an estimate.

    Twice what the maps take that a later operation needs, with the convolutions' own space, and 64 MiB: measured, the
    methods' networks take 0.7 to 1.0 of it (docs/large_images.md).
    """
    unpadded = Program(tuple(replace(step, padded_channels=0) for step in program.steps))  # whole maps are not copied
    maps = working_set(unpadded, program.sizes(height, width), whole(program), height)
    return _WHOLE_FACTOR * batch * maps + _WHOLE_MORE


def _loose_bound(method: Method, x_BCHW: Tensor) -> int:
    """Bytes that no translation exceeds: six maps of the widest layer at the image's own size."""
    widest = max(len(weight) for weight in method.parameters() if weight.ndim == 4)
    return 6 * row_bytes(widest, x_BCHW.shape[0] * x_BCHW.shape[2] * x_BCHW.shape[3])


def of_image(request: TranslateRequest, number: int) -> TranslateRequest:
    """The request for one image of a batch."""
    of_each = {name: getattr(request, name) for name in ("style_seeds", "style_reference", "style")}
    own = {name: value[number : number + 1] for name, value in of_each.items() if value is not None and len(value) > 1}
    return replace(request, **own) if own else request


def run_whole(method: Method, x_BCHW: Tensor, request: TranslateRequest, *, half: bool = False) -> Tensor:
    """``method.translate(x_BCHW, request)``, in bf16 if ``half``; the result is float32 in any case."""
    if not half:
        return method.translate(x_BCHW) if request is DEFAULT_REQUEST else method.translate(x_BCHW, request)
    maps = x_BCHW.contiguous(memory_format=torch.channels_last) if x_BCHW.device.type == "cpu" else x_BCHW
    with torch.no_grad(), torch.autocast(x_BCHW.device.type, torch.bfloat16):
        return run_whole(method, maps, request).float().contiguous()
