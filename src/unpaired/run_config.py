"""Everything that defines a run, as ``run.yaml`` holds it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from unpaired.config import from_dict, load_yaml, save_yaml, to_dict
from unpaired.data import DataConfig, DatasetConfig, in_todays_words, of_an_earlier_version
from unpaired.engine.training_config import TrainingConfig
from unpaired.errors import ConfigError, nearest
from unpaired.inference.initial import InitialWeights
from unpaired.length import Extension
from unpaired.methods import METHODS
from unpaired.plugins import Plugin, check_plugins, plugins_of

MAY_CHANGE = {
    "training.devices", "training.nodes", "training.accelerator", "training.threads", "training.log_every",
    "training.sample_every", "training.checkpoint_every", "training.keep_checkpoints", "training.stop_after",
    "training.compile", "training.logger", "training.channels_last", "training.cuda_graph", "data.num_workers",
    "data.cache_gib",
    "training.score_every", "training.score_images", "training.score_by", "dataset.held_out_source",
    "dataset.held_out_target", "dataset.scored_domains", "model.vgg16_weights", "model.download_weights",
    "model.backbone_weights",
}  # fmt: skip
"""Settings that do not change what is learned, so a run may be resumed with other values of them."""
PATHS = {f"dataset.{name}" for name in ("folder", "source", "target", "domains")}
"""Places of the images; a resumed run may have others, as long as names and sizes of the files agree."""


@dataclass(frozen=True)
class RunConfig:
    """Everything that defines a run; stored as ``run.yaml`` in its folder.

    Attributes:
        method: A key of ``METHODS``.
        dataset: Where the images lie.
        data: How they are read, resized and cropped; unset: as the method's authors do it (:func:`loading`).
        model: The method's own settings (its ``Config``).
        training: Length, seeds, precision, processes and bookkeeping.
        init: Weights to begin with; None begins with random ones.
        extensions: What ``extend_to`` of :func:`unpaired.training.train` has made of the length so far.
    """

    method: str
    dataset: DatasetConfig
    data: DataConfig = None  # type: ignore[assignment]  # it is one once the run is made
    model: Any = None
    training: TrainingConfig = field(default_factory=TrainingConfig)
    init: InitialWeights | None = None
    extensions: tuple[Extension, ...] = ()

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(
                f"method: there is no '{self.method}'{nearest(self.method, METHODS)}; known: {', '.join(METHODS)}"
            )
        if self.data is None:
            object.__setattr__(self, "data", loading(self.method))
        settings = METHODS[self.method].Config
        if self.model is None:
            object.__setattr__(self, "model", settings())
        elif type(self.model) is not settings:
            raise ConfigError(
                f"model: the method '{self.method}' takes {settings.__name__}, not {type(self.model).__name__}"
            )

    @property
    def images(self) -> int | None:
        """Length of training in images, extensions included; None where it is a number of epochs."""
        return self.extensions[-1].to if self.extensions else self.training.images

    @property
    def plugins(self) -> tuple[Plugin, ...]:
        """The plug-ins that define the method or its networks."""
        return plugins_of([METHODS[self.method], type(self.model)], to_dict(self.model))

    def to_mapping(self) -> dict[str, Any]:
        """Plain values, as written to YAML."""
        mapping: dict[str, Any] = {
            "method": self.method,
            **{name: to_dict(getattr(self, name)) for name in ("dataset", "data", "model", "training")},
        }
        if self.plugins:
            mapping["plugins"] = [asdict(plugin) for plugin in self.plugins]
        if self.init is not None:
            mapping["init"] = to_dict(self.init)
        if self.extensions:
            mapping["extensions"] = [to_dict(extension) for extension in self.extensions]
        return mapping

    def in_precision(self, precision: Literal["32", "bf16-mixed", "auto"]) -> RunConfig:
        """The same run in another precision."""
        return replace(self, training=replace(self.training, precision=precision))

    @staticmethod
    def from_mapping(mapping: dict[str, Any], where: str = "run.yaml") -> RunConfig:
        """Build from plain values; missing settings take their defaults, those of ``data`` the method's.

        A section ``data`` stored by an earlier version of this package lacks the settings that are newer. These keep
        the behaviour with which the run was trained, whatever the method's defaults are today.

        Raises:
            ConfigError: A key is unknown, a value has the wrong type, or a plug-in is not loaded; the message names
                ``where``.
        """
        known = ("method", "dataset", "data", "model", "training", "plugins", "init", "extensions")
        for key in mapping:
            if key not in known:
                raise ConfigError(f"{where}: unknown key '{key}'{nearest(str(key), known)}; known: {', '.join(known)}")
        check_plugins(mapping.get("plugins"), where)
        method = mapping.get("method", "qs_attn")
        if not isinstance(method, str) or method not in METHODS:
            raise ConfigError(
                f"{where}: method: there is no '{method}'{nearest(str(method), METHODS)}; known: {', '.join(METHODS)}"
            )
        sections = {"dataset": DatasetConfig, "data": DataConfig, "training": TrainingConfig}
        sections["model"] = METHODS[method].Config
        given = {key: _section(mapping, key) for key in sections}
        if isinstance(given["data"], dict):
            own = {} if of_an_earlier_version(given["data"]) else METHODS[method].data_defaults
            given["data"] = {**own, **in_todays_words(given["data"])}
        parts: dict[str, Any] = {key: from_dict(cls, given[key], f"{where}: {key}") for key, cls in sections.items()}
        if mapping.get("init") is not None:
            parts["init"] = from_dict(InitialWeights, mapping["init"], f"{where}: init")
        extensions = mapping.get("extensions") or []
        if not isinstance(extensions, list):
            raise ConfigError(f"{where}: extensions must be a list of 'at' and 'to', not {extensions!r}")
        parts["extensions"] = tuple(from_dict(Extension, one, f"{where}: extensions") for one in extensions)
        return RunConfig(method=method, **parts)

    @staticmethod
    def load(path: str | Path) -> RunConfig:
        """Read a run file. Raises ``ConfigError``."""
        return RunConfig.from_mapping(load_yaml(path), where=str(path))


def loading(method: str, **changes: Any) -> DataConfig:
    """The section ``data`` as a method's authors load their images, with ``changes`` to it.

    Raises:
        ConfigError: The settings cannot work.
    """
    return DataConfig(**{**METHODS[method].data_defaults, **changes})


def as_begun(config: RunConfig, out: Path) -> RunConfig:
    """``config`` with what a run that already exists in ``out`` decides; without such a run, ``config`` itself.

    The precision ``auto`` becomes the precision that the run began with. If the run began with a version that had
    other defaults, settings of ``data`` that equal the method's defaults of today become those of the run; any other
    value stays, and is refused later if it differs from the run's.

    Raises:
        ConfigError: The folder's ``run.yaml`` is no run file.
    """
    file = out / "run.yaml"
    if file.exists() and RunConfig.load(file).data.colour_profiles == "ignore":  # as earlier versions did
        config = replace(config, data=replace(config.data, colour_profiles="ignore"))
    if not file.exists() or not (config.training.precision == "auto" or of_an_earlier_version(_stored_data(file))):
        return config
    before, today = RunConfig.load(file), loading(config.method)
    if config.training.precision == "auto":
        config = config.in_precision(before.training.precision)
    if before.method != config.method or not of_an_earlier_version(_stored_data(file)):
        return config
    changed = {
        name: getattr(before.data, name)
        for name in METHODS[config.method].data_defaults
        if getattr(config.data, name) == getattr(today, name)
    }
    return replace(config, data=replace(config.data, **changed))


def _stored_data(file: Path) -> dict[str, Any]:
    """The section ``data`` of a run file, as it is."""
    found = _section(load_yaml(file), "data")
    return found if isinstance(found, dict) else {}


def store(file: Path, mapping: dict[str, Any]) -> None:
    """Write a run file; one of an earlier version stays one, so that the run is known as such the next time, too."""
    if file.exists() and of_an_earlier_version(before := _stored_data(file)):
        mapping = {**mapping, "data": {key: value for key, value in mapping["data"].items() if key in before}}
    save_yaml(file, mapping)


def _section(mapping: dict[str, Any], key: str) -> Any:
    """One section of a run file; a heading with nothing below it is an empty one."""
    return {} if mapping.get(key) is None else mapping[key]


def flat(mapping: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level: ``training.seed`` and the like -> value."""
    found: dict[str, Any] = {}
    for key, value in mapping.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found
