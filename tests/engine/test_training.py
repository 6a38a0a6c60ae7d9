"""Training for real, tiny: resume to the bit, processes, interruption, and what must stop it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from tiny import tiny_run, write_images
from unpaired.config import save_yaml
from unpaired.engine.checkpoint import read_checkpoint
from unpaired.errors import BackendError, CheckpointError, ConfigError, DataError, TrainingError
from unpaired.inference import Translator
from unpaired.methods import METHODS
from unpaired.methods.cut import CUT
from unpaired.training import RunConfig, train


def final_state(run: Path) -> dict[str, Any]:
    return read_checkpoint(sorted((run / "checkpoints").glob("*.pt"))[-1])


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {k: v for key, inner in value.items() for k, v in flat(inner, f"{prefix}{key}.").items()}
    if isinstance(value, list | tuple):
        return flat(dict(enumerate(value)), prefix)
    return {prefix: value}


def assert_same(one: dict[str, Any], other: dict[str, Any], **tolerance: float) -> None:
    one, other = flat(one), flat(other)
    assert one.keys() == other.keys()
    for key, value in one.items():
        if isinstance(value, torch.Tensor) and tolerance:
            torch.testing.assert_close(value, other[key], **tolerance, msg=lambda m, key=key: f"{key}: {m}")
        elif isinstance(value, torch.Tensor):
            assert torch.equal(value, other[key]), key
        else:
            assert value == other[key], key


def terms(run: Path) -> list[dict[str, float]]:
    return [json.loads(line)["terms"] for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_resumes_to_the_bit_and_translates(method: str, dataset: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(tiny_run(dataset, method), whole, quiet=True).finished
    first = train(tiny_run(dataset, method, stop_after=3), parts, quiet=True)
    assert (first.images_seen, first.finished, first.interrupted) == (3, False, False)
    assert train(tiny_run(dataset, method), parts, quiet=True).finished
    assert_same(final_state(whole), final_state(parts))
    assert terms(whole) == terms(parts)
    names = {
        "checkpoints",
        "files.json",
        "log.jsonl",
        "run.yaml",
        "samples",
        "sessions.jsonl",
        "tensorboard",
        "weights",
    }
    assert names == {p.name for p in whole.iterdir() if not p.name.startswith(".lock")}
    assert len((parts / "sessions.jsonl").read_text().splitlines()) == 2
    assert [p.name for p in (whole / "samples").iterdir()] == ["000000004.png"]
    assert RunConfig.load(whole / "run.yaml") == tiny_run(dataset, method)
    x = torch.rand(3, 40, 36) * 2 - 1
    assert Translator.from_pretrained(whole).translate(x).shape == x.shape
    assert not torch.equal(
        Translator.from_pretrained(whole).translate(x), Translator.from_pretrained(whole, weights="last").translate(x)
    )


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("qs_attn", {"image_pool": 2, "batch_size": 2, "images": 7}),
        ("fastcut", {"image_pool": 3, "batch_size": 3}),
        ("cut", {"precision": "bf16-mixed"}),
        ("qs_attn", {"attention": "local", "num_workers": 1, "batch_size": 2}),
        ("cyclegan", {"image_pool": 2, "batch_size": 2, "images": 9}),
        ("dclgan_qs_attn", {"image_pool": 2, "precision": "bf16-mixed"}),
        ("cyclegan", {"generator": "light", "discriminator": "projected_patch", "head_channels": 4, "batch_size": 2}),
        ("dclgan", {"discriminator": "projected", "head_channels": 4, "precision": "bf16-mixed"}),
    ],
)
def test_resume_is_exact_in_other_configurations(
    method: str, changes: dict[str, Any], dataset: Path, tmp_path: Path
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(tiny_run(dataset, method, **changes), whole, quiet=True)
    assert not train(tiny_run(dataset, method, **changes, stop_after=3), parts, quiet=True).finished
    train(tiny_run(dataset, method, **changes), parts, quiet=True)
    assert_same(final_state(whole), final_state(parts))


@pytest.mark.parametrize("backbone", ["torchvision:mobilenet_v3_small", "timm:resnet10t", "timm:vit_tiny_patch16_224"])
def test_a_backbone_from_a_file_that_may_move_is_needed_for_training_alone(
    backbone: str, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, _, model = backbone.partition(":")
    if kind == "timm":
        import timm

        state = timm.create_model(model).state_dict()
    else:
        state = torchvision.models.get_model(model, weights=None).state_dict()
    first, second = tmp_path / "first.pth", tmp_path / "second.pth"
    torch.save(state, first)
    changes: dict[str, Any] = {"discriminator": "projected", "backbone": backbone, "head_channels": 4, "images": 4}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(tiny_run(dataset, "cut", backbone_weights=first, **changes), whole, quiet=True)
    train(tiny_run(dataset, "cut", backbone_weights=first, stop_after=2, **changes), parts, quiet=True)
    first.rename(second)
    with pytest.raises(BackendError, match=r"first\.pth does not exist"):
        train(tiny_run(dataset, "cut", backbone_weights=first, **changes), parts, quiet=True)
    train(tiny_run(dataset, "cut", backbone_weights=second, **changes), parts, quiet=True)
    assert_same(final_state(whole), final_state(parts))
    second.unlink()
    monkeypatch.setitem(sys.modules, "timm", None)
    x = torch.rand(3, 40, 36) * 2 - 1
    assert Translator.from_pretrained(whole).translate(x).shape == x.shape


def test_a_pool_refuses_several_processes(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="devices: 2 asked for, but image_pool"):
        train(tiny_run(dataset, image_pool=5, devices=2), tmp_path / "run", quiet=True)


def test_a_method_that_compares_the_images_of_a_batch_refuses_a_single_one(dataset: Path, tmp_path: Path) -> None:
    for changes in ({"batch_size": 1}, {"batch_size": 3, "devices": 2}):
        with pytest.raises(ConfigError, match=r"batch_size: SinCUT compares .* at least 2 in each process"):
            train(tiny_run(dataset, "sincut", num_queries=1, **changes), tmp_path / "run", quiet=True)
    assert train(tiny_run(dataset, "sincut", num_queries=1, batch_size=2), tmp_path / "run", quiet=True).finished


def test_a_set_with_only_one_test_folder_trains(dataset: Path, tmp_path: Path) -> None:
    shutil.rmtree(dataset / "testB")
    assert train(tiny_run(dataset, images=2), tmp_path / "run", quiet=True).finished


def test_the_same_seed_gives_the_same_run_and_another_seed_another(dataset: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(tiny_run(dataset, images=2, seed=seed), tmp_path / name, quiet=True)
    assert_same(final_state(tmp_path / "a"), final_state(tmp_path / "b"))
    assert terms(tmp_path / "a") != terms(tmp_path / "c")


def test_loading_processes_change_nothing(dataset: Path, tmp_path: Path) -> None:
    for name, workers in (("a", 0), ("b", 2)):
        train(tiny_run(dataset, num_workers=workers, images=4), tmp_path / name, quiet=True)
    assert_same(final_state(tmp_path / "a"), final_state(tmp_path / "b"))


def test_a_short_last_batch_is_trained_on(dataset: Path, tmp_path: Path) -> None:
    result = train(tiny_run(dataset, batch_size=4, images=6), tmp_path / "run", quiet=True)
    assert result.images_seen == 6
    assert len(terms(tmp_path / "run")) == 2


def test_resume_after_damage_goes_on_from_the_checkpoint_before(dataset: Path, tmp_path: Path) -> None:
    whole, damaged = tmp_path / "whole", tmp_path / "damaged"
    train(tiny_run(dataset), whole, quiet=True)
    train(tiny_run(dataset, stop_after=5), damaged, quiet=True)
    newest = sorted((damaged / "checkpoints").glob("*.pt"))[-1]
    newest.write_bytes(newest.read_bytes()[:-1])
    train(tiny_run(dataset), damaged, quiet=True)
    assert_same(final_state(whole), final_state(damaged))
    assert terms(whole) == terms(damaged)  # the log was cut back to the checkpoint, too


def test_a_finished_run_is_left_as_it_is(dataset: Path, tmp_path: Path) -> None:
    train(tiny_run(dataset), tmp_path / "run", quiet=True)
    before = final_state(tmp_path / "run")
    assert train(tiny_run(dataset), tmp_path / "run", quiet=True).images_seen == 6
    assert_same(before, final_state(tmp_path / "run"))


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"learning": 1}, ConfigError, r"model.base_channels was 4, now 8"),
        ({"method": "cut"}, CheckpointError, "holds a run of the method 'qs_attn', not 'cut'"),
        ({"files": 1}, DataError, r"differ from those that the run .*added: image5\.png"),
        ({"full": 1}, ConfigError, "not empty and holds no run"),
    ],
)
def test_another_run_in_the_same_folder_is_refused(
    dataset: Path, tmp_path: Path, changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    run = tmp_path / "run"
    config = tiny_run(dataset, images=2)
    if "full" in changes:
        run.mkdir()
        (run / "thesis.txt").write_text("mine")
    else:
        train(config, run, quiet=True)
    if "files" in changes:
        write_images(dataset / "trainA", 6, seed=1)
    if "learning" in changes:
        config = tiny_run(dataset, images=2, base_channels=8)
    if "method" in changes:
        config = tiny_run(dataset, "cut", images=2)
    with pytest.raises(error, match=words):
        train(config, run, quiet=True)


def test_a_loss_that_is_not_finite_stops_names_the_term_and_keeps_the_last_checkpoint(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = CUT.generator_loss, []

    def broken(self: CUT, outputs: Any) -> dict[str, torch.Tensor]:
        found = original(self, outputs)
        calls.append(1)
        return {**found, "contrastive": found["contrastive"] * float("nan")} if len(calls) == 4 else found

    monkeypatch.setattr(CUT, "generator_loss", broken)
    run = tmp_path / "run"
    with pytest.raises(TrainingError, match=r"'contrastive' is not finite at image 4.*checkpoint_000000002\.pt"):
        train(tiny_run(dataset, log_every=3), run, quiet=True)
    assert [p.name for p in (run / "checkpoints").iterdir()] == ["checkpoint_000000002.pt"]
    assert all(value.isfinite().all() for value in flat(final_state(run)).values() if isinstance(value, torch.Tensor))


def test_cuda_is_refused_where_there_is_none(dataset: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(BackendError, match="'cuda' was asked for, but this machine has no usable CUDA device"):
        train(tiny_run(dataset, accelerator="cuda"), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_bf16_mixed_trains(dataset: Path, tmp_path: Path) -> None:
    train(tiny_run(dataset, precision="bf16-mixed", images=3), tmp_path / "run", quiet=True)
    train(tiny_run(dataset, images=3), tmp_path / "full", quiet=True)
    mixed, full = terms(tmp_path / "run"), terms(tmp_path / "full")
    assert mixed[0] == pytest.approx(full[0], rel=0.05)  # later steps part: a tiny network at its start is chaotic
    assert all(abs(value) < 100 for record in mixed for value in record.values())


def test_an_unwritable_run_folder_is_named(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="cannot write to the run folder"):
        train(tiny_run(dataset), tmp_path / "file" / "run", quiet=True)


def command(config: RunConfig, run: Path, *options: str) -> list[str]:
    path = run.with_suffix(".yaml")
    save_yaml(path, config.to_mapping())
    data = str(config.dataset.folder)
    return [sys.executable, "-m", "unpaired", "train", data, "--out", str(run), "--config", str(path), *options]


def run_command(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, capture_output=True, text=True, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes", [{}, {"discriminator": "projected_patch", "head_channels": 4, "identity_interval": 2}]
)
def test_two_processes_learn_what_one_learns_and_resume_across_a_change_of_count(
    changes: dict[str, Any], dataset: Path, tmp_path: Path
) -> None:
    # The last batch leaves one process without an image. Three steps: sums are taken in another order, and training
    # multiplies that rounding by about ten in each, until it even chooses other locations.
    config = tiny_run(dataset, batch_size=2, images=5, **changes)
    single, double, mixed = tmp_path / "single", tmp_path / "double", tmp_path / "mixed"
    train(config, single, quiet=True)
    answer = run_command(command(config, double, "--devices", "2"))
    assert answer.returncode == 0, answer.stderr
    answer = run_command(command(config, mixed, "--devices", "2", "--stop-after", "4"))
    assert answer.returncode == 0, answer.stderr
    train(config, mixed, quiet=True)
    for other in (double, mixed):
        for one, two in zip(terms(single), terms(other), strict=True):
            assert two == pytest.approx(one, rel=1e-4 if changes else 1e-5)  # other batches through a deep network
        # A bias before an instance norm has no true gradient, so Adam walks it by rounding noise: weights only.
        one, two = (
            {key: value for key, value in final_state(run)["state"]["method"].items() if key.endswith("weight")}
            for run in (single, other)
        )
        assert_same(one, two, rtol=1e-2, atol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="names of threads are read from /proc")
def test_no_thread_of_several_processes_outlives_the_interpreter(dataset: Path, tmp_path: Path) -> None:
    # One that frees a tensor after that aborts the process ("terminate called without an active exception").
    script, run = tmp_path / "script.py", tmp_path / "run"
    script.write_text("""
import atexit, sys
from pathlib import Path

def threads():
    print("threads", [file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")])

atexit.register(threads)  # called last
from unpaired.cli import main

raise SystemExit(main(sys.argv[1:]))
""")
    arguments = command(tiny_run(dataset, batch_size=2, images=4), run, "--devices", "2")[3:]
    answer = run_command([sys.executable, str(script), *arguments])
    assert answer.returncode == 0, answer.stderr
    said = [line for line in answer.stdout.splitlines() if line.startswith("threads")]
    assert len(said) == 2
    assert not [line for line in said if "gloo" in line], said


@pytest.mark.slow
def test_a_failure_in_one_process_ends_the_other_with_one_line(dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = tiny_run(dataset, batch_size=2, images=100_000, cache_gib=0.0, checkpoint_every=50_000)
    process = subprocess.Popen(
        command(config, run, "--devices", "2"), stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    while not (run / "log.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.05)
    bad = config.dataset.training_files().source[0]  # good when training began
    bad.write_bytes(bad.read_bytes()[:100])
    _, said = process.communicate(timeout=240)
    assert process.returncode != 0
    assert bad.name in said
    assert "Traceback" not in said, said


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_is_saved_and_goes_on_to_the_same_end(
    dataset: Path, tmp_path: Path, number: signal.Signals
) -> None:
    config = tiny_run(dataset, images=400, checkpoint_every=400, sample_every=1000)
    run = tmp_path / "run"
    process = subprocess.Popen(
        command(config, run), stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    log = run / "log.jsonl"
    deadline = time.monotonic() + 120
    while not (log.exists() and log.read_text().count("\n") > 3):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number, said
    assert "Stopped and saved after" in said
    assert "Traceback" not in said
    seen = final_state(run)["images_seen"]
    assert 3 < seen < 400
    whole = tmp_path / "whole"
    shutil.copytree(run, tmp_path / "again")
    short = seen + 3
    for folder in (tmp_path / "again", whole):
        train(
            tiny_run(dataset, images=400, checkpoint_every=400, sample_every=1000, stop_after=short), folder, quiet=True
        )
    assert_same(final_state(tmp_path / "again"), final_state(whole))
