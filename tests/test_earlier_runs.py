"""Run folders of versions that knew no ``load_size_until`` go on as they were trained."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from tiny import equal, tiny_run, trained
from unpaired.config import load_yaml, save_yaml
from unpaired.data import DataConfig
from unpaired.errors import ConfigError
from unpaired.methods import METHODS
from unpaired.run_config import RunConfig, as_begun, loading
from unpaired.training import train

NEW = ("load_size_until", "smallest_zoom", "images_per_epoch", "resample")
"""Settings of ``data`` that the earlier versions did not have."""


def age(file: Path, **stored: Any) -> None:
    """Rewrite a run file as an earlier version wrote it: without what it did not know, in its words."""
    mapping = load_yaml(file)
    data = {key: value for key, value in mapping["data"].items() if key not in NEW}
    data["flip"] = {"horizontal": True, "none": False}[data["flip"]]
    data["resize"] = {"scale_shorter_side": "shortest_side_and_crop", "crop_only": "crop"}.get(
        data["resize"], data["resize"]
    )
    save_yaml(file, {**mapping, "data": {**data, **stored}})


def as_earlier_versions_did(config: RunConfig) -> RunConfig:
    return dataclasses.replace(config, data=DataConfig(image_size=32, num_workers=config.data.num_workers))


@pytest.mark.parametrize("method", ["cut", "munit", "cyclegan", "multi_domain_qs_attn"])
def test_a_run_of_an_earlier_version_goes_on_as_it_began(method: str, dataset: Path, tmp_path: Path) -> None:
    today = tiny_run(dataset, method)
    before = as_earlier_versions_did(today)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(before, whole, quiet=True)
    for stop in (2, 4):  # the second time the folder was resumed by this version already
        training = dataclasses.replace(today.training, stop_after=stop)
        first = before if stop == 2 else today
        train(dataclasses.replace(first, training=training), parts, quiet=True)
        age(parts / "run.yaml") if stop == 2 else None
        stored = load_yaml(parts / "run.yaml")["data"]
        assert not set(NEW) & set(stored)
        assert RunConfig.load(parts / "run.yaml").data == before.data
    assert train(today, parts, quiet=True).finished
    assert equal(trained(parts), trained(whole))
    if before.data != today.data:
        other = tmp_path / "other"
        train(today, other, quiet=True)
        assert not equal(trained(other), trained(whole))


def test_the_person_is_told(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    today = tiny_run(dataset, "munit", images=2)
    train(dataclasses.replace(as_earlier_versions_did(today)), tmp_path / "run", quiet=True)
    age(tmp_path / "run" / "run.yaml")
    train(today, tmp_path / "run")
    said = capsys.readouterr().err
    assert "began with an earlier version; its images are still loaded as they were then" in said
    assert "resize resize_and_crop (not scale_shorter_side)" in said


def test_its_own_run_file_resumes_it_too(dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    before = as_earlier_versions_did(tiny_run(dataset, "cut"))
    train(dataclasses.replace(before, training=dataclasses.replace(before.training, stop_after=3)), run, quiet=True)
    age(run / "run.yaml")
    config = RunConfig.load(run / "run.yaml")
    assert config.data.load_size_until == "end"
    training = dataclasses.replace(config.training, stop_after=None)
    assert train(dataclasses.replace(config, training=training), run, quiet=True).finished
    train(before, tmp_path / "whole", quiet=True)
    assert equal(trained(run), trained(tmp_path / "whole"))


def test_another_setting_is_refused_as_ever(dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    today = tiny_run(dataset, "munit", images=2)
    train(as_earlier_versions_did(today), run, quiet=True)
    age(run / "run.yaml")
    for changes, words in (
        ({"resample": "lanczos"}, "data.resample was 'bicubic', now 'lanczos'"),
        ({"resize": "crop_only"}, "data.resize was 'resize_and_crop', now 'crop_only'"),
        ({"flip": "both"}, "data.flip was 'horizontal', now 'both'"),
    ):
        with pytest.raises(ConfigError, match=words):
            train(dataclasses.replace(today, data=dataclasses.replace(today.data, **changes)), run, quiet=True)


def test_a_run_of_this_version_is_refused_with_another_default(dataset: Path, tmp_path: Path) -> None:
    run, today = tmp_path / "run", tiny_run(dataset, "cut", images=2)
    train(dataclasses.replace(today, data=dataclasses.replace(today.data, load_size_until="end")), run, quiet=True)
    assert as_begun(today, run) is today
    with pytest.raises(ConfigError, match=r"data\.load_size_until was 'end', now 'decay'"):
        train(today, run, quiet=True)


# ---------------------------------------------------------------------------------------------------------------------
# run files
# ---------------------------------------------------------------------------------------------------------------------
STORED = {
    "image_size": 64, "load_size": None, "resize": "resize_and_crop", "flip": True, "channels": 3,
    "background": [255, 255, 255], "cache_gib": 1.0, "num_workers": 1,
}  # fmt: skip
"""The section ``data`` of the first version; later ones added settings."""


@pytest.mark.parametrize("method", METHODS)
def test_a_persons_file_takes_the_methods_defaults_and_a_stored_one_is_complete(method: str) -> None:
    ignoring = DataConfig(image_size=64, colour_profiles="ignore")  # as the first version did
    assert RunConfig.from_mapping({"method": method}).data == loading(method)
    assert RunConfig.from_mapping({"method": method, "data": None}).data == loading(method)
    assert RunConfig.from_mapping({"method": method, "data": {"image_size": 64}}).data == loading(method, image_size=64)
    assert RunConfig.from_mapping({"method": method, "data": STORED}).data == ignoring
    for missing in STORED:
        own = {key: value for key, value in STORED.items() if key != missing}
        found = RunConfig.from_mapping({"method": method, "data": own}).data
        assert found.load_size_until == loading(method).load_size_until
    today = RunConfig.from_mapping({"method": method}).to_mapping()
    assert RunConfig.from_mapping(today).data == loading(method)


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        ({"flip": True}, "flip", "horizontal"),
        ({"flip": False}, "flip", "none"),
        ({"flip": "both"}, "flip", "both"),
        ({"resize": "shortest_side_and_crop"}, "resize", "scale_shorter_side"),
        ({"resize": "crop"}, "resize", "crop_only"),
        ({"resize": "none"}, "resize", "none"),
    ],
)
def test_former_words_are_read(given: dict[str, Any], name: str, value: str) -> None:
    assert getattr(RunConfig.from_mapping({"method": "cut", "data": given}).data, name) == value


@pytest.mark.parametrize(
    "data", [{"flip": 1}, {"flip": "left"}, {"resize": "scale"}, {"resize": True}, ["flip"], "crop"]
)
def test_words_that_never_were_are_refused(data: Any) -> None:
    with pytest.raises(ConfigError, match=r"run\.yaml: data|'data'|must hold named settings"):
        RunConfig.from_mapping({"method": "cut", "data": data})


def test_where_data_is_not_given_it_is_the_methods(dataset: Path) -> None:
    place = tiny_run(dataset).dataset
    for method in METHODS:
        assert RunConfig(method, place).data == loading(method)
    assert RunConfig("munit", place).data == DataConfig(
        resize="scale_shorter_side", load_size="image_size", resample="bilinear"
    )
    assert loading("munit", image_size=(192, 320)).resized_size == (192, 320)


def test_the_run_file_of_this_version_is_known_as_such(dataset: Path, tmp_path: Path) -> None:
    today = tiny_run(dataset, "cut", images=1)
    train(today, tmp_path / "run", quiet=True)
    stored = load_yaml(tmp_path / "run" / "run.yaml")["data"]
    assert set(NEW) <= set(stored)
    assert stored["load_size_until"] == "decay"
    description = json.loads((tmp_path / "run" / "weights" / "model.json").read_text())
    assert description["image_size"] == 32
