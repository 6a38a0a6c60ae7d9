"""Uploading a bundle."""

from __future__ import annotations

from unpaired.inference.hub.bundle import Bundle
from unpaired.inference.hub.client import client, explained


def upload(
    bundle: Bundle,
    repo_id: str,
    *,
    private: bool = False,
    token: str | None = None,
    message: str = "Upload a model trained with unpaired",
) -> str:
    """Upload a bundle as one commit; the model page is made if it does not exist.

    Args:
        bundle: From :func:`unpaired.inference.hub.write_bundle`.
        repo_id: ``owner/name``.
        private: Whether a new page is private; an existing one stays what it is.
        token: Of an account that may write; unset takes the one of ``hf auth login`` or ``HF_TOKEN``.
        message: Of the commit.

    Returns:
        The commit that was made, 40 hex digits.

    Raises:
        BackendError: The client library is not installed.
        CheckpointError: The Hub refuses or cannot be reached. Commits are atomic: no file was uploaded.
    """
    library = client()
    with explained(repo_id, None, "upload"):
        api = library.HfApi(library_name="unpaired", token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(repo_id=repo_id, folder_path=bundle.folder, commit_message=message)
    return commit.oid
