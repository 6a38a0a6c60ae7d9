"""Fetching a model: only what is needed, only safe files, from the local cache where the Hub cannot be reached."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from unpaired.errors import CheckpointError
from unpaired.files import read_json
from unpaired.inference.hub.client import client, explained

DESCRIPTION = "model.json"
DIGESTS = "digests.json"
_REPO_ID = re.compile(r"([A-Za-z0-9][\w.-]*/[\w.-]+)(?:@([\w./-]+))?")


@dataclass(frozen=True)
class Snapshot:
    """A model in the local cache.

    Attributes:
        repo_id: ``owner/name``.
        revision: The commit that was fetched, 40 hex digits.
        folder: Where its files lie; they belong to the cache and are not to be changed.
    """

    repo_id: str
    revision: str
    folder: Path


def is_repo_id(name: str | Path) -> bool:
    """Whether ``name`` can only mean a model on the Hub: ``owner/name``, ``owner/name@revision``, and no path here."""
    return isinstance(name, str) and bool(_REPO_ID.fullmatch(name)) and not Path(name).exists()


def fetch(
    name: str,
    weights: str = "ema",
    *,
    revision: str | None = None,
    cache: str | Path | None = None,
    offline: bool = False,
) -> Snapshot:
    """Bring one kind of weights and their description into the local cache, unless they are there.

    Args:
        name: ``owner/name`` or ``owner/name@revision``.
        weights: ``ema``, ``last`` or ``best``.
        revision: Branch, tag or commit; unset takes the one in ``name``, else the newest.
        cache: The cache folder; unset takes the client's own (``HF_HOME`` moves it).
        offline: Use the cache only, without the network.

    Raises:
        BackendError: The client library is not installed.
        CheckpointError: The model is not there, cannot be fetched, or holds no weights that can be loaded safely.
    """
    library = client()
    match = _REPO_ID.fullmatch(name)
    if match is None:
        raise CheckpointError(f"{name}: not a name on the Hub; give owner/name or owner/name@revision")
    repo_id, revision = match[1], revision or match[2]
    patterns = [DESCRIPTION, DIGESTS, f"{weights}.safetensors"]
    with explained(repo_id, revision, "fetch"):
        folder = Path(
            library.snapshot_download(
                repo_id, revision=revision, cache_dir=cache, local_files_only=offline, allow_patterns=patterns,
                library_name="unpaired",
            )
        )  # fmt: skip
    if not (folder / DESCRIPTION).exists():
        raise CheckpointError(
            f"Hub model '{repo_id}' was not made by unpaired: it holds no {DESCRIPTION}; nothing else of it was fetched"
        )
    if not (folder / f"{weights}.safetensors").exists():
        if weights == "ema" and _is_imported(folder):
            return fetch(name, "last", revision=folder.name, cache=cache, offline=offline)
        raise CheckpointError(f"Hub model '{repo_id}' holds no {weights} weights; try ema, last or best")
    return Snapshot(repo_id, folder.name, folder)


def _is_imported(folder: Path) -> bool:
    """Whether a model has no average because it was imported from its authors' file."""
    try:
        return "imported" in read_json(folder / DESCRIPTION)
    except (OSError, ValueError, TypeError):
        return False
