"""Errors that a user can cause and fix.

Everything below the command line raises these with a message that names the file, value or setting and says what to
do; the command line prints the message without a traceback and exits with ``exit_code``.
"""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Iterable


class UserError(Exception):
    """A problem outside the program: a file, a value, a setting, a machine."""

    exit_code = 2


class DataError(UserError):
    """An image, folder or data set cannot be used."""


class ConfigError(UserError, ValueError):
    """A setting is unknown or has an invalid value."""


class PluginError(ConfigError):
    """A plug-in that a run or a model needs is not loaded."""


class CheckpointError(UserError):
    """A checkpoint or exported model cannot be read or written, or does not fit."""


class BackendError(UserError, ValueError):
    """A requested backend, device or optional package cannot run; the message lists every reason."""


class TrainingError(UserError):
    """Training cannot continue (a loss is not finite, the disk is full); checkpoints are kept."""

    exit_code = 3


class ValueRangeWarning(UserWarning):
    """A tensor or an array seems to have another value range than its type implies."""


class PluginWarning(UserWarning):
    """A plug-in has changed since it was recorded, or could not be loaded."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the closest known word, or an empty string.

    >>> nearest("bach_size", ["batch_size", "seed"])
    " (did you mean 'batch_size'?)"
    """
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    close = close or [each for each in known if each.startswith(f"{word}_")]
    return f" (did you mean '{close[0]}'?)" if close else ""


def require_packages(what: str, extra: str, *modules: str) -> None:
    """Raise ``BackendError`` unless the modules of an extra are installed; none of them is imported."""
    for name in modules:
        if importlib.util.find_spec(name) is None:
            raise BackendError(
                f"{what} needs the package '{name}', which is not installed: pip install \"unpaired[{extra}]\""
            )
