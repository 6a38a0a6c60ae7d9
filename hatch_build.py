"""What the metadata of a wheel takes from the repository that builds it: addresses, and README with whole links.

GitHub names the repository in the environment of a workflow (``GITHUB_SERVER_URL``, ``GITHUB_REPOSITORY``). Elsewhere
``UNPAIRED_REPOSITORY`` may hold its address; without either, a wheel has no addresses, and the links of its README
stay as they are.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface


def address() -> str | None:
    """The repository's address, such as https://github.com/owner/name, if it is known."""
    if name := os.environ.get("GITHUB_REPOSITORY"):
        return f"{os.environ.get('GITHUB_SERVER_URL', 'https://github.com')}/{name}"
    return os.environ.get("UNPAIRED_REPOSITORY")


def with_whole_links(text: str, repository: str, revision: str = "HEAD") -> str:
    """Markdown whose relative links and images go to files of ``repository``, as an index of packages needs them."""

    def whole(found: re.Match[str]) -> str:
        kind = "raw" if found["image"] else "blob"
        return f"{found['before']}({repository}/{kind}/{revision}/{found['path']})"

    return re.sub(r"(?P<before>(?P<image>!?)\[[^\]]*\])\((?!https?:|#|mailto:)(?P<path>[^)\s]+)\)", whole, text)


class RepositoryMetadata(MetadataHookInterface):
    """Fills ``readme`` and ``urls``."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict) -> None:
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        repository = address()
        if repository:
            text = with_whole_links(text, repository)
            metadata["urls"] = {
                "Homepage": repository,
                "Documentation": f"{repository}/tree/HEAD/docs",
                "Changelog": f"{repository}/blob/HEAD/CHANGELOG.md",
                "Issues": f"{repository}/issues",
            }
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
