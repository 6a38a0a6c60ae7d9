"""Images of the library ``datasets`` (``unpaired[datasets]``): of the Hub, parquet files, WebDataset shards, folders.

They are named ``hf:NAME``, or ``hf:NAME?split=train&column=image&label=horse&config=...&revision=...``. NAME is a
dataset of the Hub, a folder that the library reads or that ``save_to_disk`` wrote, or a pattern of ``.parquet``,
``.arrow`` or ``.tar`` files.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np

from unpaired.data.folders import DATASET, is_dataset
from unpaired.data.sets import SAMPLE, Dataset
from unpaired.errors import ConfigError, DataError, nearest, require_packages

_FORMATS = {".parquet": "parquet", ".arrow": "arrow", ".tar": "webdataset"}
_KEYS = ("config", "split", "column", "label", "revision")


def absolute(place: Any, beside: Path | None = None) -> Any:
    """A place, or each of several, that means the same in every working folder; relative to ``beside`` or to ours."""
    if isinstance(place, tuple):
        return tuple(absolute(each, beside) for each in place)
    if place is None:
        return None
    beside = Path(os.path.abspath(beside or ""))
    if not is_dataset(place):
        return beside / place.expanduser()
    name, mark, query = str(place)[len(DATASET) :].partition("?")
    local = (beside / name).exists() or name.endswith(tuple(_FORMATS))
    return Path(f"{DATASET}{beside / name if local else name}{mark}{query}")


def images_of(place: object) -> Dataset:
    """The images that a place names.

    Raises:
        BackendError: The library is not installed.
        ConfigError: The place is not written as one.
        DataError: There is no such dataset, split, column or label, or it cannot be loaded.
    """
    name, asked = _parsed(place)
    return _chosen(place, _splits(place, name, asked), {"split": "train", **asked})


def pair_of(place: object, split: str) -> tuple[Dataset, Dataset] | None:
    """The images of A and B of a split; None where the dataset has no such split.

    These are the splits trainA and trainB; or two columns of images of the split train; or its two labels.

    Raises:
        UserError: As of :func:`images_of`; or it is not clear which images are A and which are B.
    """
    name, asked = _parsed(place)
    for key in asked.keys() & {"split", "label"}:
        raise ConfigError(f"{place}: '{key}' chooses the images of one domain; {_HOW}")
    splits = _splits(place, name, asked)
    pairs = [f"{split}{letter}" for letter in "AB"]
    if all(each in splits for each in pairs):
        a, b = (_chosen(place, splits, {**asked, "split": each}) for each in pairs)
        return a, b
    if split not in splits:
        if split != "train":
            return None
        raise DataError(f"{place}: has the splits {', '.join(splits)}; {_HOW}")
    rows = splits[split]
    columns, labels = _image_columns(rows), _labels(rows)
    if len(columns) == 2:
        a, b = (_chosen(place, splits, {**asked, "split": split, "column": each}) for each in sorted(columns))
    elif len(labels) == 2:
        a, b = (_chosen(place, splits, {**asked, "split": split, "label": each}) for each in labels)
    else:
        raise DataError(
            f"{place}: its split {split} has the image columns {', '.join(columns) or 'none'} and "
            f"{len(labels)} labels; {_HOW}"
        )
    return a, b


_HOW = "name both domains: --source 'hf:NAME?split=...&column=...&label=...' and --target likewise"


def _parsed(place: object) -> tuple[str, dict[str, str]]:
    name, _, query = str(place)[len(DATASET) :].partition("?")
    asked = dict(parse_qsl(query, keep_blank_values=True))
    for key in asked:
        if key not in _KEYS:
            raise ConfigError(f"{place}: there is no '{key}'{nearest(key, _KEYS)}; known: {', '.join(_KEYS)}")
    if not name:
        raise ConfigError(f"{place}: names no dataset; write hf:owner/name, or hf:FOLDER")
    return name, asked


def _splits(place: object, name: str, asked: dict[str, str]) -> dict[str, Any]:
    require_packages(str(place), "datasets", "datasets")
    import datasets

    folder, kind = Path(name), _FORMATS.get(Path(name).suffix)
    options = {"name": asked.get("config"), "revision": asked.get("revision")}
    try:
        if kind is not None:
            found = datasets.load_dataset(kind, data_files={"train": name})
        elif (folder / "dataset_dict.json").exists() or (folder / "state.json").exists():
            found = datasets.load_from_disk(name)
        else:
            found = datasets.load_dataset(name, **options)
    except Exception as error:  # the library, its readers, and whatever answers at the other end
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"{place}: cannot be loaded ({type(error).__name__}: {why})") from error
    return dict(found) if isinstance(found, dict) else {"train": found}


def _chosen(place: object, splits: dict[str, Any], asked: dict[str, str]) -> Dataset:
    import datasets

    split = asked["split"]
    if split not in splits:
        raise DataError(f"{place}: has no split '{split}'{nearest(split, splits)}; it has {', '.join(splits)}")
    rows, column = splits[split], asked.get("column")
    if (label := asked.get("label")) is not None:
        labels = _labels(rows)
        if label not in labels:
            raise DataError(
                f"{place}: has no label '{label}'{nearest(label, labels)}; it has {', '.join(labels) or 'none'}"
            )
        values = np.asarray(rows.with_format("numpy")[_label_column(rows)][:])
        rows = rows.select(np.flatnonzero(values == (labels[label])))
    columns = _image_columns(rows)
    if column is None and len(columns) != 1:
        raise DataError(f"{place}: has the image columns {', '.join(columns) or 'none'}; say which by ?column=")
    column = column or columns[0]
    if column not in rows.column_names:
        known = rows.column_names
        raise DataError(f"{place}: has no column '{column}'{nearest(column, known)}; it has {', '.join(known)}")
    rows = rows.select_columns([column])
    if isinstance(rows.features[column], datasets.Image):
        rows = rows.cast_column(column, datasets.Image(decode=False))  # files are read as files, EXIF and all
    words = "&".join(f"{key}={value}" for key, value in asked.items())
    label_of_set = f"{str(place).partition('?')[0]}?{words}"
    return Dataset(rows, label_of_set, lambda row: _file(row[column]), rows._fingerprint, SAMPLE)


def _file(value: Any) -> Any:
    if isinstance(value, dict) and {"bytes", "path"} <= value.keys():
        return io.BytesIO(value["bytes"]) if value["bytes"] is not None else Path(value["path"])
    return np.asarray(value) if isinstance(value, list) else value


def _image_columns(rows: Any) -> list[str]:
    import datasets

    return [name for name, feature in rows.features.items() if isinstance(feature, datasets.Image)]


def _label_column(rows: Any) -> str | None:
    import datasets

    return next((name for name, feature in rows.features.items() if isinstance(feature, datasets.ClassLabel)), None)


def _labels(rows: Any) -> dict[str, int]:
    column = _label_column(rows)
    return {} if column is None else {name: number for number, name in enumerate(rows.features[column].names)}
