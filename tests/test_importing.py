"""``unpaired import``: the authors' files, of which plain networks of the same architecture are made here."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from published_networks import Published, cut, cyclegan
from tiny import shared_data, tiny_run, write_images
from unpaired import cli
from unpaired.data import find_test_images, read_image
from unpaired.errors import CheckpointError, ConfigError, UserError
from unpaired.evaluation import evaluate_run
from unpaired.importing import import_published, importable, published_filters, published_names, sibling
from unpaired.inference import Translator
from unpaired.methods import METHODS
from unpaired.networks import ResnetGenerator
from unpaired.training import train


def saved(network: nn.Module, path: Path, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), path, **options)
    return path


def image_of(path: Path, side: int | None = None) -> Tensor:
    picture = read_image(path)
    picture = picture if side is None else picture.resize((side, side))
    values = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(*picture.size[::-1], 3)
    return values.permute(2, 0, 1).float() / 127.5 - 1


def loaded(run: Path) -> Translator:
    return Translator.from_pretrained(run, device="cpu")


@torch.no_grad()
def difference(run: Path, network: nn.Module, image: Tensor, *, reverse: bool = False) -> float:
    made = loaded(run).translate(image[None], reverse=reverse)
    return float((made - network(image[None])).abs().max())


@pytest.mark.parametrize("method", ["cut", "qs_attn", "fastcut", "dclgan", "cyclegan"])
@pytest.mark.parametrize("blocks", [6, 9])
def test_a_real_image_is_translated_as_the_authors_network_does(method: str, blocks: int, tmp_path: Path) -> None:
    network = (cyclegan if method == "cyclegan" else cut)(blocks=blocks, width=16)
    run = tmp_path / "run"
    import_published(saved(network, tmp_path / "latest_net_G.pth"), method, run)
    paths = sorted((shared_data("horse2zebra") / "testA").glob("*.jpg"))[:2]
    for path in paths:
        image = image_of(path)
        assert image.shape == (3, 256, 256)
        assert difference(run, network, image) <= 1e-5
        with torch.no_grad():
            assert float((network(image[None]) - image).abs().mean()) > 0.1, "the network does something"


def test_other_sizes_and_gray_images(tmp_path: Path) -> None:
    network = cut(channels=1, width=6, blocks=6)
    import_published(saved(network, tmp_path / "net_G.pth"), "cut", tmp_path / "run", image_size=64)
    assert difference(tmp_path / "run", network, torch.rand(1, 48, 72) * 2 - 1) <= 1e-5
    assert (loaded(tmp_path / "run").channels, loaded(tmp_path / "run").image_size) == (1, 64)


@pytest.mark.parametrize("method", ["cyclegan", "dclgan"])
@pytest.mark.parametrize("first", ["A", "B"])
def test_both_directions_lie_beside_each_other(method: str, first: str, tmp_path: Path) -> None:
    make: Callable[..., Published] = cyclegan if method == "cyclegan" else cut
    networks = {letter: make(seed=seed, blocks=6) for seed, letter in enumerate("AB")}
    files = {letter: saved(network, tmp_path / f"latest_net_G_{letter}.pth") for letter, network in networks.items()}
    import_published(files[first], method, tmp_path / "run")
    image = torch.rand(3, 32, 32) * 2 - 1
    assert difference(tmp_path / "run", networks[first], image) <= 1e-5
    assert difference(tmp_path / "run", networks["B" if first == "A" else "A"], image, reverse=True) <= 1e-5


def test_one_direction_alone_and_two_named_files(tmp_path: Path) -> None:
    one, other = cyclegan(seed=1, blocks=6), cyclegan(seed=2, blocks=6)
    files = saved(one, tmp_path / "a" / "latest_net_G.pth"), saved(other, tmp_path / "b" / "latest_net_G.pth")
    image = torch.rand(3, 32, 32) * 2 - 1
    import_published(files[0], "cyclegan", tmp_path / "one")
    assert difference(tmp_path / "one", one, image) <= 1e-5
    with pytest.raises(ConfigError, match="imported with one direction only"):
        loaded(tmp_path / "one").translate(image, reverse=True)
    import_published(files[0], "cyclegan", tmp_path / "two", reverse=files[1])
    assert difference(tmp_path / "two", other, image, reverse=True) <= 1e-5
    narrow = saved(cyclegan(width=4, blocks=6), tmp_path / "c" / "latest_net_G.pth")
    with pytest.raises(CheckpointError, match=r"base_channels 8, 6 blocks.* are not a pair"):
        import_published(files[0], "cyclegan", tmp_path / "three", reverse=narrow)


def test_the_sibling_of_a_file(tmp_path: Path) -> None:
    for name in ("latest_net_G_A.pth", "latest_net_G_B.pth", "latest_net_G.pth", "7_net_G_A.pth"):
        (tmp_path / name).touch()
    assert sibling(tmp_path / "latest_net_G_A.pth") == tmp_path / "latest_net_G_B.pth"
    assert sibling(tmp_path / "latest_net_G_B.pth") == tmp_path / "latest_net_G_A.pth"
    assert sibling(tmp_path / "latest_net_G.pth") is None
    assert sibling(tmp_path / "7_net_G_A.pth") is None


@pytest.mark.parametrize("golden", ["cut", "cyclegan", "dclgan"])
def test_names_shapes_and_their_order_are_those_of_the_authors(golden: str) -> None:
    """Three sources agree: the recorded names of the authors' modules, the plain networks here, and our mapping."""
    path = Path(__file__).parent / "golden" / f"{golden}.json"
    networks = json.loads(path.read_text())["networks"]
    tensors = networks["G" if golden == "cut" else "G_A"]["tensors"]
    recorded = {name: tuple(shape) for name, shape in tensors}
    plain = (cyclegan if golden == "cyclegan" else cut)()
    assert {name: tuple(value.shape) for name, value in plain.named_parameters()} == recorded
    resampling: Any = "strided" if golden == "cyclegan" else "blur"
    ours = ResnetGenerator(base_channels=8, resampling=resampling)
    mapped = {
        f"{theirs}.{kind}": f"{own}.{kind}"
        for theirs, own in published_names(9, resampling).items()
        for kind in ("weight", "bias")
    }
    assert list(mapped) == list(recorded)
    assert list(mapped.values()) == [name for name, _ in ours.named_parameters()]


def authors_state(run: Path, kind: str, resampling: Any, network: str = "generator") -> dict[str, Tensor]:
    """The weights of a run of ours under the authors' names."""
    tensors = load_file(run / "weights" / f"{kind}.safetensors")
    model = json.loads((run / "weights" / "model.json").read_text())["model"]
    state = {
        f"{theirs}.{part}": tensors[f"{network}.{own}.{part}"]
        for theirs, own in published_names(model["blocks"], resampling).items()
        for part in ("weight", "bias")
    }
    return state | (published_filters(model["blocks"], model["base_channels"]) if resampling == "blur" else {})


@pytest.mark.parametrize(("method", "resampling"), [("cut", "blur"), ("cyclegan", "strided"), ("dclgan", "blur")])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_run_comes_back_bit_by_bit(method: str, resampling: str, prefix: str, dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(tiny_run(dataset, method, images=2), run, quiet=True)
    served = METHODS[method].served
    for letter, name in zip("AB", served, strict=False):
        state = authors_state(run, "last", resampling, name)
        torch.save({prefix + key: value for key, value in state.items()}, tmp_path / f"latest_net_G_{letter}.pth")
    import_published(tmp_path / "latest_net_G_A.pth", method, tmp_path / "back")
    before, after = (load_file(folder / "weights" / "last.safetensors") for folder in (run, tmp_path / "back"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_files_of_old_torch_are_read(tmp_path: Path) -> None:
    """Another container, running statistics of instance norms, names of parallel training, half precision."""
    network = cyclegan(old_torch=True, blocks=6)
    state = {f"module.{key}": value for key, value in network.state_dict().items()}
    assert sum(key.endswith("running_mean") for key in state) == 17
    torch.save(state, tmp_path / "latest_net_G.pth", _use_new_zipfile_serialization=False)
    import_published(tmp_path / "latest_net_G.pth", "cyclegan", tmp_path / "run")
    assert difference(tmp_path / "run", cyclegan(blocks=6), torch.rand(3, 32, 32) * 2 - 1) <= 1e-5
    torch.save({key: value.half() for key, value in cut(blocks=6).state_dict().items()}, tmp_path / "half.pth")
    import_published(tmp_path / "half.pth", "cut", tmp_path / "half")
    found = load_file(tmp_path / "half" / "weights" / "last.safetensors")["generator.head.weight"]
    assert torch.equal(found, cut(blocks=6).state_dict()["model.27.weight"].half().float())


def changed(**changes: Tensor | None) -> Callable[[], dict[str, Tensor]]:
    def make() -> dict[str, Tensor]:
        state = dict(cut(blocks=6).state_dict())
        for name, value in changes.items():
            state.pop(name.replace("__", "."), None)
            if value is not None:
                state[name.replace("__", ".")] = value
        return state

    return make


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: cut(dropout=True).state_dict(), "residual blocks have dropout.* modules 1 and 6 of conv_block"),
        (lambda: cut(affine=True).state_dict(), r"has learned scales \('model.2.weight'\)"),
        (lambda: Published(double="transposed").state_dict(), "halves with blur and doubles with transposed"),
        (lambda: Published(halve="stride").state_dict(), "halves with strides and doubles with blur"),
        (lambda: cut(out_channels=1).state_dict(), "reads 3 channels and writes 1"),
        (lambda: {"model.model.0.weight": torch.zeros(8, 3, 4, 4)}, "is a U-Net"),
        (lambda: {"model.0.weight": torch.zeros(8, 3, 4, 4)}, "discriminators .* give the generator"),
        (lambda: {"mlp_0.0.weight": torch.zeros(8, 3)}, "is a projector"),
        (lambda: {"model.1.weight": torch.zeros(8, 3, 7, 7)}, "no residual blocks"),
        (lambda: {f"model.9.conv_block.{place}.weight": torch.zeros(8, 8, 3, 3) for place in (1, 5)},
         "blocks begin at module 9"),
        (changed(model__7__filt=torch.full((16, 1, 3, 3), 1 / 9)), "blur filter 'model.7.filt' is not the binomial"),
        (changed(model__7__filt=None), "names missing .'model.7.filt'"),
        (changed(model__4__bias=None), "names missing .'model.4.bias'"),
        (changed(model__99__weight=torch.zeros(2, 2)), "unknown names .'model.99.weight'"),
        (changed(model__4__weight=torch.zeros(16, 8, 5, 5)), "another shape .'model.4.weight'"),
        (changed(model__4__bias=torch.full((16,), float("nan"))), "'model.4.bias' has values that are not finite"),
        (list, "holds no state dict"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_the_reason(
    make: Callable[[], Any], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "latest_net_G.pth"
    torch.save(make(), path)
    assert cli.main(["import", str(path), "--method", "cut", "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert re.match(f"error: {re.escape(str(path))}: .*{words}", said), said
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()


class Hostile:
    """What a pickle can do when it is loaded carelessly."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.proof),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_not_run(zipped: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, proof = tmp_path / "latest_net_G.pth", tmp_path / "proof"
    state = {**cut(blocks=6).state_dict(), "extra": Hostile(proof)}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    assert cli.main(["import", str(path), "--method", "cut", "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "cannot be read as plain tensors" in said
    assert "nothing else is read, since a pickle can run code" in said
    assert not proof.exists()
    torch.load(path, weights_only=False)  # it would have
    assert proof.exists()


def test_methods_and_folders_that_do_not_fit_are_named(tmp_path: Path) -> None:
    of_cut, of_cyclegan = saved(cut(blocks=6), tmp_path / "1.pth"), saved(cyclegan(blocks=6), tmp_path / "2.pth")
    out = tmp_path / "run"
    with pytest.raises(CheckpointError, match=r"with blur .*give --method one of qs_attn, cut, .*dclgan"):
        import_published(of_cut, "cyclegan", out)
    with pytest.raises(CheckpointError, match=r"give --method one of cyclegan, cyclegan_qs_attn$"):
        import_published(of_cyclegan, "cut", out)
    with pytest.raises(ConfigError, match=r"there is no 'ctu' \(did you mean 'cut'\?\)"):
        import_published(of_cut, "ctu", out)
    for other in sorted(METHODS.keys() - set(importable())):
        with pytest.raises(ConfigError, match="is no ResNet generator"):
            import_published(of_cut, other, out)
    with pytest.raises(ConfigError, match="translates one way"):
        import_published(of_cut, "cut", out, reverse=of_cut)
    with pytest.raises(ConfigError, match="multiple of 4"):
        import_published(of_cut, "cut", out, image_size=7)
    with pytest.raises(UserError, match="does not exist"):
        import_published(tmp_path / "nothing.pth", "cut", out)
    assert not out.exists()
    import_published(of_cut, "cut", out)
    with pytest.raises(ConfigError, match="is not an empty folder"):
        import_published(of_cut, "cut", out)
    assert set(importable()) == METHODS.keys() - {"munit", "santa", "sincut", "multi_domain_qs_attn"}


@pytest.mark.parametrize("method", importable())
def test_every_importable_method_takes_its_kind_of_file(method: str, tmp_path: Path) -> None:
    network = (cyclegan if method.startswith("cyclegan") else cut)(blocks=6)
    import_published(saved(network, tmp_path / "net_G.pth"), method, tmp_path / "run")
    assert difference(tmp_path / "run", network, torch.rand(3, 32, 32) * 2 - 1) <= 1e-5


@pytest.fixture
def imported(tmp_path: Path) -> Path:
    saved(cut(blocks=6, width=4), tmp_path / "latest_net_G.pth")
    import_published(tmp_path / "latest_net_G.pth", "cut", tmp_path / "imported", image_size=32)
    return tmp_path / "imported"


def test_all_commands_take_an_imported_run(
    imported: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    translator = loaded(imported)
    assert translator.origin is not None
    assert translator.origin.weights == "last", "no average is claimed"
    assert sorted(path.name for path in imported.rglob("*.*")) == ["last.safetensors", "model.json"]
    run, out = str(imported), tmp_path / "out"
    assert cli.main(["translate", run, str(dataset / "testA"), "--out", str(out)]) == 0
    assert len(list(out.iterdir())) == 3
    assert cli.main(["export", run, "--format", "torch", "--out", str(tmp_path / "model.pt2")]) == 0
    assert cli.main(["push", run, "me/zebras", "--dry-run", str(tmp_path / "bundle")]) == 0
    assert (tmp_path / "bundle" / "last.safetensors").exists()
    card = (tmp_path / "bundle" / "README.md").read_text()
    assert "not trained here: its weights were published as `latest_net_G.pth`" in card
    assert "trained with [unpaired]" not in card
    assert "--weights last" in card
    assert cli.main(["translate", run, str(dataset / "testA"), "--out", str(out), "--weights", "best"]) == 2
    assert "holds no best weights" in capsys.readouterr().err


def test_an_imported_run_is_scored_once(imported: Path, dataset: Path) -> None:
    files = find_test_images(dataset)
    assert files is not None
    found = evaluate_run(imported, files, device="cpu")
    assert "last" in found.scores
    assert not {"ema", "best"} & found.scores.keys()


def test_the_studio_opens_an_imported_run(imported: Path) -> None:
    pytest.importorskip("gradio", reason="the studio's page is optional")
    from unpaired.studio.runs import open_runs

    run, *_ = open_runs([imported], device="cpu")
    assert run.translator is not None


def test_training_goes_on_from_an_imported_run(
    imported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split, seed in (("trainA", 1), ("trainB", 2)):
        write_images(tmp_path / "more" / split, 3, seed=seed)
    words = [str(tmp_path / "more"), "--out", str(tmp_path / "finer"), "--init", str(imported), "--images", "2"]
    words += ["--image-size", "32", "--num-workers", "0", "--accelerator", "cpu", "--score-every", "0"]
    words += ["--base-channels", "4", "--num-queries", "16", "--projector-width", "8", "--method", "qs_attn"]
    assert cli.main(["train", *words]) == 2
    assert "blocks is 6 there and 9 here" in capsys.readouterr().err
    assert cli.main(["train", *words, "--blocks", "6"]) == 0
    assert f"Begins with generator (last) of {imported}; discriminator, projector, " in capsys.readouterr().err
    one_way = saved(cyclegan(blocks=6, width=4), tmp_path / "one" / "net_G.pth")
    import_published(one_way, "cyclegan", tmp_path / "one_way")
    words = ["--out", str(tmp_path / "no"), "--init", str(tmp_path / "one_way"), "--method", "cyclegan"]
    assert cli.main(["train", str(tmp_path / "more"), *words, "--base-channels", "4", "--blocks", "6"]) == 2
    assert "it was imported without generator_ba" in capsys.readouterr().err
