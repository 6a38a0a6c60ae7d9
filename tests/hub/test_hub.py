"""Models to and from the Hub, against a Hub on loopback: round trip, cache, revisions, digests, cards, refusals."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from served_hub import ServedHub, serve_hub

from published_networks import cut
from recorded_runs import evaluation
from tiny import forget_digests, tiny_run, write_images
from unpaired import cli
from unpaired.errors import BackendError, CheckpointError, ConfigError
from unpaired.importing import import_published
from unpaired.inference import Translator
from unpaired.inference.hub import Licences, is_repo_id
from unpaired.inference.initial import InitialWeights
from unpaired.training import RunConfig, train

library = pytest.importorskip("huggingface_hub", reason="needs pip install 'unpaired[hub]'")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained tiny run that was scored."""
    root = tmp_path_factory.mktemp("hub")
    for split, seed in (("trainA", 1), ("trainB", 2)):
        write_images(root / "data" / split, 3, seed=seed)
    train(tiny_run(root / "data", images=2, checkpoint_every=2, sample_every=2), root / "run", quiet=True)
    record = evaluation({"input": {"swd_progan_x1e3": 106.0}, "ema": {"swd_progan_x1e3": 71.25}})
    record["data"]["name"] = "/home/somebody/secret/drawings"
    record["environment"] = {"host": "secret-host"}
    record["rows"] = {**record.get("rows", {}), "best": {"chosen_on": "testA of /home/somebody/secret-folder/drawings"}}
    record["warnings"] = ["images of /home/somebody/secret-folder/x"]
    (root / "run" / "evaluations.jsonl").write_text(json.dumps(record) + "\n")
    return root / "run"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ServedHub]:
    """A Hub on loopback, an empty cache, and a client that knows no other Hub."""
    with serve_hub() as served:
        for module in ("constants", "hf_api", "file_download", "_snapshot_download"):
            part = __import__(f"huggingface_hub.{module}", fromlist=["ENDPOINT"])
            for name in ("ENDPOINT", "HF_ENDPOINT"):
                if hasattr(part, name):
                    monkeypatch.setattr(part, name, served.url)
        template = served.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(library.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(library.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(library.constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
        yield served


def loaded(path: Any, **options: Any) -> Translator:
    return Translator.from_pretrained(path, device="cpu", **options)


def test_what_is_pushed_comes_back_bit_by_bit_and_says_where_it_is_from(run: Path, hub: ServedHub) -> None:
    here = loaded(run)
    commit = here.push_to_hub("me/zebras")
    there = loaded("me/zebras")
    x = torch.rand(1, 3, 33, 47) * 2 - 1
    assert torch.equal(here.translate(x), there.translate(x))
    assert here.origin is not None
    assert there.origin is not None
    assert (there.origin.repo_id, there.origin.revision) == ("me/zebras", commit)
    assert there.origin.sha256 == here.origin.sha256
    assert set(hub.repositories["me/zebras"][-1]) == {
        "README.md", "model.json", "ema.safetensors", "digests.json", "scores.json",
    }  # fmt: skip


def test_a_fetched_model_works_without_any_hub(run: Path, hub: ServedHub) -> None:
    loaded(run).push_to_hub("me/zebras")
    first = loaded("me/zebras")
    before = len(hub.requests)
    offline = loaded("me/zebras", offline=True)
    assert len(hub.requests) == before
    hub.refuse = 503
    unreachable = loaded("me/zebras")
    for other in (offline, unreachable):
        assert other.origin == first.origin
    hub.refuse = None
    with pytest.raises(CheckpointError, match="not in the local cache"):
        loaded("me/horses", offline=True)


def test_a_revision_is_found_again_after_a_newer_one(run: Path, hub: ServedHub, tmp_path: Path) -> None:
    old = loaded(run).push_to_hub("me/zebras")
    changed = tmp_path / "changed"
    shutil.copytree(run, changed)
    forget_digests(changed / "weights")
    newer = loaded(changed)
    with torch.no_grad():
        next(newer.method.parameters()).add_(1)
    shutil.copyfile(changed / "weights" / "last.safetensors", changed / "weights" / "ema.safetensors")
    new = loaded(changed).push_to_hub("me/zebras")
    assert old != new
    for name in (f"me/zebras@{old}", "me/zebras"):
        origin = loaded(name).origin
        assert origin is not None
        assert origin.revision == (old if "@" in name else new)
    with pytest.raises(CheckpointError, match="no such revision; leave it out"):
        loaded("me/zebras", revision="v9")


def test_only_what_is_needed_is_fetched(run: Path, hub: ServedHub) -> None:
    loaded(run).push_to_hub("me/zebras", weights=("ema", "last"))
    hub.repositories["me/zebras"][-1]["pytorch_model.bin"] = b"would run code"
    loaded("me/zebras", weights="last")
    files = {path.name for path in Path(library.constants.HF_HUB_CACHE).rglob("*") if path.is_symlink()}
    assert files == {"model.json", "digests.json", "last.safetensors"}
    with pytest.raises(CheckpointError, match="holds no best weights"):
        loaded("me/zebras", weights="best")


def without_description(files: dict[str, bytes]) -> None:
    files.pop("model.json")


def with_other_bytes(files: dict[str, bytes]) -> None:
    files["ema.safetensors"] = files["ema.safetensors"][:-4] + b"\0\1\2\3"


def with_unreadable_digests(files: dict[str, bytes]) -> None:
    files["digests.json"] = b"[]"


def of_another_architecture(files: dict[str, bytes]) -> None:
    files["model.json"] = files["model.json"].replace(b"qs_attn", b"pix2pix")


def with_other_shapes(files: dict[str, bytes]) -> None:
    files["model.json"] = files["model.json"].replace(b'"blocks": 5', b'"blocks": 6')


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without_description, "was not made by unpaired"),
        (with_other_bytes, "is not the file"),
        (with_unreadable_digests, r"digests.json cannot be read"),
        (of_another_architecture, "unknown method"),
        (with_other_shapes, "does not fit model.json: it lacks"),
    ],
)
def test_models_that_cannot_be_trusted_or_do_not_fit_are_refused(
    run: Path, hub: ServedHub, change: Any, words: str
) -> None:
    loaded(run).push_to_hub("me/zebras")
    change(hub.repositories["me/zebras"][-1])
    with pytest.raises(CheckpointError, match=words) as refusal:
        loaded("me/zebras")
    assert "\n" not in str(refusal.value)


def test_a_folder_with_pickles_alone_is_refused(run: Path, tmp_path: Path) -> None:
    shutil.copyfile(run / "weights" / "model.json", tmp_path / "model.json")
    (tmp_path / "pytorch_model.bin").write_bytes(b"would run code")
    with pytest.raises(CheckpointError, match=r"pytorch_model.bin but no ema.safetensors: a pickle can run code"):
        loaded(tmp_path)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "hf auth login"),
        (403, "no access; log in"),
        (500, "cannot upload"),
        (None, "no such model, or this account"),
    ],
)
def test_what_the_hub_refuses_is_said_in_one_line(run: Path, hub: ServedHub, status: int | None, words: str) -> None:
    hub.refuse = status
    with pytest.raises(CheckpointError, match=words) as refusal:
        _ = loaded("me/horses") if status is None else loaded(run).push_to_hub("me/zebras")
    assert "\n" not in str(refusal.value)
    assert hub.repositories == {}


def test_without_a_network_an_upload_is_one_line(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing listens where the library, whichever client it is built on, looks for the Hub."""
    for module in ("constants", "hf_api"):
        part = __import__(f"huggingface_hub.{module}", fromlist=["ENDPOINT"])
        monkeypatch.setattr(part, "ENDPOINT", "http://127.0.0.1:9", raising=False)
    with pytest.raises(CheckpointError, match=r"cannot upload: .*refused") as refusal:
        loaded(run).push_to_hub("me/zebras", token="hf_none")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["cc-by-4.0", "MIT", "apache-2.0 or mit", "other", "LicenseRef-ours"])
def test_licences_are_spdx_names(name: str) -> None:
    assert Licences(name).model.lower() == name.lower()  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match=r"'cc-by-5\.0' is not an SPDX name"):
        Licences("cc-by-5.0")


def test_without_the_client_the_message_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(BackendError, match=r"pip install 'unpaired\[hub\]'"):
        loaded("me/zebras")


def test_only_names_that_are_no_path_are_looked_for_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_repo_id("owner/name")
    assert is_repo_id("owner/name@v1.0")
    for other in ("name", "./owner/name", "/owner/name", "a/b/c", "~/name", "owner/name@", Path("owner/name")):
        assert not is_repo_id(other), other
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert not is_repo_id("owner/name")


# ---------------------------------------------------------------------------------------------------------------------
# the card and the command
# ---------------------------------------------------------------------------------------------------------------------
def test_the_card_says_what_is_known_and_what_is_not(run: Path, tmp_path: Path) -> None:
    loaded(run).bundle(
        str(tmp_path / "stated"),
        "me/zebras",
        weights=("last",),
        samples=True,
        licences=Licences("CC-BY-4.0", "CC0", "Drawings"),
    )
    card = (tmp_path / "stated" / "README.md").read_text()
    front = card.split("---")[1]
    assert 'license: "cc-by-4.0"' in front
    assert "library_name: unpaired" in front
    assert "Drawings. Their licence: CC0. The weights are under cc-by-4.0." in card
    assert "unpaired translate me/zebras photos --out translated --weights last" in card
    assert "| input (untranslated) | 106 |" in card
    assert "| average (EMA) | 71.25 |" in card
    assert "200 source and 200 target images at 64 pixels" in card
    assert "sliced Wasserstein distance" in card
    assert "![Samples](samples.png)" in card
    loaded(run).bundle(tmp_path / "unknown", "me/zebras")
    unknown = (tmp_path / "unknown" / "README.md").read_text()
    assert "license:" not in unknown
    assert "No licence of the weights is stated" in unknown
    for file in (tmp_path / "unknown").iterdir():
        assert b"secret" not in file.read_bytes(), file.name  # no paths or hosts of this machine go along


LINKED = {
    "samples/zzz.png": ("secret.txt", "zzz.png is no file of this run"),
    "samples/zzzz.png": ("private.png", "zzzz.png is no file of this run"),
    "samples": ("pictures", "is no file of this run"),
    "weights/best.json": ("secret.json", "best.json is no file of this run"),
    "weights/best.safetensors": ("other.safetensors", "best.safetensors is no file of this run"),
    "weights/model.json": ("model.json", "model.json is no file of this run"),
    "weights": ("weights", "is no file of this run"),
    "evaluations.jsonl": ("evaluations.jsonl", "evaluations.jsonl is no file of this run"),
}
"""Place in a run folder -> the file or folder of this machine that it is a link to, and the words of the refusal."""


@pytest.mark.parametrize("place", list(LINKED))
@pytest.mark.parametrize("relative", [False, True])
def test_no_file_from_outside_the_run_folder_goes_along(
    relative: bool, place: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, outside = tmp_path / "run", tmp_path / "outside"
    shutil.copytree(run, other)
    shutil.copyfile(other / "weights" / "ema.safetensors", other / "weights" / "best.safetensors")
    (other / "weights" / "best.json").write_text("{}")
    forget_digests(other / "weights")
    shutil.copytree(other / "weights", outside / "weights")
    write_images(outside / "pictures", 1)
    for name, source in {"private.png": outside / "pictures" / "image0.png", "model.json": other / "weights" /
                         "model.json", "evaluations.jsonl": other / "evaluations.jsonl",
                         "other.safetensors": other / "weights" / "ema.safetensors"}.items():  # fmt: skip
        shutil.copyfile(source, outside / name)
    (outside / "secret.txt").write_text("the password")
    (outside / "secret.json").write_text('{"key": "the password"}')
    name, words = LINKED[place]
    link = other / place
    if link.is_dir():
        shutil.rmtree(link)
    link.unlink(missing_ok=True)
    link.symlink_to(Path("../" * len(Path(place).parts)) / "outside" / name if relative else outside / name)
    assert link.exists()
    command = ["push", str(other), "me/zebras", "--samples", "--weights", "ema", "best", "--dry-run"]
    assert cli.main([*command, str(tmp_path / "out")]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_links_that_stay_in_the_run_folder_are_followed(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    shutil.copytree(run, other)
    (other / "kept").mkdir()
    for place in ("weights/ema.safetensors", "evaluations.jsonl", "samples"):
        moved = other / "kept" / Path(place).name
        (other / place).rename(moved)
        (other / place).symlink_to(moved)
    (tmp_path / "run").symlink_to(other)
    bundle = loaded(tmp_path / "run").bundle(tmp_path / "out", "me/zebras", samples=True)
    assert {"ema.safetensors", "samples.png", "scores.json"} <= {file.name for file in bundle.folder.iterdir()}
    assert not [file for file in bundle.folder.iterdir() if file.is_symlink()]


def test_only_a_picture_is_a_sample_grid(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "run"
    shutil.copytree(run, other)
    (other / "samples" / "zzz.png").write_text("the password")
    with pytest.raises(CheckpointError, match=r"the sample grid cannot be uploaded: .*zzz\.png: the content is text"):
        loaded(other).bundle(tmp_path / "out", "me/zebras", samples=True)
    (other / "samples" / "zzz.png").unlink()
    os.mkfifo(other / "samples" / "zzz.png")
    with pytest.raises(CheckpointError, match=r"zzz\.png is no file of this run"):
        loaded(other).bundle(tmp_path / "out", "me/zebras", samples=True)


def test_what_lies_beside_a_folder_of_weights_is_not_taken_for_its_run(run: Path, tmp_path: Path) -> None:
    (tmp_path / "downloads").mkdir()
    shutil.copytree(run / "weights", tmp_path / "downloads" / "zebras")
    write_images(tmp_path / "downloads" / "samples", 1)
    shutil.copyfile(run / "evaluations.jsonl", tmp_path / "downloads" / "evaluations.jsonl")
    bundle = loaded(tmp_path / "downloads" / "zebras").bundle(tmp_path / "out", "me/zebras", samples=True)
    assert not {"samples.png", "scores.json"} & {file.name for file in bundle.folder.iterdir()}


def test_a_fetched_model_can_be_pushed_again(run: Path, hub: ServedHub) -> None:
    """Its files are links of the Hub's cache to files beside them."""
    loaded(run).push_to_hub("me/zebras")
    loaded("me/zebras").push_to_hub("you/zebras")
    assert hub.repositories["you/zebras"][-1]["ema.safetensors"] == hub.repositories["me/zebras"][-1]["ema.safetensors"]


def test_the_code_on_the_card_runs(run: Path, hub: ServedHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded(run).push_to_hub("me/zebras")
    card = hub.repositories["me/zebras"][-1]["README.md"].decode()
    code = card.split("```python\n")[1].split("```")[0]
    write_images(tmp_path, 1)
    (tmp_path / "image0.png").rename(tmp_path / "input.png")
    monkeypatch.chdir(tmp_path)
    space: dict[str, Any] = {}
    exec(code, space)
    assert space["translated"].size == (40, 36)


def test_a_run_that_was_never_scored_says_so(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "run"
    shutil.copytree(run, other)
    (other / "evaluations.jsonl").unlink()
    shutil.rmtree(other / "samples")
    bundle = loaded(other).bundle(tmp_path / "out", "me/zebras")
    card = (bundle.folder / "README.md").read_text()
    assert "It has not been scored" in card
    assert "samples.png" not in card
    with pytest.raises(CheckpointError, match="is not empty"):
        loaded(other).bundle(tmp_path / "out", "me/zebras")


def test_the_command_uploads_and_translate_finds_it(
    run: Path, hub: ServedHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["push", str(run), "me/zebras", "--dry-run", str(tmp_path / "dry")]) == 0
    assert "nothing was uploaded" in capsys.readouterr().out
    assert hub.repositories == {}
    assert cli.main(["push", str(run), "me/zebras", "--licence", "cc0-1.0"]) == 0
    said = capsys.readouterr().out
    listed = re.findall(r"^ *[\d.]+ MB  (\S+)$", said.partition("uploading")[0], re.MULTILINE)
    assert listed == sorted(hub.repositories["me/zebras"][-1])
    assert not [name for name in listed if name.endswith((".png", ".jpg"))]
    assert "unpaired translate me/zebras INPUT --out DIR" in said
    assert b"cc0-1.0" in hub.repositories["me/zebras"][-1]["README.md"]
    write_images(tmp_path / "photos", 2)
    assert cli.main(["translate", "me/zebras", str(tmp_path / "photos"), "--out", str(tmp_path / "made")]) == 0
    assert len(list((tmp_path / "made").iterdir())) == 2
    capsys.readouterr()
    assert cli.main(["push", str(run), "no-owner"]) == 2
    assert "must be owner/name" in capsys.readouterr().err


def test_a_run_begins_with_a_model_of_the_hub_and_resumes_without_it(
    run: Path, hub: ServedHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commit = loaded(run).push_to_hub("me/zebras")
    for split, seed in (("trainA", 5), ("trainB", 6)):
        write_images(tmp_path / "data" / split, 3, seed=seed)
    config = replace(tiny_run(tmp_path / "data", images=2), init=InitialWeights("me/zebras"))
    train(replace(config, training=replace(config.training, stop_after=1)), tmp_path / "finer")
    assert "Begins with generator (ema) of me/zebras; discriminator, projector, " in capsys.readouterr().err
    recorded = RunConfig.load(tmp_path / "finer" / "run.yaml").init
    assert recorded is not None
    assert recorded.revision == commit
    hub.repositories.clear()
    shutil.rmtree(tmp_path / "cache")
    assert train(config, tmp_path / "finer", quiet=True).finished


def test_an_imported_model_is_fetched_without_an_average(hub: ServedHub, tmp_path: Path) -> None:
    torch.save(cut(blocks=6, width=4).state_dict(), tmp_path / "latest_net_G.pth")
    import_published(tmp_path / "latest_net_G.pth", "cut", tmp_path / "theirs", image_size=32)
    here = loaded(tmp_path / "theirs")
    here.push_to_hub("me/theirs", weights=("ema",))
    assert "last.safetensors" in hub.repositories["me/theirs"][-1]
    assert "ema.safetensors" not in hub.repositories["me/theirs"][-1]
    there = loaded("me/theirs")
    assert there.origin is not None
    assert there.origin.weights == "last"
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    assert torch.equal(here.translate(x), there.translate(x))


def test_a_name_of_the_hub_opens_in_the_studio_as_it_translates(
    run: Path, hub: ServedHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("gradio", reason="needs pip install 'unpaired[studio]'")

    commit = loaded(run).push_to_hub("me/zebras")
    served: list[Any] = []
    monkeypatch.setattr("unpaired.studio.serving.serve", lambda runs, *_, **__: served.extend(runs))
    picture = Image.new("RGB", (20, 24), (90, 30, 200))
    for refused in (None, 503):  # the second time there is no network, but a cache
        hub.refuse = refused
        assert cli.main(["studio", "me/zebras", f"me/zebras@{commit}", "--device", "cpu"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"zebras: QS-Attn, zebras@{commit}: QS-Attn"
    expected = loaded("me/zebras").translate(picture)
    for one in served:
        assert one.translator.translate(picture).tobytes() == expected.tobytes()
    hub.refuse = 503
    for command in (["studio", "me/horses"], ["translate", "me/horses", str(tmp_path), "--out", str(tmp_path / "out")]):
        assert cli.main([*command, "--device", "cpu"]) != 0
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert "me/horses" in line
