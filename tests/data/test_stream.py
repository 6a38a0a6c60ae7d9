"""The stream is a function of (seed, k): not of workers, batch sizes, processes, caches or interruptions."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unpaired.data import DataConfig, UnpairedFiles, UnpairedStream, batches, find_training_images
from unpaired.data.cache import SHARED_BY_FORK, ImageCache
from unpaired.data.sets import Several
from unpaired.data.stream import _unless_the_parent_left
from unpaired.errors import ConfigError, DataError

Make = Callable[..., UnpairedFiles]
SMALL = DataConfig(image_size=8, num_workers=0)
SRC = Path(__file__).parents[2] / "src"


def with_workers(count: int, **changes: Any) -> DataConfig:
    return dataclasses.replace(SMALL, num_workers=count, **changes)


def children() -> set[int]:
    return {process.pid for process in multiprocessing.active_children() if process.pid is not None}


def collect(stream: UnpairedStream, start: int, stop: int, batch_size: int, **options: Any) -> dict[int, torch.Tensor]:
    found: dict[int, torch.Tensor] = {}
    for batch in batches(stream, start, stop, batch_size, **options):
        if batch.weight > 0:
            for k, source, target in zip(batch.index.tolist(), batch.source, batch.target, strict=True):
                assert k not in found
                found[k] = torch.stack([source, target])
    return found


def assert_same(left: dict[int, torch.Tensor], right: dict[int, torch.Tensor]) -> None:
    assert sorted(left) == sorted(right)
    for k, tensor in left.items():
        assert torch.equal(tensor, right[k])


def test_sample_contract(make_files: Make) -> None:
    stream = UnpairedStream(make_files(3, 5, flat=False), SMALL, seed=0)
    sample = stream[4]
    assert sorted(sample) == ["index", "source", "target"]
    assert sample["index"] == 4
    for domain in ("source", "target"):
        assert sample[domain].shape == (3, 8, 8)
        assert sample[domain].dtype == torch.float32
        assert -1 <= sample[domain].min() < sample[domain].max() <= 1
    gray = UnpairedStream(stream.files, dataclasses.replace(SMALL, channels=1), seed=0)
    assert gray[0]["source"].shape == (1, 8, 8)


def test_each_pass_uses_every_image_once(make_files: Make) -> None:
    files = make_files(3, 7)
    stream = UnpairedStream(files, SMALL, seed=5)
    assert stream.images_per_epoch == 7
    shown = [(stream[k]["source"][0, 0, 0], stream[k]["target"][0, 0, 0]) for k in range(42)]
    source = [round(float((s + 1) * 127.5)) for s, _ in shown]
    target = [round(float((t + 1) * 127.5)) - 100 for _, t in shown]
    assert list(zip(source, target, strict=True)) == [stream.file_numbers(k) for k in range(42)]
    for count, order in ((3, source), (7, target)):
        passes = [order[first : first + count] for first in range(0, 42, count)]
        assert all(sorted(one) == list(range(count)) for one in passes)
        assert len({tuple(one) for one in passes}) > 2  # a fresh permutation each time
    assert len(set(zip(source, target, strict=True))) > 7  # the domains meet in new combinations


WEIGHTED = [
    ((300, 100), (1, 1)), ((5, 3), (3, 1)), ((7, 900, 40), (0.5, 2, 1)), ((50, 50), (1, 1e-9)), ((1, 2), (1, 1)),
]  # fmt: skip
"""Images of each folder, and weights."""


@pytest.mark.parametrize(("sizes", "weights"), WEIGHTED)
def test_weighted_folders_are_walked_in_passes_of_their_own(sizes: tuple[int, ...], weights: tuple[float, ...]) -> None:
    folders = [tuple(Path(f"{part}/{n}") for n in range(size)) for part, size in enumerate(sizes)]
    other = tuple(Path(f"b/{n}") for n in range(9))
    for role in range(2):
        files = UnpairedFiles(Several(folders, weights), other)
        stream = UnpairedStream(files.swapped() if role else files, SMALL, seed=2)
        shown = [stream.file_numbers(k)[role] for k in range(4000)]
        first = np.cumsum([0, *sizes])
        shares = np.maximum(1, np.round(np.array(weights) / np.sum(weights) * 1000)).astype(int)
        for part, size in enumerate(sizes):
            uses = [(k, n) for k, n in enumerate(shown) if first[part] <= n < first[part + 1]]
            for block in range(4):
                assert abs(sum(k // 1000 == block for k, _ in uses) - shares[part]) <= 1
            for start in range(0, len(uses) - size + 1, size):  # every image once per pass, in a new order
                assert len({n for _, n in uses[start : start + size]}) == size
        backwards = [stream.file_numbers(k)[role] for k in reversed(range(4000))]
        assert backwards[::-1] == shown
        whole = stream.samples_per_pass
        if whole <= 4000:
            assert set(shown[:whole]) == set(range(sum(sizes)))
            assert whole == 9 or set(shown[: whole - 1]) < set(range(sum(sizes)))
        else:
            assert set(shown) < set(range(sum(sizes)))
            assert {stream.file_numbers(k)[role] for k in range(whole - 1, -1, -1)} == set(range(sum(sizes)))


def test_the_order_of_weighted_folders_is_pinned() -> None:
    folders = [tuple(Path(f"{part}/{n}") for n in range(4)) for part in range(2)]
    stream = UnpairedStream(UnpairedFiles(Several(folders, (1, 1)), folders[0]), SMALL, seed=1)
    shown = [stream.file_numbers(k)[0] for k in range(12)]
    assert shown == [0, 1, 4, 6, 2, 3, 1, 2, 0, 5, 7, 3]
    assert stream.samples_per_pass == stream.images_per_epoch == 11


def test_equal_sizes_are_not_paired(make_files: Make) -> None:
    stream = UnpairedStream(make_files(6, 6), SMALL, seed=0)
    assert any(a != b for a, b in map(stream.file_numbers, range(6)))


def test_order_is_pinned(make_files: Make) -> None:
    # Golden: a run that resumes with another version of numpy or of this package must see the same images.
    stream = UnpairedStream(make_files(4, 6), SMALL, seed=1)
    assert [stream.file_numbers(k) for k in range(8)] == [
        (2, 5),
        (0, 3),
        (3, 0),
        (1, 2),
        (3, 1),
        (1, 4),
        (0, 4),
        (2, 1),
    ]
    assert stream.file_numbers(10**15) == stream.file_numbers(10**15)


def test_seeds_differ_and_repeat(make_files: Make) -> None:
    files = make_files(4, 4, flat=False)
    one, again, other = (UnpairedStream(files, SMALL, seed) for seed in (0, 0, 1))
    backwards = {k: again[k] for k in reversed(range(12))}
    assert all(torch.equal(one[k]["source"], backwards[k]["source"]) for k in range(12))
    assert any(not torch.equal(one[k]["source"], other[k]["source"]) for k in range(12))


def test_crops_and_flips_change_from_pass_to_pass(make_files: Make) -> None:
    stream = UnpairedStream(make_files(1, 1, flat=False), SMALL, seed=0)
    assert len({stream[k]["source"].numpy().tobytes() for k in range(16)}) > 3
    still = UnpairedStream(stream.files, dataclasses.replace(SMALL, load_size=8, flip="none"), seed=0)
    assert len({still[k]["source"].numpy().tobytes() for k in range(16)}) == 1
    flipping = UnpairedStream(stream.files, dataclasses.replace(SMALL, load_size=8), seed=0)
    mirrored = sum(not torch.equal(flipping[k]["source"], still[0]["source"]) for k in range(200))
    assert 60 < mirrored < 140


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("cache_gib", [0.0, 1.0, 1e-6])
def test_workers_and_cache_do_not_matter(make_files: Make, workers: int, cache_gib: float) -> None:
    files = make_files(3, 5, flat=False)
    expected = {
        k: torch.stack([s["source"], s["target"]]) for k in range(13) for s in [UnpairedStream(files, SMALL, 3)[k]]
    }
    stream = UnpairedStream(files, with_workers(workers, cache_gib=cache_gib), seed=3)
    assert_same(collect(stream, 0, 13, 4), expected)
    assert_same(collect(stream, 0, 13, 4), expected)  # now from the cache
    assert stream.cached_bytes == {0.0: 0, 1.0: 8 * 9 * 9 * 3, 1e-6: 4 * 9 * 9 * 3}[cache_gib]


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 4])
def test_union_over_processes_is_the_same(make_files: Make, world_size: int, batch_size: int) -> None:
    stream = UnpairedStream(make_files(3, 5, flat=False), SMALL, seed=3)
    expected = collect(stream, 2, 13, 11)
    assert sorted(expected) == list(range(2, 13))
    union: dict[int, torch.Tensor] = {}
    steps = set()
    for rank in range(world_size):
        part = collect(stream, 2, 13, batch_size, rank=rank, world_size=world_size)
        assert not set(part) & set(union)
        union |= part
        steps.add(sum(1 for _ in batches(stream, 2, 13, batch_size, rank, world_size)))
    assert_same(union, expected)
    assert steps == {-(-11 // batch_size)}  # every process takes every step


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
@pytest.mark.parametrize("batch_size", [1, 3, 4, 7])
def test_weighted_mean_over_processes_is_the_global_mean(make_files: Make, world_size: int, batch_size: int) -> None:
    stream = UnpairedStream(make_files(3, 5, flat=False), SMALL, seed=3)
    ranks = [list(batches(stream, 1, 11, batch_size, rank, world_size)) for rank in range(world_size)]
    for step, whole in enumerate(batches(stream, 1, 11, batch_size)):
        parts = [rank[step] for rank in ranks]
        assert whole.weight == 1
        assert {part.global_size for part in parts} == {len(whole.index)}
        assert all(len(part.index) >= 1 for part in parts)
        mean = sum(part.weight * part.source.mean().item() for part in parts) / world_size
        assert mean == pytest.approx(whole.source.mean().item(), abs=1e-6)
    sizes = [len(batch.index) for batch in batches(stream, 1, 11, batch_size)]
    assert sizes == [batch_size] * (10 // batch_size) + ([10 % batch_size] if 10 % batch_size else [])


def test_continuing_in_the_middle(make_files: Make) -> None:
    stream = UnpairedStream(make_files(3, 5, flat=False), with_workers(1), seed=3)
    assert_same(collect(stream, 0, 7, 2) | collect(stream, 7, 12, 2), collect(stream, 0, 12, 3))
    assert list(batches(stream, 5, 5, 2)) == []


def test_batch_to_device(make_files: Make) -> None:
    stream = UnpairedStream(make_files(2, 2), SMALL, seed=0)
    batch = next(batches(stream, 0, 2, 2))
    moved = batch.to("meta")
    assert moved.source.device.type == moved.target.device.type == "meta"
    assert torch.equal(moved.index, torch.tensor([0, 1]))
    assert (moved.weight, moved.global_size) == (1.0, 2)
    assert batch.index.dtype == torch.int64


def test_arguments_are_checked_at_once(make_files: Make) -> None:
    files = make_files(2, 2)
    stream = UnpairedStream(files, SMALL, seed=0)
    with pytest.raises(ConfigError, match="batch_size is 0"):
        batches(stream, 0, 4, 0)
    with pytest.raises(ValueError, match="rank 2 of 2"):
        batches(stream, 0, 4, 1, rank=2, world_size=2)
    with pytest.raises(ConfigError, match="seed is -1"):
        UnpairedStream(files, SMALL, seed=-1)
    with pytest.raises(DataError, match="the target domain has no image"):
        UnpairedStream(UnpairedFiles(files.source, ()), SMALL, seed=0)
    with pytest.raises(IndexError):
        stream[-1]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_bad_file_surfaces_as_it_is(make_files: Make, workers: int) -> None:
    files = make_files(3, 3)
    files.target[1].write_bytes(b"no image at all")
    with pytest.raises(DataError) as caught:
        list(batches(UnpairedStream(files, with_workers(workers), seed=0), 0, 9, 2))
    assert str(caught.value).startswith(str(files.target[1]))
    assert "content is text" in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert not children()


@pytest.mark.parametrize("how", ["break", "close", "exception", "drop"])
def test_loading_processes_end_when_the_consumer_stops(make_files: Make, how: str) -> None:
    stream = UnpairedStream(make_files(3, 3), with_workers(2), seed=0)
    before = children()
    iterator = batches(stream, 0, 10_000, 2)
    next(iterator)
    assert len(children() - before) == 2
    began = time.perf_counter()
    if how == "break":
        for _ in iterator:
            break
        del iterator
    elif how == "close":
        iterator.close()  # type: ignore[attr-defined]
    elif how == "exception":
        with pytest.raises(KeyboardInterrupt):
            iterator.throw(KeyboardInterrupt())  # type: ignore[attr-defined]
    else:
        del iterator
    assert not children() - before
    assert time.perf_counter() - began < 4


def test_a_killed_process_is_explained(make_files: Make) -> None:
    stream = UnpairedStream(make_files(3, 3), with_workers(2), seed=0)
    before = children()
    iterator = batches(stream, 0, 100_000, 2)
    next(iterator)
    victim = min(children() - before)
    os.kill(victim, signal.SIGKILL)
    time.sleep(0.2)  # the training loop is elsewhere meanwhile, and nothing may be raised there
    with pytest.raises(DataError, match=r"a process that prepares images died .* lower num_workers"):
        for _ in iterator:
            pass
    assert not children() - before


def run_script(tmp_path: Path, files: UnpairedFiles, body: str) -> subprocess.Popen[str]:
    script = tmp_path / "consumer.py"
    script.write_text(
        "import os, signal, sys, time, torch\n"
        "from pathlib import Path\n"
        "from unpaired.data import *\n"
        f"files = find_training_images({str(files.source[0].parents[1])!r})\n" + textwrap.dedent(body)
    )
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", str(script)],
        env=os.environ | {"PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "2"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="signals to a process group are a POSIX matter")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_signals_to_the_whole_group_reach_only_the_parent(tmp_path: Path, make_files: Make, name: str) -> None:
    body = f"""
    class Stop(BaseException): pass
    def stop(*_): raise Stop
    signal.signal(signal.{name}, stop)
    stream = UnpairedStream(files, DataConfig(image_size=8, num_workers=2), 0)
    try:
        for number, batch in enumerate(batches(stream, 0, 10**9, 2)):
            if number == 0:
                print("ready", flush=True)
            time.sleep(0.01)
    except Stop:
        import multiprocessing
        print("stopped", len(multiprocessing.active_children()), flush=True)
    """
    process = run_script(tmp_path, make_files(3, 3), body)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    os.killpg(process.pid, getattr(signal, name))
    out, err = process.communicate(timeout=30)
    assert out == "stopped 0\n"
    assert err == ""
    assert process.returncode == 0


@pytest.mark.skipif(not SHARED_BY_FORK, reason="processes are forked on Linux only")
def test_fork_after_openmp_was_used(tmp_path: Path, make_files: Make) -> None:
    body = """
    torch.set_num_threads(2)
    for _ in range(3):
        torch.randn(512, 512) @ torch.randn(512, 512)
        torch.randn(2_000_000).exp().sum()  # starts the OpenMP threads that a forked process does not have
    stream = UnpairedStream(files, DataConfig(image_size=128, num_workers=2), 0)
    print(sum(len(batch.index) for batch in batches(stream, 0, 24, 4)))
    """
    out, err = run_script(tmp_path, make_files(3, 3), body).communicate(timeout=60)
    assert out == "24\n"
    assert err == ""


@pytest.mark.parametrize("workers", [0, 1])
def test_global_random_numbers_are_left_alone(make_files: Make, workers: int) -> None:
    files = make_files(2, 2)
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index, union-attr]
    list(batches(UnpairedStream(files, with_workers(workers), seed=0), 0, 8, 2))
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # type: ignore[index, arg-type]


def test_no_process_without_workers(make_files: Make) -> None:
    before = children()
    iterator = batches(UnpairedStream(make_files(2, 2), SMALL, seed=0), 0, 8, 2)
    next(iterator)
    assert children() == before


@pytest.mark.skipif(not SHARED_BY_FORK, reason="the cache is shared by fork")
def test_loading_processes_fill_one_cache(make_files: Make) -> None:
    files = make_files(4, 4, flat=False)
    stream = UnpairedStream(files, with_workers(2), seed=0)
    expected = collect(stream, 0, 8, 2)
    assert stream.cached_bytes == 8 * 9 * 9 * 3
    for path in (*files.source, *files.target):
        path.unlink()
    assert_same(collect(stream, 0, 8, 2), expected)


def test_pickled_stream_gives_the_same_samples(make_files: Make) -> None:
    stream = UnpairedStream(make_files(3, 3, flat=False), with_workers(2), seed=0)
    copy = pickle.loads(pickle.dumps(stream))  # what happens where processes are spawned
    assert torch.equal(copy[5]["target"], stream[5]["target"])


def test_cache_keeps_what_fits_and_guards_it() -> None:
    cache = ImageCache(3, 40)
    loads = []

    def load(number: int) -> np.ndarray:
        loads.append(number)
        return np.full((2, 3, 3), number, np.uint8)

    for number in (0, 1, 2, 0, 1, 2):
        pixels = cache.get(number, lambda number=number: load(number))
        assert (pixels == number).all()
        with pytest.raises(ValueError, match="read-only"):
            pixels[0, 0, 0] = 9
    assert loads == [0, 1, 2, 2]
    assert cache.used_bytes == 36


def test_real_photos(shared_data: Callable[[str], Path]) -> None:
    files = find_training_images(shared_data("horse2zebra"))
    stream = UnpairedStream(files, DataConfig(image_size=128), seed=0)
    assert stream.images_per_epoch == 1334
    batch = next(batches(stream, 0, 4, 4))
    assert batch.source.shape == batch.target.shape == (4, 3, 128, 128)
    assert batch.source.std() > 0.1


def test_a_loading_process_does_not_complain_that_its_parent_left(capsys: pytest.CaptureFixture[str]) -> None:
    _unless_the_parent_left(ConnectionResetError, ConnectionResetError("reset by peer"), None)
    assert capsys.readouterr().err == ""
    _unless_the_parent_left(ValueError, ValueError("something else"), None)
    assert "ValueError: something else" in capsys.readouterr().err
