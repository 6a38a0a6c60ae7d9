"""docs/ten_minutes.md: its web page serves a picture, its requirements exist, and its second training is its first."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from doc_pages import DOCS, ROOT, blocks
from tiny import tiny_run, write_images
from unpaired.cli import train as train_command
from unpaired.run_config import RunConfig, flat
from unpaired.training import train

PAGE = DOCS / "ten_minutes.md"
(APP,) = blocks(PAGE, "python")


@pytest.fixture
def address(dataset: Path, tmp_path: Path) -> Iterator[str]:
    """``python page/app.py`` beside a tiny run, until Ctrl-C."""
    pytest.importorskip("gradio", reason='needs pip install "unpaired[studio]"')
    train(tiny_run(dataset, images=1, sample_every=100), tmp_path / "runs" / "mine", quiet=True)
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "app.py").write_text(APP, encoding="utf-8")
    own = {"GRADIO_TEMP_DIR": str(tmp_path / "gradio"), "GRADIO_ANALYTICS_ENABLED": "False", "PYTHONUNBUFFERED": "1"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GRADIO_")}
    served = subprocess.Popen(
        [sys.executable, "page/app.py"], cwd=tmp_path, env=kept | own, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert served.stdout is not None
    said = ""
    while not (found := re.search(r"on local URL: +(http://127\.0\.0\.1:\d+)\n", said)):
        line = served.stdout.readline()
        assert line, f"it ended: {said}"
        said += line
    yield found[1]
    served.send_signal(signal.SIGTERM)
    assert "Traceback" not in served.communicate(timeout=60)[0]


def test_the_web_page_translates_a_picture_at_its_size(address: str, tmp_path: Path) -> None:
    client_module = pytest.importorskip("gradio_client")
    client = client_module.Client(address, verbose=False, analytics_enabled=False, download_files=tmp_path / "got")
    photo = write_images(tmp_path / "in", 1, size=(300, 220)) / "image0.png"
    with Image.open(client.predict(client_module.handle_file(photo), api_name="/translate")) as made:
        assert (made.size, made.format, made.mode) == ((300, 220), "PNG", "RGB")
        with Image.open(photo) as given:
            assert made.tobytes() != given.tobytes()
    with pytest.raises(Exception, match="Choose a picture first"):
        client.predict(None, api_name="/translate")


def test_what_the_web_page_requires_exists() -> None:
    (listed,) = [text for text in blocks(PAGE, "text") if "unpaired[" in text]
    (line,) = [line for line in listed.splitlines() if not line.startswith("-")]
    name, extras = re.fullmatch(r"(\w+)\[([\w,]+)\]", line).groups()  # type: ignore[union-attr]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    known = project["optional-dependencies"]
    assert name == project["name"]
    required = {re.match(r"[\w-]+", each)[0] for extra in extras.split(",") for each in known[extra]}  # type: ignore[index]
    assert {"gradio", "huggingface_hub"} <= required
    assert f"{project['name']}-{project['version']}-py3-none-any.whl" in PAGE.read_text(encoding="utf-8")


def test_the_second_training_goes_on_with_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[dict[str, Any], Path, dict[str, Any]]] = []

    class Parsed(Exception):  # noqa: N818
        pass

    def keep(config: RunConfig, out: Path, **options: Any) -> None:
        made.append((flat(config.to_mapping()), out, options))
        raise Parsed

    monkeypatch.setattr(train_command, "train", keep)
    monkeypatch.setattr(train_command, "adapted", lambda name, config, *_: (config, []))  # there are no images
    text = PAGE.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in re.findall(r"^unpaired train (.*--images .*)$", text, re.MULTILINE):
        with pytest.raises(Parsed):
            train_command.main(shlex.split(line))
    (first, out, once), (second, same, again) = made
    assert (first, out) == (second, same)
    assert once["extend_to"] is None
    assert again["extend_to"] > first["training.images"]
    assert f"--size {first['data.image_size']}" in text
