"""What an index shows of the wheel: its addresses, and README without a link that leads nowhere."""

from __future__ import annotations

import importlib.util
import re
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


def test_without_an_address_there_is_none(metadata: Any) -> None:
    found = metadata()
    assert "urls" not in found
    assert found["readme"]["text"] == (ROOT / "README.md").read_text(encoding="utf-8")
