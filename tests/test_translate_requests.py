"""What a person can ask of a translation beyond source to target: direction, style, domain."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tiny import tiny_run, write_images
from unpaired import cli
from unpaired.data import read_image
from unpaired.errors import ConfigError, DataError
from unpaired.inference import Translator
from unpaired.training import train

FAST = {"images": 2, "checkpoint_every": 2, "sample_every": 100}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("requests") / "data"
    for number, split in enumerate(("trainA", "trainB", "testA", "testB")):
        write_images(root / split, 3, seed=number)
    return root


@pytest.fixture(scope="module")
def runs(data: Path) -> dict[str, Path]:
    """Tiny trained runs of a method that goes both ways, one with styles, one with domains, and a plain one."""
    found = {}
    for name in ("cyclegan", "munit", "multi_domain_qs_attn", "cut"):
        found[name] = data.parent / name
        train(tiny_run(data, name, **FAST), found[name], quiet=True)
    return found


def images_in(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: np.asarray(Image.open(path)) for path in sorted(folder.glob("image*.png"))}


def test_reverse_is_the_other_generator(runs: dict[str, Path], data: Path, tmp_path: Path) -> None:
    for flag in ((), ("--reverse",)):
        out = tmp_path / ("reverse" if flag else "plain")
        assert cli.main(["translate", str(runs["cyclegan"]), str(data / "testB"), "--out", str(out), *flag]) == 0
    plain, reverse = images_in(tmp_path / "plain"), images_in(tmp_path / "reverse")
    assert plain.keys() == reverse.keys()
    translator = Translator.from_pretrained(runs["cyclegan"], device="cpu")
    image = read_image(data / "testB" / "image0.png")
    assert np.array_equal(np.asarray(translator.translate(image, reverse=True)), reverse["image0.png"])
    assert not np.array_equal(plain["image0.png"], reverse["image0.png"])


def test_styles_go_into_folders_and_a_grid(
    runs: dict[str, Path], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["translate", str(runs["munit"]), str(data / "testA"), "--out", str(tmp_path), "--styles", "3"]
    assert cli.main([*command, "--style-seed", "5"]) == 0
    made = [images_in(tmp_path / f"style{seed}") for seed in (5, 6, 7)]
    assert all(len(each) == 3 for each in made)
    translator = Translator.from_pretrained(runs["munit"], device="cpu")
    image = read_image(data / "testA" / "image1.png")
    for seed, each in zip((5, 6, 7), made, strict=True):
        assert np.array_equal(np.asarray(translator.translate(image, style_seed=seed)), each["image1.png"])
    with Image.open(tmp_path / "styles.png") as grid:
        assert grid.width > 3 * 40
    assert "styles.png" in capsys.readouterr().out


def test_a_style_does_not_depend_on_the_batch(runs: dict[str, Path]) -> None:
    translator = Translator.from_pretrained(runs["munit"], device="cpu")
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    together = translator.translate(images, style_seed=9)
    for image, made in zip(images, together, strict=True):
        torch.testing.assert_close(translator.translate(image, style_seed=9), made, rtol=1e-4, atol=1e-5)
    other = translator.translate(images, style_seed=10)
    assert not torch.equal(together, other)
    assert torch.equal(translator.translate(images), translator.translate(images, style_seed=0))


def test_a_reference_image_gives_its_style(runs: dict[str, Path], data: Path, tmp_path: Path) -> None:
    reference = data / "testB" / "image2.png"
    command = ["translate", str(runs["munit"]), str(data / "testA"), "--out", str(tmp_path)]
    assert cli.main([*command, "--style-reference", str(reference)]) == 0
    translator = Translator.from_pretrained(runs["munit"], device="cpu")
    image, style = read_image(data / "testA" / "image0.png"), read_image(reference)
    made = np.asarray(translator.translate(image, style_reference=style))
    assert np.array_equal(made, images_in(tmp_path)["image0.png"])
    assert np.array_equal(made, np.asarray(translator.translate(image, style_reference=np.asarray(style))))


def test_each_domain_is_another_translation(runs: dict[str, Path], data: Path, tmp_path: Path) -> None:
    run = runs["multi_domain_qs_attn"]
    translator = Translator.from_pretrained(run, device="cpu")
    with torch.no_grad():  # two steps do not teach the domains apart; give one of them weights of its own
        for key, value in translator.method.named_parameters():
            if value.ndim == 2 and len(value) == 3 and key.startswith("generator"):
                value[2] += 0.5
    image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    made = {name: translator.translate(image, domain=name) for name in translator.method.domains}
    assert list(made) == ["a", "b", "c"]
    assert torch.equal(translator.translate(image), made["b"])
    assert not torch.equal(made["a"], made["c"])
    assert cli.main(["translate", str(run), str(data / "testA"), "--out", str(tmp_path), "--domain", "c"]) == 0
    assert len(images_in(tmp_path)) == 3


@pytest.mark.parametrize(
    ("method", "flags", "words"),
    [
        ("cut", ["--reverse"], "CUT does not offer the reverse direction; methods that do: cyclegan"),
        ("cyclegan", ["--style-seed", "1"], "CycleGAN does not offer styles; methods that do: munit"),
        ("cut", ["--domain", "b"], "does not offer a choice of domains; methods that do: multi_domain_qs_attn"),
        ("multi_domain_qs_attn", ["--domain", "bb"], "this model has no domain 'bb'"),
        ("munit", ["--style-seed", "-1"], "style_seed must be at least 0, not -1"),
        ("munit", ["--styles", "0"], "styles must be at least 1"),
        ("munit", ["--styles", "2", "--style-reference", "x.png"], "one reference is one style"),
    ],
)
def test_what_is_not_offered_is_refused(
    method: str, flags: list[str], words: str, runs: dict[str, Path], data: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert cli.main(["translate", str(runs[method]), str(data / "testA"), "--out", str(tmp_path / "x"), *flags]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_two_styles_at_once_are_refused(runs: dict[str, Path]) -> None:
    translator = Translator.from_pretrained(runs["munit"], device="cpu")
    image = torch.zeros(3, 32, 32)
    with pytest.raises(ConfigError, match="either a style seed or a style reference"):
        translator.translate(image, style_seed=1, style_reference=image)
    with pytest.raises(DataError, match="a style reference is one image"):
        translator.translate(image, style_reference=[image])


def last_record(run: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((run / "evaluations.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    return found


def test_evaluation_of_the_reverse_direction_swaps_the_images(runs: dict[str, Path], data: Path) -> None:
    run = runs["cyclegan"]
    records = []
    for flags in ([], ["--reverse"]):
        command = ["evaluate", str(run), str(data), "--metrics", "swd_progan_x1e3", "--no-intervals", "--device", "cpu"]
        assert cli.main([*command, *flags]) == 0
        records.append(last_record(run)["data"])
    plain, reverse = records
    assert isinstance(plain, dict)
    assert isinstance(reverse, dict)
    assert reverse["request"] == {"reverse": True}
    assert (plain["source_digest"], plain["target_digest"]) == (reverse["target_digest"], reverse["source_digest"])


def test_evaluation_of_a_pair_of_domains(runs: dict[str, Path], data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = runs["multi_domain_qs_attn"]
    command = ["evaluate", str(run), "--metrics", "swd_progan_x1e3", "--no-intervals", "--device", "cpu"]
    assert cli.main([*command, "--source-domain", "b", "--domain", "c"]) == 0
    found = last_record(run)["data"]
    assert isinstance(found, dict)
    assert found["request"] == {"domain": "c"}
    assert found["name"].endswith("b -> c")
    assert cli.main([*command, "--source-domain", "b", "--domain", "b"]) == 2
    assert "is the source domain, too" in capsys.readouterr().err
    assert cli.main(["evaluate", str(runs["cut"]), str(data), "--domain", "b"]) == 2
    assert "is not a run of several domains" in capsys.readouterr().err


def test_a_report_shows_a_run_of_several_domains(runs: dict[str, Path], tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert cli.main(["report", str(runs["multi_domain_qs_attn"]), "--out", str(page), "--show", "2"]) == 0
    assert "a, b, c" in page.read_text(encoding="utf-8")
