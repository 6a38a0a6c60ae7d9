"""The client library, imported on first use, and its errors in words."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from unpaired.errors import BackendError, CheckpointError


def client() -> ModuleType:
    """``huggingface_hub``. Raises ``BackendError`` where it is not installed."""
    try:
        import huggingface_hub
    except ImportError:
        raise BackendError("the Hub needs the package huggingface_hub: pip install 'unpaired[hub]'") from None
    return huggingface_hub


@contextmanager
def explained(repo_id: str, revision: str | None, doing: str) -> Iterator[None]:
    """Turn the client's errors into one line each.

    Args:
        repo_id: ``owner/name``.
        revision: What was asked for, if anything was.
        doing: What was going on, for the message: ``fetch`` or ``upload``.

    Raises:
        CheckpointError: What went wrong and what to do.
    """
    from huggingface_hub import errors

    where = f"Hub model '{repo_id}'" + (f" at revision '{revision}'" if revision else "")
    if doing == "fetch":
        where = f"there is no folder '{repo_id}' here; {where}"
    troubles: tuple[type[BaseException], ...] = (OSError, *_network_errors())
    try:
        yield
    except errors.HFValidationError as error:
        raise CheckpointError(f"{repo_id}: not a name on the Hub ({_line(error)}); give owner/name") from error
    except errors.GatedRepoError as error:
        raise CheckpointError(
            f"{where}: its owner asks for consent first; accept on its page, log in with 'hf auth login', try again"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise CheckpointError(
            f"{where}: there is no such model, or this account may not see it; check the name, or log in with "
            "'hf auth login'"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointError(
            f"{where}: there is no such revision; leave it out, or name a branch, tag or commit"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"{where}: it is not in the local cache, and the Hub cannot be reached; connect once, or give a folder"
        ) from error
    except (errors.HfHubHTTPError, errors.LocalTokenNotFoundError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403) or isinstance(error, errors.LocalTokenNotFoundError):
            raise CheckpointError(
                f"{where}: cannot {doing}: no access; log in with 'hf auth login', or give a token"
            ) from error
        raise CheckpointError(f"{where}: cannot {doing}: {_line(error)}") from error
    except troubles as error:
        raise CheckpointError(f"{where}: cannot {doing}: {_line(error)}") from error


def _network_errors() -> tuple[type[Exception], ...]:
    """What the library lets through where there is no network: ``OSError`` before its version 1, then those of httpx,
    from version 2 on those of httpx2.
    """
    clients = [importlib.import_module(name) for name in ("httpx", "httpx2") if importlib.util.find_spec(name)]
    return tuple(error for client in clients for error in (client.HTTPError, client.InvalidURL))


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
