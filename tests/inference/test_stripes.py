"""A translation by stripes is the translation of the whole image, for every method, wherever its maps lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from large import TOLERANCE, in_stripes, lively, picture
from torch import Tensor, nn

from unpaired.errors import DataError
from unpaired.inference.large_images import (
    UnsuitableNetworkError,
    trace,
    translate,
    translate_in_stripes,
    translate_within,
)
from unpaired.inference.large_images.plan import make_plan
from unpaired.inference.large_images.program import Program
from unpaired.methods import METHODS, TranslateRequest
from unpaired.networks.padding import pad


@pytest.fixture(scope="module")
def program() -> Program:
    return trace(lively("qs_attn"), 3)


@pytest.fixture(scope="module")
def expected() -> dict[tuple[int, int], Tensor]:
    method = lively("qs_attn")
    return {size: method.translate(picture(*size)) for size in ((64, 52), (20, 16))}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_by_stripes_is_the_method_on_the_whole_image(name: str, tmp_path: Path) -> None:
    method, x = lively(name), picture(132, 60)
    expected = method.translate(x)
    assert expected.std() > 0.1, "a flat picture would hide differences"
    assert expected[:, :, :66].sub(expected[:, :, 66:]).abs().max() > 0.1
    found = in_stripes(trace(method, 3), x, tmp_path, memory=100_000)
    assert (found - expected).abs().max() < TOLERANCE


SIZES = [(16, 16), (20, 16), (16, 68), (64, 52), (132, 60), (1000, 36)]


@pytest.mark.parametrize(("generator", "channels"), [("light", 1), ("light", 3), ("light", 4), ("light_smooth", 3)])
def test_the_light_generator_needs_one_pass(generator: str, channels: int, tmp_path: Path) -> None:
    """Its norms see a pixel each, so nothing is gathered, kept or computed twice: no byte is asked for maps."""
    method = lively("cut", channels=channels, generator=generator, base_channels=16, blocks=2, taps=("down1",))
    light = trace(method, channels)
    for size in SIZES:
        x = picture(*size, channels=channels)
        expected = method.translate(x)
        assert (expected - x).std() > 0.04, "at its start it is the identity, which any cut would leave alone"
        plan = make_plan(light, light.sizes(*size), 0, 0)
        assert plan is not None
        assert (len(plan.passes), plan.stored_bytes) == (1, 0)
        for rows in (4, 12, 1000):
            found = in_stripes(light, x, tmp_path, memory=0, rows=rows)
            assert (found - expected).abs().max() < TOLERANCE


@pytest.mark.parametrize("size", [(64, 64), (65, 67), (101, 37), (17, 130), (63, 16)])
def test_sides_that_are_no_multiples_of_four_by_the_light_generator(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the Translator does it: mirrored up, translated within a bound that asks for stripes, cut again."""
    method, x = lively("cut", generator="light", base_channels=16, blocks=2, taps=("down1",)), pad(picture(*size))
    monkeypatch.setattr(translate, "taken_memory", lambda device: 0)
    told: list[float] = []
    found = translate_within(method, x, 2 * 2**20, progress=told.append)
    assert told[-1] == 1.0, "it was not translated whole"
    assert (found - method.translate(x)).abs().max() < TOLERANCE


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("cyclegan", TranslateRequest(reverse=True)),
        ("munit", TranslateRequest(style_seeds=torch.tensor([5]))),
        ("munit", TranslateRequest(reverse=True, style_reference=picture(48, 32, seed=3))),
        ("multi_domain_qs_attn", TranslateRequest(domain=2)),
    ],
    ids=["reverse", "style seed", "style reference", "domain"],
)
def test_requests_are_part_of_what_is_recorded(name: str, asked: TranslateRequest, tmp_path: Path) -> None:
    method, x = lively(name), picture(36, 40)
    if name == "multi_domain_qs_attn":  # whose domains are alike at the start
        for key, weight in method.generator.named_parameters():
            if "scale" in key or "shift" in key:
                weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)), alpha=0.5)
    expected = method.translate(x, asked)
    assert (expected - method.translate(x)).abs().max() > 1e-3
    found = in_stripes(trace(method, 3, asked), x, tmp_path, memory=100_000)
    assert (found - expected).abs().max() < TOLERANCE


@pytest.mark.parametrize("rows", [4, 8, 20, 64, 1000])
def test_the_height_of_stripes_does_not_matter(
    program: Program, expected: dict[tuple[int, int], Tensor], rows: int, tmp_path: Path
) -> None:
    for size, whole in expected.items():
        found = in_stripes(program, picture(*size), tmp_path, memory=2**30, rows=rows)
        assert (found - whole).abs().max() < TOLERANCE


def test_where_maps_lie_does_not_matter(program: Program, tmp_path: Path) -> None:
    x = picture(64, 52)
    sizes = program.sizes(64, 52)
    everything = make_plan(program, sizes, 2**40, 0)
    assert everything is not None
    plan = make_plan(program, sizes, 0, 2**40)
    assert plan is not None
    results = []
    for memory in (0, plan.stored_bytes // 3, plan.stored_bytes - 1, plan.stored_bytes):
        fit = translate.Fit(plan, [8] * len(plan.passes), memory)
        results.append(translate.run_plan(program, fit, x, tmp_path))
        assert not list(tmp_path.iterdir()), "files have no names, so that nothing is left behind"
    assert all(torch.equal(result, results[0]) for result in results)


def test_files_are_only_made_where_memory_ends(
    program: Program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made: list[Any] = []
    monkeypatch.setattr(
        "tempfile.TemporaryFile", lambda **_: made.append(1) or (_ for _ in ()).throw(OSError(28, "no space"))
    )
    in_stripes(program, picture(20, 16), tmp_path, memory=2**30)
    assert not made
    with pytest.raises(DataError, match=r"scratch file.*no space.*TMPDIR.*--memory-gib"):
        in_stripes(program, picture(20, 16), tmp_path, memory=0)


def test_a_float64_pass_agrees_with_both(tmp_path: Path) -> None:
    """Both are as near to the truth as rounding lets them be: what differs is the order of sums."""
    method, x = lively("cut"), picture(64, 52)
    whole, stripes = method.translate(x), in_stripes(trace(method, 3), x, tmp_path, memory=2**30)
    truth = method.double().translate(x.double())
    errors = [(each - truth).abs().max().item() for each in (whole, stripes)]
    assert max(errors) < TOLERANCE
    assert errors[1] < 4 * errors[0] + 1e-6


# ---------------------------------------------------------------------------------------------------------------------
# the decision between whole and stripes, and refusals
# ---------------------------------------------------------------------------------------------------------------------
@pytest.fixture
def nothing_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(translate, "taken_memory", lambda device: 0)


@pytest.mark.usefixtures("nothing_taken")
def test_within_enough_memory_the_method_itself_runs() -> None:
    method, x = lively("cut"), picture(36, 40)
    told: list[float] = []
    assert torch.equal(translate_within(method, x, 2**30, progress=told.append), method.translate(x))
    assert not told


@pytest.mark.usefixtures("nothing_taken")
def test_a_batch_is_translated_image_by_image_with_each_ones_wish() -> None:
    method, x = lively("munit"), torch.cat([picture(36, 40), picture(36, 40, seed=1)])
    request, told = TranslateRequest(style_seeds=torch.tensor([3, 4])), list[float]()
    found = translate_within(method, x, 400_000, request, progress=told.append)
    assert (found - method.translate(x, request)).abs().max() < TOLERANCE
    assert told.count(1.0) >= 2, "one end for each image"
    first = told[: told.index(1.0) + 1]
    assert first == sorted(first)
    assert first[0] < 0.2
    assert len(set(first)) > 50


@pytest.mark.usefixtures("nothing_taken")
def test_too_little_memory_is_refused_with_the_amount_that_would_do(tmp_path: Path) -> None:
    method, x = lively("cut"), picture(64, 2048)
    with pytest.raises(
        DataError, match=r"memory_gib: 0\.00 GiB are too little for 2048 x 64 pixels .* need (0\.\d\d) GiB"
    ) as found:
        translate_within(method, x, 1_000_000)
    needed = float(str(found.value).split("need ")[1].split()[0])
    assert translate_within(method, x, int(needed * 2**30)).shape == x.shape


@pytest.mark.usefixtures("nothing_taken")
def test_a_full_disk_is_refused_before_anything_is_computed(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(translate, "_free_disk", lambda folder: 0)
    with pytest.raises(DataError, match=r"0\.0 GiB to spare, but 64 x 512 pixels.*scratch files"):
        translate_in_stripes(program, picture(512, 64), 700_000)
    monkeypatch.undo()
    with pytest.raises(DataError, match="nowhere"):
        translate_in_stripes(program, picture(64, 64), 2**40, scratch=Path("/nowhere"))


class Squeezed(nn.Module):
    """A network that looks at the mean over the whole image, which no rows of it have."""

    title = "Squeezed"

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def translate(self, x_BCHW: Tensor) -> Tensor:
        return self.conv(x_BCHW) * x_BCHW.mean((2, 3), keepdim=True)


@pytest.mark.usefixtures("nothing_taken")
def test_a_network_that_cannot_be_cut_is_refused_with_the_reason() -> None:
    method: Any = Squeezed()
    with pytest.raises(UnsuitableNetworkError, match=r"mean"):
        trace(method, 3)
    words = r"memory_gib: 72 x 64 pixels may not fit .* Squeezed cannot be translated in stripes: 'aten.mean"
    with pytest.raises(DataError, match=words):
        translate_within(method, picture(64, 72), 1000)
    assert translate_within(method, picture(64, 64), 2**30).shape == (1, 3, 64, 64)
