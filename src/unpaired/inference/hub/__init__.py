"""Trained models on the Hugging Face Hub: what is uploaded, its card, and fetching with an offline cache."""

from unpaired.inference.hub.bundle import Bundle, write_bundle
from unpaired.inference.hub.card import Licences
from unpaired.inference.hub.fetch import Snapshot, fetch, is_repo_id
from unpaired.inference.hub.upload import upload

__all__ = ["Bundle", "Licences", "Snapshot", "fetch", "is_repo_id", "upload", "write_bundle"]
