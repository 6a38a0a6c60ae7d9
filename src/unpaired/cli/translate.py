"""``unpaired translate``: a file, a folder or a pattern in, or a video; the same names and sizes out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from tyro.conf import Positional, arg

from unpaired.cli.options import RayAddress, parse
from unpaired.config import BatchSize, Gib, InferencePrecision, Seed, settings


@settings
class Translate:
    """Translate images, or a video, with a trained run. Names and sizes are kept.

    Results have the channels and the type (8-bit, 16-bit, float) of the target images of training, and keep the colour
    profile, the resolution and the pixels without data of their source.

    Files that cannot be read or written are named and left out, and the exit code is then 1.

    Of a video (MP4, MOV, MKV, WebM and others; pip install "unpaired[video]") each frame is translated; sound,
    timestamps and pixel aspect ratio are kept, and the change in flicker is reported.

    Example: unpaired translate runs/mine photos --out translated
    """

    run: Positional[
        Annotated[
            str,
            arg(
                metavar="RUN",
                help="A run folder (the --out of 'unpaired train'), owner/name[@revision] on the Hub, or an .onnx file "
                "of 'unpaired export'.",
            ),
        ]
    ]
    input: Positional[
        Annotated[
            tuple[str, ...],
            arg(
                metavar="INPUT [INPUT ...]",
                help="Images, folders, or patterns in quotes such as 'photos/**/*.jpg'; or videos.",
            ),
        ]
    ]
    out: Path
    """Folder for the translations; made if missing. Each lies below it as its image lies below INPUT. For one image, a
    name with a suffix of images (night.png) is the file to write, and its type; for one video, one ending in .mp4,
    .mov, .mkv or .webm."""
    overwrite: bool = False
    """Replace translations that OUT already holds; without this or --skip-existing, any existing translation is an
    error."""
    skip_existing: bool = False
    """Make only the translations that OUT does not hold, to continue after an interruption."""
    weights: Literal["ema", "last", "best"] = "ema"
    """The averaged weights, those of the last step, or those that scored best on held-out images during training."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    precision: InferencePrecision = "32"
    """bf16 takes about 0.4 of the time of float32 on a processor with AMX, 0.7 on one with AVX512-BF16 alone, and
    longer on others; results are up to a few grey levels from those of float32 (docs/results.md). auto takes it where
    it is faster here."""
    runtime: Literal["torch", "onnx"] = "torch"
    """onnx: through ONNX Runtime on the CPU, with the run exported into a temporary file first (up to a minute; use
    'unpaired export' once and give its file instead of the run). An .onnx file always runs there."""
    batch_size: BatchSize = 1
    """Images of equal size translated at a time."""
    size: str = "original"
    """original: at the image's own size. training: with the shorter side scaled to that of the training crops. A
    number: with the shorter side scaled to that many pixels. The result is always resized to the original size."""
    format: str = "same"
    """File type of the results, such as png, jpg, webp, avif, gif, tiff or npy; same keeps each file's name. PNG holds
    up to 4 channels of 8 or 16 bits, TIFF and NPY whatever there is, the others 8-bit gray and colour."""
    recursive: bool = False
    """Go into subfolders of INPUT, OUT excepted."""
    pages: Literal["first", "all"] = "first"
    """all: translate every page of a TIFF and every frame of an animation (GIF, APNG, WebP, AVIF), into a file with as
    many pages or frames. first: only the first."""
    reverse: bool = False
    """Translate from the target to the source domain, with methods that go both ways."""
    style_seed: Seed | None = None
    """Seed of the style, with methods that have styles (MUNIT); unset takes 0."""
    style_reference: Path | None = None
    """An image of the wanted domain whose style is taken."""
    styles: Annotated[int, Field(ge=1, le=1000)] = 1
    """Translate each image in this many styles, with the seeds from style_seed on; each style has a folder of its own,
    and a grid (styles.png) shows the first images in all of them."""
    domain: str | None = None
    """Name of the wanted domain, with methods that know several."""
    memory_gib: Gib | None = None
    """Most memory to use, in GiB; unset means half of what is free. Images that need more are translated in stripes,
    with the same result; feature maps that do not fit are kept in a temporary file beside OUT."""
    ray: RayAddress = None
    """Spread the images over the workers of the Ray cluster at ADDRESS (host:port of its head), one CPU core or GPU
    each; without ADDRESS over the one that runs here. All its machines see INPUT, OUT and RUN at the same paths."""
    option_groups: ClassVar[dict[str, tuple[str, ...]]] = {
        "reading": ("recursive", "pages", "size"),
        "writing": ("format", "overwrite", "skip_existing"),
        "style and domain": ("reverse", "style_seed", "style_reference", "styles", "domain"),
        "computing": ("device", "precision", "runtime", "batch_size", "memory_gib", "ray"),
    }


def main(argv: Sequence[str]) -> int:
    """Translate everything that can be read; 0 when that was everything, 1 otherwise, 130 after Ctrl-C."""
    options = parse(Translate, argv, "unpaired translate")
    from unpaired.cli.translation import translate

    return translate(options)
