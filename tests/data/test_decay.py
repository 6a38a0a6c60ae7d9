"""Once the learning rate falls, images are loaded at the crop's size: a function of the number of the sample alone."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from unpaired.data import (
    DataConfig,
    DomainFiles,
    MultiDomainStream,
    UnpairedFiles,
    UnpairedStream,
    batches,
    decay_turns,
)
from unpaired.data import samples as samples_module
from unpaired.methods import METHODS
from unpaired.methods.base import OptimiserConfig
from unpaired.run_config import loading

Make = Callable[..., UnpairedFiles]
GOLDEN = Path(__file__).parents[1] / "golden" / "schedules.json"
UNTIL_DECAY = DataConfig(image_size=8, num_workers=0, load_size_until="decay")
BORDER = 7


def stream_of(files: UnpairedFiles, turns: tuple[int, ...] = (BORDER,), **changes: Any) -> UnpairedStream:
    return UnpairedStream(files, dataclasses.replace(UNTIL_DECAY, **changes), 3, turns=turns)


def pair(stream: UnpairedStream, k: int) -> torch.Tensor:
    return torch.stack([stream[k]["source"], stream[k]["target"]])


def collect(stream: UnpairedStream, start: int, stop: int, batch_size: int, **options: Any) -> dict[int, torch.Tensor]:
    found = {}
    for batch in batches(stream, start, stop, batch_size, **options):
        for k, source, target in zip(batch.index.tolist(), batch.source, batch.target, strict=True):
            if batch.weight > 0:
                found[k] = torch.stack([source, target])
    return found


# ---------------------------------------------------------------------------------------------------------------------
# which methods, and when
# ---------------------------------------------------------------------------------------------------------------------
PUBLISHED = {
    "cut": True, "fastcut": True, "qs_attn": True, "dclgan": True, "monce": True, "hneg_src": True, "enco": True,
    "santa": True, "cyclegan": False, "fsesim": False, "munit": False, "sincut": False,
}  # fmt: skip
"""Whether the authors' code loads images at the crop's size in the decay."""
BY_DESCENT = {"lsesim": "fsesim", "cyclegan_qs_attn": "cyclegan", "dclgan_qs_attn": "dclgan",
              "multi_domain_qs_attn": "qs_attn"}  # fmt: skip
"""Methods without code of their own authors -> whose loading they take."""


@pytest.mark.parametrize("method", METHODS)
def test_every_method_loads_as_its_authors_do(method: str) -> None:
    assert loading(method).changes_with_decay == PUBLISHED[BY_DESCENT.get(method, method)]


def test_the_published_table_is_the_golden_one() -> None:
    golden = json.loads(GOLDEN.read_text())["load_size_falls_to_crop_size_in_the_decay"]
    found = {name.removesuffix("_original"): value for name, value in golden.items()}
    assert {**found, "sincut": False} == PUBLISHED  # SinCUT's code, in CUT's, looks at no epoch


@pytest.mark.parametrize(("method", "constant", "decay"), [("cut", 200, 200), ("fastcut", 150, 50)])
@pytest.mark.parametrize("images", [3, 1334])
def test_load_sizes_of_every_published_epoch(method: str, constant: int, decay: int, images: int) -> None:
    """The authors count epochs from 1 and change over when the epoch is larger than the number of constant ones."""
    published = [286] * constant + [256] * decay
    assert published == json.loads(GOLDEN.read_text())[method]["load_size"]
    optimiser = METHODS[method].Config().optimiser
    assert optimiser.epochs == constant + decay
    files = UnpairedFiles(tuple(Path(str(i)) for i in range(images)), (Path("b"),))
    turns = decay_turns([(0, optimiser.constant_images(optimiser.epochs * images))])
    stream = UnpairedStream(files, loading(method), 0, turns=turns)
    for epoch, size in enumerate(published):
        for k in (epoch * images, (epoch + 1) * images - 1):
            config = stream.config.in_decay if stream.in_decay(k) else stream.config
            assert config.resized_size == (size, size), (epoch + 1, k)


@pytest.mark.parametrize(
    ("fraction", "total", "expected"),
    [(0.5, 10, 5), (0.5, 11, 6), (0.55, 20, 11), (0.1, 30, 3), (0.0, 9, 0), (1.0, 9, 9), (0.75, 266_800, 200_100)],
)
def test_constant_images_are_counted_by_the_decimal_number(fraction: float, total: int, expected: int) -> None:
    optimiser = OptimiserConfig(constant_fraction=fraction)
    assert optimiser.constant_images(total) == expected
    if 0 < expected < total:
        assert optimiser.factor((expected - 1) / total) == 1.0
        assert optimiser.factor((expected + 1) / total) < 1.0


def test_halving_falls_first_after_a_tenth() -> None:
    optimiser = OptimiserConfig(schedule="halving")
    for total in (7, 10, 99, 1_000_000):
        first = optimiser.constant_images(total)
        assert optimiser.factor(first / total) < 1 == optimiser.factor((first - 1) / total)


@pytest.mark.parametrize(
    ("lengths", "turns"),
    [
        ([(0, 50)], (50,)),
        ([(0, 0)], (0,)),
        ([(0, 50), (100, 200)], (50, 100, 200)),  # extended in the decay: full rate again
        ([(0, 50), (100, 80)], (50,)),  # extended a little: it only falls more slowly
        ([(0, 50), (30, 90)], (90,)),  # extended before the decay
        ([(0, 50), (30, 20)], (30,)),
        ([(0, 50), (50, 90)], (90,)),
        ([(0, 50), (100, 200), (150, 300), (400, 350)], (50, 100, 300)),
    ],
)
def test_turns_of_a_run_that_is_made_longer(lengths: list[tuple[int, int]], turns: tuple[int, ...]) -> None:
    assert decay_turns(lengths) == turns


# ---------------------------------------------------------------------------------------------------------------------
# what is loaded
# ---------------------------------------------------------------------------------------------------------------------
def test_crops_before_the_border_and_the_whole_image_from_it_on(make_files: Make) -> None:
    files = make_files(2, 2, size=(20, 14), flat=False)
    stream = stream_of(files, flip="none")
    always = stream_of(files, turns=(), flip="none")
    whole = [np.asarray(Image.open(path).resize((8, 8), Image.Resampling.BICUBIC)) for path in files.source]
    whole_tensors = [torch.from_numpy(x.transpose(2, 0, 1) / 127.5 - 1).float() for x in whole]
    for k in range(20):
        number = stream.file_numbers(k)[0]
        same = torch.allclose(stream[k]["source"], whole_tensors[number], atol=1e-6)
        assert same == (k >= BORDER)
        assert torch.equal(stream[k]["source"], always[k]["source"]) == (k < BORDER)


def test_flips_go_on(make_files: Make) -> None:
    stream = stream_of(make_files(1, 1, flat=False))
    assert len({stream[k]["source"].numpy().tobytes() for k in range(BORDER, 40)}) == 2


def test_a_kept_shape_is_still_cropped(make_files: Make) -> None:
    stream = stream_of(make_files(1, 1, size=(40, 16), flat=False), resize="scale_shorter_side", flip="none")
    assert stream.config.in_decay.resized_size == (8, 8)
    later = {stream[k]["source"].numpy().tobytes() for k in range(BORDER, 80)}
    assert 9 < len(later) <= 13  # 20 x 8: no room up and down, 13 places from left to right


@pytest.mark.parametrize("resize", ["resize", "crop_only", "none", "zoom_and_crop"])
def test_ways_without_a_load_size_do_not_change(make_files: Make, resize: str) -> None:
    files = make_files(2, 2, size=(8, 8), flat=False)
    stream, always = stream_of(files, resize=resize), stream_of(files, turns=(), resize=resize)
    assert stream.turns == ()
    assert all(torch.equal(pair(stream, k), pair(always, k)) for k in range(14))


def test_nothing_changes_where_images_are_not_enlarged(make_files: Make) -> None:
    for size in (8, "image_size"):
        assert stream_of(make_files(2, 2), load_size=size).turns == ()


def test_several_domains(make_files: Make) -> None:
    files = make_files(3, 3, size=(20, 14), flat=False)
    three = DomainFiles(("a", "b", "c"), (files.source, files.target, files.source[:2]))
    stream = MultiDomainStream(three, UNTIL_DECAY, 1, turns=(BORDER,))
    always = MultiDomainStream(three, UNTIL_DECAY, 1)
    for k in range(14):
        assert torch.equal(stream[k]["source"], always[k]["source"]) == (k < BORDER)


# ---------------------------------------------------------------------------------------------------------------------
# nothing else matters
# ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("turns", [(BORDER,), (0,), (13,), (4, 5, 9)])
@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("cache_gib", [0.0, 1.0, 1e-6])
def test_batches_processes_and_interruptions_do_not_matter(
    make_files: Make, turns: tuple[int, ...], workers: int, cache_gib: float
) -> None:
    files = make_files(3, 5, size=(20, 14), flat=False)
    alone = stream_of(files, turns)
    expected = {k: pair(alone, k) for k in range(13)}
    stream = stream_of(files, turns, num_workers=workers, cache_gib=cache_gib)
    for start, stop, batch_size in ((0, 13, 4), (3, 13, 5), (8, 13, 1), (0, 6, 2), (6, 13, 4)):
        found = collect(stream, start, stop, batch_size)
        assert sorted(found) == list(range(start, stop))
        assert all(torch.equal(found[k], expected[k]) for k in found), (start, stop, batch_size)


@pytest.mark.parametrize("world_size", [2, 3])
def test_a_batch_of_several_processes_may_straddle_the_border(make_files: Make, world_size: int) -> None:
    files = make_files(3, 5, size=(20, 14), flat=False)
    alone = stream_of(files)
    found: dict[int, torch.Tensor] = {}
    for rank in range(world_size):
        found |= collect(stream_of(files), 0, 13, 4, rank=rank, world_size=world_size)
    assert sorted(found) == list(range(13))
    assert all(torch.equal(found[k], pair(alone, k)) for k in found)


# ---------------------------------------------------------------------------------------------------------------------
# memory
# ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("workers", [0, 1])
def test_the_cache_holds_one_kind_at_a_time(make_files: Make, workers: int) -> None:
    stream = stream_of(make_files(4, 4, flat=False), (8,), num_workers=workers)
    collect(stream, 0, 8, 2)
    assert stream.cached_bytes == 8 * 9 * 9 * 3
    collect(stream, 8, 16, 2)
    assert stream.cached_bytes == 8 * 8 * 8 * 3


@pytest.mark.parametrize("workers", [0, 1])
def test_the_budget_holds_on_both_sides(make_files: Make, workers: int) -> None:
    room = 500  # two images of 9 x 9, two of 8 x 8
    stream = stream_of(make_files(4, 4, flat=False), (8,), num_workers=workers, cache_gib=room / 2**30)
    collect(stream, 0, 8, 2)
    assert stream.cached_bytes == 2 * 9 * 9 * 3
    collect(stream, 8, 16, 2)
    assert stream.cached_bytes == 2 * 8 * 8 * 3


def test_each_image_is_read_once_before_and_once_after(make_files: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[tuple[str, tuple[int, int]]] = []
    before = samples_module.load_resized

    def load(path: Path, config: DataConfig, pixels: Any = None) -> np.ndarray:
        reads.append((str(path), config.resized_size))
        return before(path, config, pixels)

    monkeypatch.setattr(samples_module, "load_resized", load)
    stream = stream_of(make_files(3, 3, flat=False), (12,))
    collect(stream, 0, 30, 4)
    assert len(reads) == len(set(reads)) == 12
    reads.clear()
    stream = stream_of(stream.files, (10,))
    collect(stream, 0, 30, 4)  # samples 10 and 11 belong to the decay and to a batch that began before it
    assert len(set(reads)) == 12
    assert len(reads) == 12 + 4
