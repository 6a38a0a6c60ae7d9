"""Label maps in the colours of Cityscapes, and scores of a segmenter's labels against them.

Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", CVPR 2016; colours and train ids are
those of its published tools. Mean intersection over union (IoU), pixel accuracy and class accuracy follow the
evaluation script of DRN (Yu, Koltun, Funkhouser 2017), which this field uses and calls "mAP", "pixAcc" and "classAcc".

Shapes: B batch, H height, W width, N images, C the 19 classes (rows: truth, columns: prediction).
"""

from __future__ import annotations

import functools
from functools import partial

import numpy as np
import torch
from torch import Tensor

from unpaired.errors import DataError
from unpaired.evaluation.intervals import jackknife_interval
from unpaired.evaluation.registry import ImageSets, Score, metric

NUM_CLASSES = 19
IGNORED = 255
"""Train id of pixels that no score counts."""
LABEL_MAP_DISTANCE = 8.0
"""Euclidean distance, in levels of 255, up to which a pixel has a class's colour in spite of JPEG."""
LABEL_MAP_FIT = 0.3
"""Least mean of ``label_map_fit`` over a set of label maps. Measured at 256 px: 0.62 on the JPEG label maps of the
field, 0.61 after resizing to 64 px; 0.02 on street photos, 0.01 on photos of animals and on drawings."""
_PIXELS_PER_BLOCK = 1 << 18


@functools.cache
def cityscapes_classes() -> tuple[tuple[str, tuple[int, int, int], int], ...]:
    """Name, colour and train id: the 19 scored classes in the order of their ids, then those that are ignored.

    Where two share a colour (pole and polegroup, car and license plate) the first is what the colour means.
    """
    from torchvision.datasets import Cityscapes

    rows = [(c.name, c.color, c.train_id if c.train_id >= 0 else IGNORED) for c in Cityscapes.classes]
    return tuple(sorted(rows, key=lambda row: row[2]))


def _nearest_colours(images_B3HW: Tensor) -> tuple[Tensor, Tensor]:
    """Train id of the nearest official colour and the squared distance to it, of every pixel: two (B, H, W)."""
    if images_B3HW.ndim != 4 or images_B3HW.shape[1] != 3:
        raise DataError(f"label maps must be colour images (B, 3, H, W), not {tuple(images_B3HW.shape)}")
    batch, _, height, width = images_B3HW.shape
    # Whole levels make the distances whole numbers under 2^24: exact in float32, so that ties go to the first row.
    levels = ((images_B3HW.detach().float() + 1.0) * 127.5).round().clamp(0.0, 255.0).permute(0, 2, 3, 1).reshape(-1, 3)
    classes = cityscapes_classes()
    first = {colour: train_id for _, colour, train_id in reversed(classes)}  # reversed: the first row wins
    colours = torch.tensor([row[1] for row in classes], dtype=torch.float32, device=levels.device)
    train_ids = torch.tensor([first[row[1]] for row in classes], device=levels.device)
    ids, squares = [], []
    for block in levels.split(_PIXELS_PER_BLOCK):
        offset = torch.addmm(colours.square().sum(1), block, colours.T, alpha=-2.0)
        nearest = offset.min(1)
        ids.append(train_ids[nearest.indices])
        squares.append(nearest.values + block.square().sum(1))
    shape = (batch, height, width)
    return torch.cat(ids).view(shape), torch.cat(squares).view(shape)


def snap_labels(images_B3HW: Tensor) -> Tensor:
    """Read label maps in [-1, 1]: the train id of the nearest official colour, ``IGNORED`` for void ones.

    >>> snap_labels(torch.tensor([128.0, 66.0, 125.0]).view(1, 3, 1, 1) / 127.5 - 1.0)  # nearly road
    tensor([[[0]]])

    Returns:
        (B, H, W) int64, on the device of the images.

    Raises:
        DataError: The images are not (B, 3, H, W).
    """
    return _nearest_colours(images_B3HW)[0]


def label_map_fit(images_B3HW: Tensor) -> list[float]:
    """Share of each image's pixels within ``LABEL_MAP_DISTANCE`` of the colour of one of the 19 scored classes.

    A set whose mean is under ``LABEL_MAP_FIT`` is none of Cityscapes label maps. Void colours do not count, because one
    of them is black, which any image may be.

    Raises:
        DataError: The images are not (B, 3, H, W).
    """
    ids, squares = _nearest_colours(images_B3HW)
    fits = (squares <= LABEL_MAP_DISTANCE**2) & (ids != IGNORED)
    return fits.double().flatten(1).mean(1).tolist()


def confusion_matrices(truth_BHW: Tensor, predicted_BHW: Tensor) -> Tensor:
    """Count pixels by true and predicted class, per image: (B, 19, 19) int64 on the CPU.

    Pixels whose truth is ``IGNORED`` are left out, whatever was predicted there.

    Raises:
        DataError: The shapes differ, or an id is outside 0..18.
    """
    if truth_BHW.ndim != 3 or truth_BHW.shape != predicted_BHW.shape:
        raise DataError(
            f"label maps must be two batches of one shape (B, H, W), not {tuple(truth_BHW.shape)} "
            f"and {tuple(predicted_BHW.shape)}"
        )
    result = torch.zeros(len(truth_BHW), NUM_CLASSES, NUM_CLASSES, dtype=torch.int64)
    for index, (truth, predicted) in enumerate(zip(truth_BHW.cpu(), predicted_BHW.cpu(), strict=True)):
        counted = truth != IGNORED
        true_ids, predicted_ids = truth[counted].long(), predicted[counted].long()
        for what, ids in (("true", true_ids), ("predicted", predicted_ids)):
            if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < NUM_CLASSES:
                raise DataError(
                    f"image {index} has {what} class ids from {int(ids.min())} to {int(ids.max())}; "
                    f"expected train ids 0 to {NUM_CLASSES - 1}"
                )
        cells = torch.bincount(true_ids * NUM_CLASSES + predicted_ids, minlength=NUM_CLASSES**2)
        result[index] = cells.view(NUM_CLASSES, NUM_CLASSES)
    return result


def _scores(counts_RCC: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """IoU per class (R, C), then mean IoU, pixel accuracy and class accuracy, each (R,); nan where undefined."""
    right = np.diagonal(counts_RCC, axis1=1, axis2=2)
    true, predicted = counts_RCC.sum(2), counts_RCC.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        iou = right / (true + predicted - right)
        recall = right / true
        pixel_accuracy = right.sum(1) / true.sum(1)
    return iou, _mean_of_known(iou), pixel_accuracy, _mean_of_known(recall)


def _mean_of_known(values_RC: np.ndarray) -> np.ndarray:
    known = ~np.isnan(values_RC)
    with np.errstate(invalid="ignore"):
        return np.where(known, values_RC, 0.0).sum(1) / known.sum(1)


def segmentation_scores(confusion_NCC: Tensor, *, intervals: bool = True) -> dict[str, Score]:
    """Score the confusion matrices of N images, added up over the images as in the DRN script.

    Classes in the means, by that script's rule (nanmean over 0 / 0): ``mean_iou`` leaves out a class that occurs
    neither in the truth nor in the prediction, and counts one that was predicted but never true as 0;
    ``class_accuracy`` leaves out every class that is never true.

    Args:
        confusion_NCC: From ``confusion_matrices``, one per image.
        intervals: Whether to compute intervals over images; of one image there are none.

    Returns:
        ``mean_iou`` (with the IoU of each of its classes as ``per_level``), ``pixel_accuracy`` and ``class_accuracy``:
        shares between 0 and 1.

    Raises:
        DataError: No image, or no pixel of a scored class.
    """
    if confusion_NCC.ndim != 3 or confusion_NCC.shape[1] != confusion_NCC.shape[2]:
        raise DataError(f"segmentation scores need matrices (N, C, C), not {tuple(confusion_NCC.shape)}")
    counts = confusion_NCC.cpu().double().numpy()
    if counts.sum() == 0:
        raise DataError("segmentation scores: no pixel of the label maps belongs to one of the 19 scored classes")
    iou, *whole = _scores(counts.sum(0, keepdims=True))
    counted = counts[counts.sum((1, 2)) > 0]  # images of nothing but void pixels say nothing
    _, *without_each = _scores(counted.sum(0) - counted)
    names = [name for name, _, _ in cityscapes_classes()]
    per_class = {name: float(x) for name, x in zip(names, iou[0], strict=False) if not np.isnan(x)}
    found = {}
    parts = "mean_iou", "pixel_accuracy", "class_accuracy"
    for part, (value,), others in zip(parts, whole, without_each, strict=True):
        interval = None
        if intervals and len(counted) > 1:
            low, high = jackknife_interval(float(value), others)
            interval = max(0.0, low), min(1.0, high)
        found[part] = Score(float(value), interval=interval, per_level=per_class if part == "mean_iou" else {})
    return found


def _confusion(segmenter: str, sets: ImageSets) -> Tensor:
    """Confusion matrices of what ``segmenter`` sees in the made images against the label maps."""
    segment = sets.networks[segmenter]
    pairs = sets.pairs("source", "fake")
    return torch.cat([confusion_matrices(snap_labels(label), segment(fake)) for label, fake in pairs])


def _row(part: str, segmenter: str, sets: ImageSets, seed: int) -> Score:
    matrices = sets.once(segmenter, lambda: _confusion(segmenter, sets))
    return segmentation_scores(matrices, intervals=sets.intervals)[part].scaled(100.0)


for _segmenter, _title, _words in (
    ("espnet", "ESPNet", "ESPNet (p=2, q=8)"),
    ("drn_d_22", "DRN-D-22", "DRN-D-22, the paper's scorer,"),
):
    for _part, _name, _label, _means in (
        ("mean_iou", "miou", "mean IoU", "mean over classes of intersection over union (the paper's mAP)"),
        ("pixel_accuracy", "pixel_accuracy", "pixel accuracy", "share of pixels with the right class"),
        ("class_accuracy", "class_accuracy", "class accuracy", "mean over classes of the share found"),
    ):
        metric(
            f"{_name}_{_segmenter}_percent", f"{_label} ({_title})", "%", "higher",
            f"{_means}, 19 Cityscapes classes, of what {_words} sees in the made photos, against the label maps "
            "that they were made from, each pixel snapped to the nearest official colour, void left out",
            against="source", networks=(_segmenter,), label_maps=True,
        )(partial(_row, _part, _segmenter))  # fmt: skip
