"""What an index shows of the wheel: its addresses, and README without a link that leads nowhere."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
pytest.importorskip("hatchling", reason="hatchling builds the wheel and is not installed")


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]

    def update(**environment: str) -> dict[str, Any]:
        for name in ("GITHUB_REPOSITORY", "GITHUB_SERVER_URL", "UNPAIRED_REPOSITORY"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        found: dict[str, Any] = {}
        module.RepositoryMetadata(str(ROOT), {}).update(found)
        return found

    return update


@pytest.mark.parametrize(
    "environment", [{"GITHUB_REPOSITORY": "one/two"}, {"UNPAIRED_REPOSITORY": "https://git.example/one/two"}]
)
def test_readme_links_are_whole(metadata: Any, environment: dict[str, str]) -> None:
    found = metadata(**environment)
    links = re.findall(r"\]\(([^)]+)\)", found["readme"]["text"])
    assert len(links) > 20
    assert all(link.startswith("https://") for link in links)
    assert all(address.startswith("https://") for address in found["urls"].values())
    for path in re.findall(r"/(?:blob|raw)/HEAD/([^)#]+)", found["readme"]["text"]):
        assert (ROOT / path).exists(), path


def test_the_docker_image_is_built_from_what_is_copied_into_it(tmp_path: Path) -> None:
    """Of a clean copy, as ``.dockerignore`` lets it through, the wheel is built as pip does it in the image."""
    (copied,) = re.findall(r"^COPY (.+) /source/$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    let_through = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert {*copied.split(), "src"} == set(let_through)
    for name in copied.split():
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel"], cwd=tmp_path, check=True)
    (wheel,) = (tmp_path / "dist").iterdir()
    with zipfile.ZipFile(wheel) as found:
        packed = {name for name in found.namelist() if name.startswith("unpaired/")}
    there = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src").rglob("*") if path.is_file()}
    assert {name for name in there if "__pycache__" not in name} == packed


def test_without_an_address_there_is_none(metadata: Any) -> None:
    found = metadata()
    assert "urls" not in found
    assert found["readme"]["text"] == (ROOT / "README.md").read_text(encoding="utf-8")
