"""--precision auto: what it becomes on which machine, that it is asked once, and that asking changes nothing else."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tiny import equal, tiny_run, tiny_settings, trained
from unpaired.engine import precision
from unpaired.engine.precision import choose_precision, step_time_ratio
from unpaired.environment import has_fast_bf16
from unpaired.errors import ConfigError
from unpaired.methods import METHODS
from unpaired.training import RunConfig, train

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def never() -> float:
    raise AssertionError("nothing is to be measured here")


@pytest.fixture
def bf16_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_fast_bf16", lambda: True)


def says(monkeypatch: pytest.MonkeyPatch, ratio: float) -> list[Any]:
    """Let the measurement answer ``ratio``; the list grows with every call."""
    calls: list[Any] = []
    monkeypatch.setattr("unpaired.session.step_time_ratio", lambda *args, **options: calls.append(args) or ratio)
    return calls


@pytest.mark.parametrize(("ratio", "chosen"), [(0.31, "bf16-mixed"), (0.89, "bf16-mixed"), (0.95, "32"), (1.4, "32")])
def test_the_faster_wins_on_a_cpu_that_has_bf16(bf16_machine: None, ratio: float, chosen: str) -> None:
    found, line = choose_precision(CPU, lambda: ratio)
    assert found == chosen
    assert line.startswith(f"Precision: {chosen} (")
    assert f"{ratio:.2f} of the time of float32" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("capabilities", "fast"),
    [({}, False), ({"avx512_f": True}, False), ({"avx512_bf16": True}, True), ({"amx_bf16": True}, True)],
)
def test_without_instructions_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], fast: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert has_fast_bf16() is fast
    if not fast:
        assert choose_precision(CPU, never) == (
            "32",
            "Precision: 32 (this processor has neither AMX nor AVX512-BF16)",
        )


def test_an_older_torch_is_asked_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    for supported in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda supported=supported: supported)
        assert has_fast_bf16() is supported


@pytest.mark.parametrize(("supported", "chosen"), [(True, "bf16-mixed"), (False, "32")])
def test_a_gpu_takes_bf16_where_it_has_it(monkeypatch: pytest.MonkeyPatch, supported: bool, chosen: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: supported)
    assert choose_precision(CUDA, never).precision == chosen
    assert choose_precision(torch.device("mps"), never).precision == "32"


def tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return dict((*model.named_parameters(), *model.named_buffers()))


@pytest.mark.parametrize("method", METHODS)
def test_measuring_leaves_the_method_and_all_generators_as_they_are(method: str) -> None:
    config = METHODS[method].Config(**tiny_settings(method))
    model = METHODS[method](config, channels=3)
    model.prepare()
    before = {key: value.clone() for key, value in tensors(model).items()}
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()
    batch_size = max(2, model.smallest_batch)
    ratio = step_time_ratio(model, config.optimiser, 3, (32, 36), batch_size=batch_size, budget=0.05)
    assert 0 < ratio < 1000
    assert equal(before, tensors(model))
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert all(np.array_equal(a, b) for a, b in zip(states[2], np.random.get_state(), strict=True))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(parameter.is_contiguous(memory_format=torch.channels_last) and not parameter.is_contiguous()
                   for parameter in model.parameters() if parameter.ndim == 4)  # fmt: skip


def test_crops_grow_only_as_far_as_the_time_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    now, sizes = [0.0], list[tuple[int, int]]()

    class Steps:
        def __init__(self, method: Any, optimiser: Any, precision: str) -> None:
            self.factor = 1.0 if precision == "32" else 0.25

        def __call__(self, source: torch.Tensor, target: torch.Tensor) -> float:
            height, width = source.shape[2:]
            sizes.append((height, width))
            taken = self.factor * height * width / 65536 * 8  # a float32 step of 256 x 256 pixels takes 8 seconds
            now[0] += taken
            return taken

    monkeypatch.setattr(precision, "_Steps", Steps)
    monkeypatch.setattr(precision.time, "perf_counter", lambda: now[0])
    method = METHODS["qs_attn"](METHODS["qs_attn"].Config(**tiny_settings("qs_attn")), channels=3)
    assert step_time_ratio(method, method.config.optimiser, 3, (256, 256)) == pytest.approx(0.25)
    assert now[0] < 10.5
    assert max(sizes) == (128, 128)  # a pair of 256 x 256 pixels would have taken all of it
    sizes.clear()
    step_time_ratio(method, method.config.optimiser, 3, (256, 256), budget=100)
    assert max(sizes) == (256, 256)


def test_the_choice_is_made_once_recorded_and_changes_nothing_else(
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bf16_machine: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    explicit, whole, parts = tmp_path / "explicit", tmp_path / "whole", tmp_path / "parts"
    train(tiny_run(dataset, precision="bf16-mixed"), explicit, quiet=True)
    measured = step_time_ratio
    monkeypatch.setattr("unpaired.session.step_time_ratio", lambda *a, **o: 0 * measured(*a, **o, budget=0.1) + 0.5)
    train(tiny_run(dataset, precision="auto"), whole)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Precision:")]
    assert lines == ["Precision: bf16-mixed (a step takes 0.50 of the time of float32 here)"]
    assert RunConfig.load(whole / "run.yaml").training.precision == "bf16-mixed"
    train(tiny_run(dataset, precision="auto", stop_after=3), parts, quiet=True)
    assert capsys.readouterr().err == ""
    calls = says(monkeypatch, 5.0)  # measured again, it would come out otherwise
    train(tiny_run(dataset, precision="auto"), parts, quiet=True)
    assert not calls
    assert RunConfig.load(parts / "run.yaml").training.precision == "bf16-mixed"
    assert equal(trained(whole), trained(parts))
    assert equal(trained(whole), trained(explicit))


def test_a_run_whose_choice_was_float32_stays_there(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bf16_machine: None
) -> None:
    says(monkeypatch, 1.2)
    run, plain = tmp_path / "run", tmp_path / "plain"
    train(tiny_run(dataset, precision="auto", stop_after=3), run, quiet=True)
    says(monkeypatch, 0.2)
    train(tiny_run(dataset, precision="auto"), run, quiet=True)
    train(tiny_run(dataset), plain, quiet=True)
    assert RunConfig.load(run / "run.yaml").training.precision == "32"
    assert equal(trained(run), trained(plain))
    with pytest.raises(ConfigError, match=r"training\.precision was '32', now 'bf16-mixed'"):
        train(tiny_run(dataset, precision="bf16-mixed"), run, quiet=True)


def test_the_first_process_decides_for_all(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bf16_machine: None
) -> None:
    """A process that is not the first never measures: it takes what the first wrote down."""
    import unpaired.training as training

    says(monkeypatch, 0.3)
    run = tmp_path / "run"
    train(tiny_run(dataset, precision="auto", images=2), run, quiet=True)
    calls, taken = says(monkeypatch, 9.0), list[str]()
    monkeypatch.setattr(training, "on_rank_zero", lambda fabric, action: frozenset())  # as in the second process
    monkeypatch.setattr(training, "as_begun", lambda config, out: config)  # which starts before the file is there
    monkeypatch.setattr(
        training, "fit", lambda method, stream, config, *args, **options: taken.append(config.precision)
    )
    train(tiny_run(dataset, precision="auto", images=2), run, quiet=True)
    assert (calls, taken) == ([], ["bf16-mixed"])
