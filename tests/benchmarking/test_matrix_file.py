"""The matrix file: what it may say, how settings are laid over each other, and what is refused before any work."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from tiny import domain_folder, write_images
from unpaired.benchmarking.matrix import Cell, check_slots, compose, load_matrix
from unpaired.data import EMBEDDED
from unpaired.errors import ConfigError, DataError
from unpaired.methods import METHODS
from unpaired.run_folder import first_digest
from unpaired.training import RunConfig, train

MATRICES = sorted((Path(__file__).parents[2] / "benchmarks" / "matrices").glob("*.yaml"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("matrix") / "data"
    for number, split in enumerate(("trainA", "trainB", "testA", "testB")):
        write_images(root / split, 3, seed=number)
    return root


def matrix(photos: Path, /, **changes: Any) -> dict[str, Any]:
    return {
        "budget": {"images": 4},
        "common": {
            "data": {"image_size": 32, "load_size": 32, "num_workers": 0},
            "model": {"base_channels": 4, "blocks": 5, "num_queries": 16},
            "training": {"score_every": 0},
        },
        "data": {"photos": {"folder": str(photos)}},
        "contenders": {"cut": {"method": "cut"}, "local": {"method": "qs_attn", "model": {"attention": "local"}}},
        **changes,
    }


def composed(tmp_path: Path, content: dict[str, Any]) -> tuple[dict[str, Cell], list[str]]:
    file = tmp_path / "m.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    cells, notes = compose(load_matrix(file), file)
    return {cell.name: cell for cell in cells}, notes


def test_the_contenders_settings_lie_over_the_common_ones_and_those_over_the_methods(
    data: Path, tmp_path: Path
) -> None:
    content = matrix(data)
    content["common"]["model"]["optimiser"] = {"epochs": 7}
    content["contenders"]["local"]["model"] |= {"num_queries": 9, "optimiser": {"beta1": 0.25}}
    content["contenders"]["b"] = {"recipe": "table3_b", "label": "B of Table 3"}
    cells, notes = composed(tmp_path, content)
    assert list(cells) == ["cut-photos", "local-photos", "b-photos"]
    assert notes == []
    cut, local, b = (cell.config for cell in cells.values())
    assert (cut.method, local.method, b.method) == ("cut", "qs_attn", "qs_attn")
    assert (cut.model.num_queries, local.model.num_queries, b.model.num_queries) == (16, 9, 16)
    assert (local.model.optimiser.epochs, local.model.optimiser.beta1) == (7, 0.25)
    assert cut.model.optimiser.beta1 == METHODS["cut"].Config().optimiser.beta1
    assert (b.model.significance, b.model.similarity) == ("random", "dot"), "what the recipe says"
    assert {config.data.image_size for config in (cut, local, b)} == {32}
    assert all(config.training.score_every == 0 and config.dataset.folder == data for config in (cut, local, b))


def test_common_settings_that_a_method_does_not_have_are_told_and_those_of_none_refused(
    data: Path, tmp_path: Path
) -> None:
    content = matrix(data)
    content["common"]["model"]["attention"] = "local"
    content["contenders"] = {"cut": {"method": "cut"}, "qs": {"method": "qs_attn"}}
    cells, notes = composed(tmp_path, content)
    assert cells["qs-photos"].config.model.attention == "local"
    assert notes == ["common.model.attention is not a setting of cut"]
    content["common"]["model"]["optimiser"] = {"epoch": 3}
    with pytest.raises(ConfigError, match=r"common\.model\.optimiser\.epoch: no contender's method has such a setting"):
        composed(tmp_path, content)
    content["common"]["model"] = {"num_querries": 3}
    with pytest.raises(ConfigError, match=r"m\.yaml: common\.model\.num_querries: .*did you mean 'num_queries'"):
        composed(tmp_path, content)


def test_data_sets_are_found_beside_the_file_embedded_and_with_loading_of_their_own(data: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").symlink_to(data)
    content = matrix(data, data={
        "near": {"folder": "photos", "direction": "BtoA"},
        "drawings": {"embedded": "fluent", "direction": "BtoA", "loading": {"image_size": 64}},
        "apart": {"source": "photos/trainA", "target": "photos/trainB", "held_out_source": "photos/testB",
                  "held_out_target": "photos/testA"},
    })  # fmt: skip
    content["common"]["data"]["load_size"] = 64
    cells, _ = composed(tmp_path, content)
    near, drawings, apart = (cells[f"cut-{name}"] for name in ("near", "drawings", "apart"))
    assert near.config.dataset.folder == tmp_path / "photos"
    assert near.held_out.source[0] == tmp_path / "photos" / "testB" / "image0.png"
    assert drawings.config.dataset.folder == EMBEDDED["fluent"]
    assert (near.config.data.image_size, drawings.config.data.image_size) == (32, 64)
    assert len(drawings.held_out.source) == 120
    assert apart.held_out.source == near.held_out.source
    assert apart.digests == near.digests != near.digests[::-1]


def test_the_digest_of_the_training_images_is_that_of_the_run(data: Path, tmp_path: Path) -> None:
    """Runs that were made by hand are recognised by it."""
    cells, _ = composed(tmp_path, matrix(data))
    config: RunConfig = cells["cut-photos"].config
    short = dataclasses.replace(config, training=dataclasses.replace(config.training, images=1, accelerator="cpu"))
    train(short, tmp_path / "run", quiet=True)
    assert first_digest(tmp_path / "run") == cells["cut-photos"].files_digest


CUT = {"method": "cut"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"budget": {}}, r"in 'budget': give either 'images' or 'minutes'"),
        ({"budget": {"images": 3, "minutes": 1}}, r"give either 'images' or 'minutes'"),
        ({"budget": {"minutes": 0}}, r"minutes must be above 0, not 0"),
        ({"bugdet": {"images": 3}}, r"m\.yaml: unknown setting 'bugdet' \(did you mean 'budget'\?\)"),
        ({"seeds": [0, 1, 0]}, r"seeds: 0, 1, 0 names one twice"),
        ({"seeds": []}, r"'seeds' is empty"),
        ({"contenders": {}}, r"'contenders' is empty"),
        ({"contenders": {"a/b": CUT}}, r"the name 'a/b' becomes a part of folder names"),
        ({"contenders": {"a": {"method": "cutt"}}}, r"in 'contenders\.a': there is no method 'cutt' \(did you mean"),
        ({"contenders": {"a": {"run": "table3_bb"}}}, r"there is no recipe 'table3_bb' \(did you mean 'table3_b'"),
        ({"contenders": {"a": {}}}, r"give a 'method' or a 'recipe'"),
        ({"contenders": {"a": {"recipe": "table3_b", "method": "cut"}}}, r"'table3_b' does not go with the method"),
        ({"contenders": {"a": {"method": "cut", "modle": {}}}}, r"unknown setting 'contenders\.a\.modle' \(did you"),
        ({"contenders": {"a": {"method": "cut", "model": {"attention": "local"}}}},
         r"contenders\.a: model: unknown setting 'attention'"),
        ({"contenders": {"a": {"method": "cut", "training": {"images": 9}}}},
         r"contenders\.a\.training\.images has no place here: 'budget' decides it"),
        ({"contenders": {"a": {"method": "cut", "training": {"seed": 9}}}}, r"'seeds' decides it"),
        ({"common": {"training": {"accelerator": "cpu"}}}, r"common\.training\.accelerator .* 'slots'"),
        ({"common": {"data": {"imagesize": 3}}}, r"common\.data: there is no setting 'imagesize' \(did you mean"),
        ({"contenders": {"a": CUT, "b": {"method": "fastcut", "data": {"image_size": 28}}}},
         r"image_size is 32 for a but 28 for b, so their scores would mean different things"),
        ({"contenders": {"a": CUT, "b": CUT}}, r"contenders a and b have the same settings, so they are the same run"),
        ({"contenders": {"a": CUT, "b": {"method": "cut", "training": {"log_every": 7}}}}, r"are the same run"),
        ({"contenders": {"a": {**CUT, "label": "x"}, "x": {"method": "fastcut"}}}, r"two have the label 'x'"),
        ({"slots": ["gpu"]}, r"slots: 'gpu' is not a device; use cpu, cuda:0"),
        ({"slots": ["cpu", "cuda:0"]}, r"slots: cpu and cuda together"),
        ({"threads": 0}, r"threads must be at least 1, not 0"),
        ({"data": {"d": {"embedded": "fluint"}}}, r"no embedded data set 'fluint' \(did you mean 'fluent'"),
        ({"data": {"d": {"embedded": "fluent", "folder": "x"}}}, r"'embedded' and 'folder' contradict each other"),
        ({"data": {"d": {}}}, r"name a folder"),
        ({"evaluate": {"weights": ["inception"]}}, r"'inception' must be NAME=PATH"),
    ],
)  # fmt: skip
def test_what_is_refused(data: Path, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        composed(tmp_path, matrix(data, **changes))
    assert str(error.value).startswith(str(tmp_path / "m.yaml"))
    assert "\n" not in str(error.value)


def test_a_recipe_at_another_size_is_unlike_the_others_and_old_files_call_it_a_run(data: Path, tmp_path: Path) -> None:
    for key in ("run", "recipe"):
        content = matrix(data, common={}, contenders={"cut": {"method": "cut"}, "small": {key: "small_images"}})
        with pytest.raises(ConfigError, match="image_size is 256 for cut but 64 for small, so their scores"):
            composed(tmp_path, content)
    content = matrix(data, contenders={"quick_cut": {"recipe": "quick", "method": "cut"}})
    assert composed(tmp_path, content)[0]["quick_cut-photos"].config.model.generator == "light"


def test_folders_that_would_be_shared_are_refused(data: Path, tmp_path: Path) -> None:
    place = {"folder": str(data)}
    content = matrix(data, data={"c": place, "b-c": place}, contenders={"a-b": CUT, "a": {"method": "fastcut"}})
    with pytest.raises(ConfigError, match=r"would share the folder 'a-b-c-seed"):
        composed(tmp_path, content)


def test_data_without_test_images_or_of_another_kind_is_refused(data: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    for split in ("trainA", "trainB"):
        write_images(bare / split, 2)
    with pytest.raises(DataError, match=r"data\.bare: .*no held-out images to score"):
        composed(tmp_path, matrix(data, data={"bare": {"folder": str(bare)}}))
    with pytest.raises(DataError, match=r"m\.yaml: data\.photos: .*/nowhere"):
        composed(tmp_path, matrix(data, data={"photos": {"folder": "nowhere"}}))
    with pytest.raises(ConfigError, match=r"contenders\.cut: CUT is for two domains, but a data set of this file"):
        composed(tmp_path, matrix(data, data={"many": {"domains": str(domain_folder(data))}}))


def test_weights_are_found_beside_the_file(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(yaml.safe_dump(matrix(data, evaluate={"weights": ["inception=nets/i.pth", "espnet=/x/e.pth"]})))
    assert load_matrix(file).evaluate.weights == (f"inception={tmp_path}/nets/i.pth", "espnet=/x/e.pth")


def test_slots_of_one_kind_are_fine() -> None:
    check_slots(["cuda:0", "cuda:1", "cuda:0"])
    with pytest.raises(ConfigError, match="name at least one device"):
        check_slots([])


@pytest.mark.parametrize("path", MATRICES, ids=lambda path: path.stem)
def test_the_matrices_of_this_project_can_be_run(path: Path) -> None:
    found = load_matrix(path)
    cells, _ = compose(found, path)
    assert len(cells) == len(found.contenders) * len(found.data)
