"""Compiled and recorded steps learn what plain steps learn; what needs a GPU is refused without one, by name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image

from tiny import tiny_run
from unpaired.config import to_dict
from unpaired.data import image_to_tensor
from unpaired.engine import examples
from unpaired.engine.acceleration import RecordedSteps, compile_networks
from unpaired.engine.callbacks import Training
from unpaired.engine.monitors import Monitor
from unpaired.engine.step import make_optimizers, set_learning_rate, settle_optimizers, training_step
from unpaired.errors import BackendError, ConfigError
from unpaired.length import TrainingLength
from unpaired.methods import METHODS, ImageBatch, Method, image_seeds
from unpaired.ops import winograd
from unpaired.run_config import flat
from unpaired.training import train

TINY: dict[str, Any] = {"base_channels": 4, "blocks": 5, "num_queries": 16, "projector_width": 8}
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def make(name: str = "qs_attn", **changes: Any) -> Method:
    torch.manual_seed(0)
    return METHODS[name](METHODS[name].Config(**TINY, **changes))


def batch(number: int, images: int = 1, device: str = "cpu") -> ImageBatch:
    generator = torch.Generator().manual_seed(number)
    source, target = torch.rand(2, images, 3, 32, 32, generator=generator) * 2 - 1
    return ImageBatch(source.to(device), target.to(device), image_seeds(0, range(number, number + images)))


def learn(step: Callable[..., Any], optimizers: dict[str, torch.optim.Optimizer]) -> list[dict[str, float]]:
    """Six steps at a falling rate; the last batch is a larger one."""
    found = []
    for number in range(6):
        set_learning_rate(optimizers, 2e-4 / (1 + number))
        terms = step(batch(number, 2 if number == 5 else 1), number=number)
        found.append({name: value.item() for name, value in terms.items()})
    return found


def plain(method: Method) -> list[dict[str, float]]:
    optimizers = make_optimizers(method, method.config.optimiser)
    return learn(lambda images, number: training_step(method, optimizers, images, number=number), optimizers)


@pytest.mark.parametrize("name", ["qs_attn", "cut"])
def test_recorded_steps_learn_each_batch_once(name: str) -> None:
    """Without a GPU a recording is the function itself: buffers, learning rates and kinds of steps are tested so."""
    method, other = make(name), make(name)
    optimizers = make_optimizers(method, method.config.optimiser)
    settle_optimizers(optimizers, recorded=True)
    recorded: list[Callable[[], None]] = []

    def record(step: Callable[[], None]) -> Callable[[], None]:
        recorded.append(step)
        return step

    steps = RecordedSteps(method, optimizers, eager_steps=2, record=record)
    for one, two in zip(learn(steps, optimizers), plain(other), strict=True):
        assert one == pytest.approx(two, rel=1e-3)
    assert len(recorded) == 2  # one image, and two
    for parameter, expected in zip(method.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected, rtol=1e-2, atol=2e-5)


@pytest.mark.parametrize("changes", [{}, {"discriminator": "projected_patch", "head_channels": 4}])
def test_a_recorded_step_copies_nothing_from_the_host(changes: dict[str, Any]) -> None:
    """Random locations are drawn from seeds on the device: the same on every device, and no copy inside a recording."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class NoReads(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            assert "_local_scalar_dense" not in str(function), "the host waits for a value"
            return function(*args, **(kwargs or {}))

    method = make("cut", **changes)
    method.prepare()
    optimizers = make_optimizers(method, method.config.optimiser)
    settle_optimizers(optimizers, recorded=True)
    training_step(method, optimizers, batch(0))  # what is set up on first use
    images = batch(1)
    with NoReads():
        outputs = method.forward_train(images)
        for phase in method.phases:
            phase.loss(outputs)


def test_compiled_networks_give_the_same_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **k: compiled(f, backend="aot_eager", **k))  # no C++ compiler
    method, other = make(), make()
    compile_networks(method)
    optimizers = make_optimizers(method, method.config.optimiser)
    first = training_step(method, optimizers, batch(0))
    expected = training_step(other, make_optimizers(other, other.config.optimiser), batch(0))
    for name, value in expected.items():
        torch.testing.assert_close(first[name], value, rtol=1e-4, atol=1e-5)
    assert method.state_dict().keys() == other.state_dict().keys()
    torch._dynamo.reset()


def test_channels_last_learns_the_same(dataset: Path, tmp_path: Path) -> None:
    runs = [tmp_path / "plain", tmp_path / "channels_last"]
    for run, channels_last in zip(runs, (False, True), strict=True):
        train(tiny_run(dataset, images=2, channels_last=channels_last), run, quiet=True)
    one, two = ((run / "log.jsonl").read_text().splitlines()[0] for run in runs)
    assert json.loads(two)["terms"] == pytest.approx(json.loads(one)["terms"], rel=1e-3)


def test_fast_convolutions_are_a_setting(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "_FEWEST_CHANNELS", {False: 0.0, True: 0.0})
    monkeypatch.setattr(winograd, "_FEWEST_TILES", 0)
    taken: list[int] = []
    original = winograd._Grid.chunks
    monkeypatch.setattr(winograd._Grid, "chunks", lambda self: taken.append(1) or original(self))
    train(tiny_run(dataset, images=1, sample_every=9, fast_convolutions=False), tmp_path / "direct", quiet=True)
    assert not taken
    train(tiny_run(dataset, images=1, sample_every=9), tmp_path / "fast", quiet=True)
    assert taken
    one, two = (json.loads((tmp_path / run / "log.jsonl").read_text())["terms"] for run in ("direct", "fast"))
    assert two == pytest.approx(one, rel=1e-3)


def test_settled_optimizers_forget_where_they_were_saved() -> None:
    method = make()
    optimizers = make_optimizers(method, method.config.optimiser)
    settle_optimizers(optimizers, recorded=True)
    training_step(method, optimizers, batch(0))
    state = {name: optimizer.state_dict() for name, optimizer in optimizers.items()}
    state["generator"]["param_groups"][0] |= {"fused": True, "foreach": False, "capturable": True}
    again = make_optimizers(method, method.config.optimiser)
    for name, optimizer in again.items():
        optimizer.load_state_dict(state[name])
    settle_optimizers(again)
    group = again["generator"].param_groups[0]
    assert (group["fused"], group["foreach"], group["capturable"]) == (None, True, False)
    assert isinstance(group["lr"], float)
    training_step(method, again, batch(1))


def test_what_cannot_be_recorded_is_refused(dataset: Path, tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        with pytest.raises(BackendError, match="cuda_graph needs a CUDA device"):
            train(tiny_run(dataset, cuda_graph=True), tmp_path / "run", quiet=True)
    with pytest.raises(ConfigError, match="cuda_graph records the step of one process"):
        tiny_run(dataset, cuda_graph=True, devices=2)
    for name in ("fastcut", "cut"):
        reason = make(name, **({"image_pool": 5} if name == "cut" else {})).not_recordable
        assert "decided on the host" in reason
    assert not make("qs_attn").not_recordable


@pytest.mark.slow
def test_half_precision_does_not_return_the_input(dataset: Path, tmp_path: Path) -> None:
    """A known peer's mixed precision did. The guard's figure must move away from the input as it does in float32."""
    change = {}
    for precision in ("32", "bf16-mixed"):
        run = tmp_path / precision
        config = tiny_run(dataset, images=60, precision=precision, sample_every=20, log_every=10, checkpoint_every=60)
        train(config, run, quiet=True)
        lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        change[precision] = [line["change_from_input_levels"] for line in lines][-1]
    assert change["bf16-mixed"] > 10
    assert change["bf16-mixed"] == pytest.approx(change["32"], rel=0.3)


def test_the_guard_says_when_the_input_comes_back(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("unpaired.methods.cut.CUT.translate", lambda self, x: x)
    train(tiny_run(dataset, images=8, sample_every=2), tmp_path / "run")
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("the generator returns its input") == 1
    assert "in a new run lower --contrastive-weight or --identity-weight, or look whether both folders" in said


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("precision", ["32", "bf16-mixed"])
def test_the_guard_names_settings_that_the_method_has(
    name: str, precision: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = flat(to_dict(METHODS[name].Config()), "model.") | {"training.precision": precision}
    monitor = Monitor(Fabric(accelerator="cpu"))
    method = torch.nn.Module()
    monitor.on_start(Training(tmp_path, method, TrainingLength(100), 0, settings))  # type: ignore[arg-type]
    for seen, change in ((20, 0.0), (30, 0.5), (40, 0.5), (50, 3.0), (60, 0.5)):
        monitor.warn_of_unchanged(seen, change)
    monitor.on_end(100, "failed")
    said = capsys.readouterr().err.splitlines()
    assert [line.split(" the ")[0] for line in said] == ["Warning: at image 30", "Warning: at image 60"]
    for line in said:
        assert ("--precision 32" in line) == (precision != "32")
        named = [word for word in re.findall(r"--([a-z-]+)", line) if word != "precision"]
        assert len(named) in (1, 2)
        assert all(settings[f"model.{option.replace('-', '_')}"] > 0 for option in named)


def test_change_from_the_input_is_measured_in_levels() -> None:
    image = image_to_tensor(Image.new("RGB", (5, 4), (10, 20, 30)))
    wider = image_to_tensor(Image.new("RGB", (8, 4), (10, 20, 33)))
    assert examples.mean_difference(image, wider) == pytest.approx(1.0)


@NEEDS_GPU
@pytest.mark.gpu
def test_cuda_graph_learns_what_plain_steps_learn() -> None:
    method, other = make().cuda(), make().cuda()
    optimizers = make_optimizers(method, method.config.optimiser)
    settle_optimizers(optimizers, recorded=True)
    steps = RecordedSteps(method, optimizers)
    graph = learn(lambda images, number: steps(_on_gpu(images), number=number), optimizers)
    eager = make_optimizers(other, other.config.optimiser)
    expected = learn(lambda images, number: training_step(other, eager, _on_gpu(images), number=number), eager)
    for one, two in zip(graph, expected, strict=True):
        assert one == pytest.approx(two, rel=1e-2)


def _on_gpu(images: ImageBatch) -> ImageBatch:
    return ImageBatch(images.source.cuda(), images.target.cuda(), images.seeds)
