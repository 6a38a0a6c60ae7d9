"""Plug-ins: methods, networks, metrics and kinds of files in anyone's Python files, run only where a person names them.

``--plugin`` and the environment variable ``UNPAIRED_PLUGINS`` name files or modules; an installed package names modules
as entry points of :data:`GROUPS`. What a model's folder or a run file names is never imported on its word.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.util
import os
import sys
import sysconfig
import traceback
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from unpaired.errors import ConfigError, PluginError, PluginWarning

VARIABLE = "UNPAIRED_PLUGINS"
"""Environment variable with plug-ins, separated like the folders of PATH."""
GROUPS = ("unpaired.methods", "unpaired.metrics", "unpaired.readers")
"""Entry points whose modules are imported."""


@dataclass(frozen=True)
class Plugin:
    """A plug-in as runs record it.

    Attributes:
        name: What names it: a file's name, or a module with its packages.
        sha256: Of its code, 64 hex digits: of the one file; or of all files of its package, or of the file and those
            that it imports from its folder, with their names.
    """

    name: str
    sha256: str


_LOADED: dict[str, Plugin] = {}
"""Module -> plug-in."""
_PARTS: dict[str, Plugin] = {}
"""Module that a plug-in imports from its folder -> the plug-in."""


def load_plugin(place: str | Path) -> Plugin:
    """Run a plug-in, once; what it registers can be used from then on.

    Args:
        place: A Python file, the folder of a package, or the dotted name of an installed module. A name without
            ``.py`` and without a slash is that of a module.

    Raises:
        ConfigError: There is no such file or module, it fails, or its name is taken.
    """
    is_path = isinstance(place, Path) or str(place).endswith(".py") or os.sep in str(place)
    path = Path(place).absolute()
    module = path.name.removesuffix(".py") if is_path else str(place)
    if not is_path and module in _LOADED:
        return _LOADED[module]
    file = _origin(module) if not is_path else path / "__init__.py" if path.is_dir() else path
    if file is None:
        raise ConfigError(
            f"plug-in {module}: there is no such module; a file is named with its .py, a package by its folder"
        )
    try:
        file.stat()
        files = _files(module, file)
        plugin = Plugin(path.name if is_path else module, _digest(files))
    except OSError as error:
        needs = " (a folder is a plug-in if it has an __init__.py)" if path.is_dir() else ""
        raise ConfigError(f"plug-in {place}: {error.strerror or error}{needs}") from error
    if (known := _LOADED.get(module)) is not None:
        if known.sha256 != plugin.sha256:
            raise ConfigError(f"plug-in {place}: another '{module}' is loaded; rename it, or start Python again")
        return known
    taken = _origin(module) if is_path else None
    if taken not in (None, file) and taken.parent != Path.cwd():  # with 'python -m', the working folder is searched
        raise ConfigError(f"plug-in {place}: '{module}' is the name of another Python module; rename the file")
    _LOADED[module] = plugin
    if is_path and file == path:
        parts = [each.relative_to(file.parent).parts[0].removesuffix(".py") for each in files if each != file]
        _PARTS.update(dict.fromkeys(parts, plugin))
        if parts and str(file.parent) not in sys.path:
            sys.path.append(str(file.parent))  # the last, so that nothing else is hidden by what lies there
            importlib.invalidate_caches()
    try:
        if module not in sys.modules:
            _run(module, file) if is_path else importlib.import_module(module)
    except Exception as error:
        del _LOADED[module]
        for name in [each for each in sys.modules if each == module or each.startswith(f"{module}.")]:
            del sys.modules[name]
        lines = [each.lineno for each in traceback.extract_tb(error.__traceback__) if Path(each.filename) == file]
        line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else (lines or [None])[-1]
        where = f"line {line}: " if line else ""
        raise ConfigError(f"plug-in {place}: {where}{type(error).__name__}: {error}") from error
    return plugin


def load_plugins() -> None:
    """Load what ``UNPAIRED_PLUGINS`` names and what installed packages offer; each is run once.

    Raises:
        ConfigError: One that the variable names cannot be loaded. One of a package is left out with a warning.
    """
    for place in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        load_plugin(place)
    _load_installed()


def plugins_of(classes: Sequence[type], settings: Mapping[str, Any]) -> tuple[Plugin, ...]:
    """The plug-ins in which classes, classes that they inherit, or classes that settings name are defined.

    Args:
        classes: For example a method and its ``Config``.
        settings: As plain values; those of the form ``package.module:Class`` count.
    """
    modules = [base.__module__ for each in classes for base in each.__mro__]
    modules += [value.partition(":")[0] for value in settings.values() if isinstance(value, str)]
    found = [_LOADED.get(module) or _of_package(module) or _PARTS.get(module.partition(".")[0]) for module in modules]
    return tuple(dict.fromkeys(plugin for plugin in found if plugin is not None))


def check_plugins(recorded: Any, where: str) -> None:
    """Compare the plug-ins that a run or a model names with those that are loaded; warn of those that have changed.

    Args:
        recorded: A list of mappings with ``name`` and ``sha256``; None where there were none.
        where: The file, for messages.

    Raises:
        ConfigError: One is not loaded, or the list is none.
    """
    digests = {plugin.name: plugin.sha256 for plugin in _LOADED.values()}
    try:
        wanted = [Plugin(each["name"], each["sha256"]) for each in recorded or ()]
    except (TypeError, KeyError) as error:
        raise ConfigError(f"{where}: 'plugins' must be a list of 'name' and 'sha256'") from error
    for plugin in wanted:
        if plugin.sha256 in digests.values():
            continue
        if plugin.name not in digests:
            raise PluginError(
                f"{where} needs the plug-in {plugin.name} (sha256 {plugin.sha256[:12]}), whose code is run only if you "
                f"name it: add --plugin {plugin.name} with the path of your copy, or set {VARIABLE}"
            )
        warnings.warn(
            f"the plug-in {plugin.name} is not the one that {where} was written with (sha256 now "
            f"{digests[plugin.name][:12]}, recorded {plugin.sha256[:12]})",
            PluginWarning,
            stacklevel=2,
        )


def named(setting: str, value: str) -> Any:
    """What a setting names as ``package.module:name``, of a plug-in that was loaded.

    Raises:
        PluginError: It was not.
        ConfigError: There is no such thing in it.
    """
    module, _, name = value.partition(":")
    if module not in _LOADED and _of_package(module) is None:
        raise PluginError(
            f"{setting}: '{value}' is code that is run only if you name it: add --plugin {module}.py with its path "
            f"(or --plugin {module} for an installed module), or set {VARIABLE}"
        )
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        raise ConfigError(f"{setting}: {module} has no '{name}'") from None


def make_named(setting: str, value: str, members: Sequence[str], *arguments: Any, **options: Any) -> Any:
    """Make an object of the class that a setting names, as of :func:`named`.

    Raises:
        ConfigError: There is no such class, it cannot be made so, or it lacks one of ``members``.
    """
    found = named(setting, value)
    if not isinstance(found, type):
        raise ConfigError(f"{setting}: {value} is not a class")
    try:
        made = found(*arguments, **options)
    except TypeError as error:
        raise ConfigError(f"{setting}: {value} cannot be made: {error}") from error
    if missing := [member for member in members if not hasattr(made, member)]:
        raise ConfigError(f"{setting}: {value} lacks {', '.join(missing)}; inherit them from a network of the package")
    return made


@functools.cache
def _load_installed() -> None:
    entries = metadata.entry_points()
    for entry in (entry for group in GROUPS for entry in entries.select(group=group)):
        try:
            load_plugin(entry.module)
        except ConfigError as error:
            warnings.warn(f"{error}; it is left out", PluginWarning, stacklevel=2)


def _of_package(module: str) -> Plugin | None:
    """The plug-in of the same package, if a package has any."""
    root = module.partition(".")[0]
    return next((plugin for key, plugin in _LOADED.items() if key.partition(".")[0] == root), None)


def _origin(module: str) -> Path | None:
    """Where a module lies, loaded or not; None where there is none that can be imported."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin).absolute() if spec is not None and spec.origin else None


def _files(module: str, file: Path) -> list[Path]:
    """The code of a plug-in: all of its package; of a single file, it and what it imports from its folder."""
    packaged = file.name == "__init__.py"
    if packaged or "." in module:
        return sorted(file.parents[module.count(".") - (not packaged)].rglob("*.py"))
    found, left = list[Path](), [file]
    while left:
        if (path := left.pop()) not in found:
            found.append(path)
            left += _imported(path, file.parent)
    return sorted(found)


def _imported(path: Path, folder: Path) -> list[Path]:
    """The files of ``folder`` that one of them imports; none where modules are installed."""
    if str(folder) in sysconfig.get_paths().values():
        return []
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return []  # said when it is run
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level]
    tops = {name.partition(".")[0] for name in names}
    files = [folder / f"{top}.py" for top in tops if (folder / f"{top}.py").is_file()]
    return files + [file for top in tops for file in (folder / top).rglob("*.py")]


def _digest(files: Sequence[Path]) -> str:
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    if len(files) == 1:
        return digests[0]
    top = os.path.commonpath([path.parent for path in files])
    lines = (f"{path.relative_to(top).as_posix()} {digest}\n" for path, digest in zip(files, digests, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _run(module: str, file: Path) -> None:
    spec = importlib.util.spec_from_file_location(module, file)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[module] = made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
