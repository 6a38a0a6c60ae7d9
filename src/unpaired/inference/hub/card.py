"""The model card: what a person needs to judge and use a model, made from the records of its run."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from unpaired.config import checked, stored
from unpaired.data import height_width, size_words
from unpaired.errors import ConfigError
from unpaired.files import json_lines, last_part

RECORDS = "evaluations.jsonl"
_NOT_SPDX = ("other", "unknown")
"""What the Hub knows beside SPDX names."""
_WEIGHTS = {"ema": "averaged (EMA)", "last": "last", "best": "best"}


@dataclass(frozen=True)
class Licences:
    """What may be done with a model; what is not known is left out of the card and said to be unknown.

    Attributes:
        model: Licence of the weights, an SPDX name such as ``cc-by-4.0``.
        data: Licence of the training images, in words.
        data_name: What the training images are, in words.

    Raises:
        ConfigError: ``model`` is not an SPDX name.
    """

    model: str | None = None
    data: str | None = None
    data_name: str | None = None

    def __post_init__(self) -> None:
        if self.model is None or self.model.lower() in _NOT_SPDX:
            return
        try:
            named = canonicalize_license_expression(self.model)
        except InvalidLicenseExpression:
            raise ConfigError(
                f"licence: '{self.model}' is not an SPDX name (https://spdx.org/licenses); use one such as cc-by-4.0, "
                f"mit or apache-2.0, or {' or '.join(_NOT_SPDX)}"
            ) from None
        object.__setattr__(self, "model", named.lower())  # as the Hub writes them


def model_card(
    repo_id: str,
    description: Mapping[str, Any],
    *,
    title: str,
    citation: str,
    weights: Sequence[str],
    licences: Licences,
    record: Mapping[str, Any] | None = None,
    samples: bool = False,
) -> str:
    """The text of ``README.md``.

    Args:
        repo_id: ``owner/name``, for the example.
        description: What ``model.json`` holds.
        title: Name of the method.
        citation: The method's paper.
        weights: Kinds that are uploaded: ``ema``, ``last``, ``best``.
        licences: Of the model and of the data.
        record: The newest line of ``evaluations.jsonl``, if the run was scored.
        samples: Whether ``samples.png`` lies beside the card.
    """
    name = repo_id.rsplit("/", 1)[-1]
    parts = [
        _front_matter(licences, description),
        f"# {name}",
        f"{title}, an unpaired image-to-image translation, {_origin(description)} {citation}",
    ]
    if samples:
        parts.append("![Samples](samples.png)\n\nThe last sample grid of training, images of the training sets.")
    parts += [
        "## How to use it",
        _usage(repo_id, description, weights),
        "## What it is",
        _facts(description, weights),
        "## Scores",
        _scores(record),
        "## Data and licence",
        _licence_words(licences),
    ]
    return "\n\n".join(parts) + "\n"


def _origin(description: Mapping[str, Any]) -> str:
    ours = "[unpaired](https://pypi.org/project/unpaired/)."
    imported = description.get("imported")
    if not isinstance(imported, Mapping):
        return f"trained with {ours}"
    files = ", ".join(f"`{one['file']}` (SHA-256 {one['sha256'][:16]}...)" for one in imported.values())
    return f"not trained here: its weights were published as {files} and brought into the format of {ours}"


@stored
class _Score:
    """What a card says of a score."""

    label: str
    value: float | Literal["inf", "-inf"] | None
    better: str = ""
    unit: str | None = None
    protocol: str = ""


@stored
class _Row:
    label: str = ""


@stored
class _ScoredImages:
    name: str = "held-out images"
    source_images: int | str = "?"
    target_images: int | str = "?"
    image_size: int | tuple[int, int] | str = "?"


@stored
class _Evaluation:
    """What a card says of a line of ``evaluations.jsonl``; those of earlier versions hold less."""

    scores: dict[str, dict[str, _Score]]
    rows: dict[str, _Row] = field(default_factory=dict)
    data: _ScoredImages = field(default_factory=_ScoredImages)
    images_seen: int | str = "?"
    seed: int | str = "?"


def newest_record(run: Path) -> dict[str, Any] | None:
    """The last whole line of a run's ``evaluations.jsonl``; ``None`` where it was never scored."""
    with contextlib.suppress(OSError):
        for entry in reversed(json_lines(run / RECORDS)):
            with contextlib.suppress(ValueError):
                checked(_Evaluation, entry)
                return entry
    return None


def _front_matter(licences: Licences, description: Mapping[str, Any]) -> str:
    tags = ["image-to-image", "unpaired-image-translation", "gan", str(description["method"]).replace("_", "-")]
    lines = ["library_name: unpaired", "pipeline_tag: image-to-image"]
    if licences.model:
        lines.append(f"license: {json.dumps(licences.model)}")
    return "\n".join(["---", *lines, "tags:", *(f"- {tag}" for tag in tags), "---"])


def _usage(repo_id: str, description: Mapping[str, Any], weights: Sequence[str]) -> str:
    chosen = "" if "ema" in weights else f', weights="{weights[0]}"'
    option = "" if "ema" in weights else f" --weights {weights[0]}"
    reads = "Image.open" if description["channels"] in (1, 3) else "numpy.load"
    first = "from PIL import Image" if reads == "Image.open" else "import numpy"
    code = (
        f"{first}\nimport unpaired\n\n"
        f'translator = unpaired.Translator.from_pretrained("{repo_id}"{chosen})\n'
        f'translated = translator.translate({reads}("input.{"png" if reads == "Image.open" else "npy"}"))'
    )
    plugins, needs = description.get("plugins") or (), ""
    if plugins:
        named = ", ".join(f"`{one['name']}` (SHA-256 {one['sha256'][:16]}...)" for one in plugins)
        needs = f"Its networks are code that is not part of unpaired: {named}. You need a copy of it.\n\n"
        option += "".join(f" --plugin {one['name']}" for one in plugins)
        loaded = "".join(f'unpaired.load_plugin("{one["name"]}")\n' for one in plugins)
        code = code.replace("\n\ntranslator", f"\n\n{loaded}translator")
    shell = f"pip install 'unpaired[hub]'\nunpaired translate {repo_id} photos --out translated{option}"
    return f"{needs}```bash\n{shell}\n```\n\n```python\n{code}\n```"


def _facts(description: Mapping[str, Any], weights: Sequence[str]) -> str:
    seen = description.get("images_seen")
    height, width = height_width(description["image_size"])
    rows = [
        ("method", f"`{description['method']}`"),
        ("training crops", f"{height} x {width} pixels"),
        ("channels", str(description["channels"])),
        ("images seen in training", f"{seen:,}" if isinstance(seen, int) else "unknown"),
        ("weights", ", ".join(f"`{name}.safetensors` ({_WEIGHTS.get(name, name)})" for name in weights)),
        ("made by", f"unpaired {description.get('unpaired_version', 'of unknown version')}"),
    ]
    return "\n".join(["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows)])


def _scores(record: Mapping[str, Any] | None) -> str:
    if record is None:
        return "It has not been scored on held-out images."
    scored = checked(_Evaluation, record)
    columns: dict[str, _Score] = {}
    for values in scored.scores.values():
        columns |= {key: value for key, value in values.items() if key not in columns}
    head = ["", *(_heading(column) for column in columns.values())]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for key, values in scored.scores.items():
        label = scored.rows.get(key, _Row()).label or key
        lines.append("| " + " | ".join([label, *(_number(values.get(name)) for name in columns)]) + " |")
    data, seen = scored.data, scored.images_seen
    size = size_words(data.image_size) if isinstance(data.image_size, tuple) else data.image_size
    about = (
        f"Held-out images of `{last_part(data.name)}`: {data.source_images} source and {data.target_images} target "
        f"images at {size} pixels, after {f'{seen:,}' if isinstance(seen, int) else seen} images of training; seed of "
        f"the scores {scored.seed}."
    )
    protocols = [f"- `{name}`: {column.protocol}" for name, column in columns.items()]
    return "\n".join([about, "", *lines, "", *protocols])


def _heading(column: _Score) -> str:
    arrow = {"lower": " ↓", "higher": " ↑"}.get(column.better, "")
    return f"{column.label}{arrow}" + (f" ({column.unit})" if column.unit else "")


def _number(score: _Score | None) -> str:
    value = None if score is None else score.value
    return f"{value:.4g}" if isinstance(value, int | float) else value or ""


def _licence_words(licences: Licences) -> str:
    data = licences.data_name or "The training images are not named."
    terms = f"Their licence: {licences.data}." if licences.data else "Their licence is not stated: ask before use."
    model = (
        f"The weights are under {licences.model}."
        if licences.model
        else "No licence of the weights is stated: ask before use."
    )
    return f"{data.rstrip('.')}. {terms} {model}"
