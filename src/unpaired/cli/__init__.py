"""The command ``unpaired``: finds the subcommand, runs it, and turns errors that a person can mend into one line.

This file imports nothing heavy, so that ``unpaired --help`` answers at once.
"""

from __future__ import annotations

import importlib
import io
import keyword
import os
import re
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from unpaired.errors import ConfigError, PluginWarning, UserError, ValueRangeWarning, nearest

COMMANDS = {
    "demo": "train QS-Attn on the embedded drawings, translate, score, write a report (about five minutes)",
    "data": "prepare a set of images for training from archives or folders, or check one",
    "train": "train a translator from two folders of images; run it again to resume",
    "import": "make a run folder from a generator published by the authors of CUT, CycleGAN or DCLGAN",
    "translate": "translate images with a trained run",
    "export": "write a trained generator as one ONNX file or torch program that runs without this package",
    "evaluate": "score a trained run, or a folder of generated images, on held-out images",
    "compare": "put the scores of several runs into one table",
    "report": "write one HTML page, and figures, about one or several runs",
    "benchmark": "train and compare methods x data x seeds from one file; run it again to resume",
    "recipes": "list the recipes (quick, published experiments), or show one",
    "runs": "list the run folders below a folder: how far they are, and their last scores",
    "study": "ask people which translations are better: a blind user study in the browser",
    "studio": "a page in the browser: translate pictures, compare runs, watch a training",
    "serve": "a REST server: POST an image, get its translation",
    "push": "upload a trained run to the Hugging Face Hub, with a model card",
    "info": "show versions, devices, and which backends can run here",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0 done, 1 done in part, 2 a mistake to mend, 3 training stopped, 128 + number of a signal (130: Ctrl-C).
    """
    for stream in (sys.stdout, sys.stderr):  # names of files are bytes, and need not be text of this terminal
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        from unpaired import __version__

        print(f"unpaired {__version__}")
        return 0
    name = arguments[0]
    warnings.showwarning = _show_warning
    warnings.filterwarnings("ignore", category=UserWarning, module="PIL")  # damaged files, which our errors name
    if name not in COMMANDS:
        return _fail(f"there is no command '{name}'{nearest(name, COMMANDS)}; see unpaired --help", 2)
    try:
        arguments = with_plugins(arguments)
        command = importlib.import_module(module_of(name))
        return command.main(arguments[1:])
    except UserError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:  # the reader of a pipe went away, as 'head' does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError) or re.search(r"(?:can't allocate|out of) memory", str(error))):
            raise
        return _fail("there is not enough memory; use smaller images, networks or batches, or set --memory-gib", 3)
    except OSError as error:
        if error.errno is None:  # raised by a library for its own reasons: no message of ours would help
            raise
        where = f"{error.filename}: " if error.filename else ""  # a write to a full disk does not know its file
        return _fail(f"{where}{error.strerror or error}", 3)


def with_plugins(arguments: Sequence[str]) -> list[str]:
    """Load the plug-ins of ``--plugin``, of the environment and of installed packages; the other words are returned.

    Raises:
        ConfigError: One cannot be loaded.
    """
    from unpaired.plugins import VARIABLE, load_plugins

    places, others = [], list[str]()
    words = iter(arguments)
    for word in words:
        option, sign, place = word.partition("=")
        if option != "--plugin":
            others.append(word)
        elif not (place := place if sign else next(words, "")):
            raise ConfigError("--plugin needs a file")
        else:
            is_path = place.endswith(".py") or os.sep in place or os.path.exists(os.path.join(place, "__init__.py"))
            places.append(os.path.abspath(place) if is_path else place)
    if places:  # processes that a command starts load them, too
        named = [*os.environ.get(VARIABLE, "").split(os.pathsep), *places]
        os.environ[VARIABLE] = os.pathsep.join(dict.fromkeys(filter(None, named)))
    load_plugins()
    return others


def module_of(command: str) -> str:
    """The module of a command; Python's own words take an underscore.

    >>> module_of("train"), module_of("import")
    ('unpaired.cli.train', 'unpaired.cli.import_')
    """
    return f"unpaired.cli.{command}{'_' if keyword.iskeyword(command) else ''}"


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {summary}" for name, summary in COMMANDS.items()]
    return "\n".join(
        [
            "usage: unpaired COMMAND [options]",
            "",
            "Unpaired image-to-image translation: two folders of images, no pairs.",
            "",
            "commands:",
            *lines,
            "",
            "Every command takes --plugin FILE, any number of times: a Python file (or a package's folder, or an",
            "installed module) with methods, networks, metrics or kinds of image files of your own. UNPAIRED_PLUGINS",
            "names such files, too.",
            "",
            "'unpaired COMMAND --help' lists a command's options; 'unpaired --version' prints the version.",
        ]
    )


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
) -> None:
    """Say ours in one line; those of other packages keep where they come from."""
    if issubclass(category, PluginWarning | ValueRangeWarning):
        print(f"warning: {message}", file=sys.stderr)
    else:
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno))


def _fail(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
