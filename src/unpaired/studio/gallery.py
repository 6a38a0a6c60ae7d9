"""Pictures on the page: with captions as HTML that holds them, and the embedded drawings to begin with."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from html import escape
from pathlib import Path

from PIL import Image

from unpaired.data import embedded_dataset, read_image, read_image_of
from unpaired.errors import DataError
from unpaired.grids import fit, side_by_side
from unpaired.inference.packaged import packaged
from unpaired.reporting.page import Encoding, data_uri
from unpaired.reporting.run_folders import choose_images
from unpaired.run_config import RunConfig
from unpaired.studio.limits import Limits
from unpaired.studio.runs import StudioRun

PAIRS = 24
EXAMPLES = 6
_SIDE = 160
_FOR_LOOKING = Encoding(quality=92, largest_side=720)


def figures(pictures: Sequence[tuple[Image.Image, str]], kind: str, title: str = "") -> str:
    """Lay out pictures.

    Args:
        pictures: (picture, caption); larger ones than 720 pixels are scaled down for looking.
        kind: ``"narrow"``, ``"wide"``: about how wide each is; ``"pairs"``: two in a row.
        title: Words above them.
    """
    items = "".join(
        f'<figure><img src="{data_uri(image, _FOR_LOOKING)}" alt="{escape(words)}">'
        f"<figcaption>{escape(words)}</figcaption></figure>"
        for image, words in pictures
    )
    head = f"<h3>{escape(title)}</h3>" if title else ""
    return f'<section class="studio-card">{head}<div class="studio-figures {kind}">{items}</div></section>'


def pairs_html(count: int = PAIRS) -> str:
    """Held-out drawings beside their true colours, evenly spaced by name, as HTML."""
    pairs = embedded_dataset().test_pairs
    count = min(count, len(pairs))
    chosen = [pairs[number * len(pairs) // count] for number in range(count)]
    drawn = [
        (side_by_side([fit(read_image(path), _SIDE, _SIDE) for path in pair], gutter=8), pair[0].stem.replace("-", " "))
        for pair in chosen
    ]
    return figures(drawn, "narrow")


def copy_examples(folder: Path, run: StudioRun, limits: Limits) -> list[Path]:
    """Copy held-out images of a run into the studio's folder, scaled to its limits, to be translated like uploads.

    A model of the package was trained on the embedded drawings; of other weights alone nobody knows what they were.

    Raises:
        DataError: There are none on this machine; the message says so.
    """
    count = min(EXAMPLES, limits.batch)
    if str(run.path) in packaged() and not run.path.exists():
        files = embedded_dataset().test
    elif run.live:
        found = RunConfig.load(run.path / "run.yaml").dataset.held_out_files(("test", "val"))
        if found is None:
            raise DataError(f"the held-out images of {run.name} are not on this machine; upload pictures")
        files, _ = found
    else:
        raise DataError(f"{run.name} has weights only, and no held-out images; upload pictures")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    translator, made = run.translator, []
    for path in choose_images(files, count):
        image = read_image_of(translator.source, path) if translator else read_image(path)
        side = int(limits.pixels**0.5)
        if image.width * image.height > limits.pixels:
            image.thumbnail((side, side))
        made.append(folder / f"{path.stem}.png")
        image.save(made[-1])
    return made
