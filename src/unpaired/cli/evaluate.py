"""``unpaired evaluate``: scores of a run, or of any folder of made images, on held-out images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from tyro.conf import Positional, arg

from unpaired.cli.options import parse
from unpaired.config import BatchSize, InferencePrecision, Seed, Side, Value, settings
from unpaired.data.sizes import Byte, Channels


@settings
class Evaluate:
    """Score a trained run, or a folder of images that any software made, on held-out images.

    Averaged (EMA), last and best weights stand side by side with the untranslated input and with real images against
    real ones. Every score is added, with its protocol, the counts and digests of images and networks, to
    evaluations.jsonl in the run folder; 'unpaired compare' makes tables of it.

    Example: unpaired evaluate runs/mine data/horse2zebra --metrics kid_lite0_x1e3
    """

    run: Positional[
        Annotated[
            Path,
            arg(
                metavar="RUN",
                help="A run folder (the --out of 'unpaired train'), or a folder of images made from the sources.",
            ),
        ]
    ]
    data: Positional[
        Annotated[Path | None, arg(metavar="[DATA]", help="Folder with testA and testB; the run's own if unset.")]
    ] = None
    source: Path | None = None
    """Folder of source images, instead of DATA."""
    target: Path | None = None
    """Folder of real target images, instead of DATA."""
    direction: Literal["AtoB", "BtoA"] | None = None
    """Which domain of DATA is the source; unset takes the run's own direction."""
    reverse: bool = False
    """Score translations from the target to the source domain, with methods that go both ways."""
    style_seed: Seed | None = None
    """Seed of the style that is scored, with methods that have styles; unset takes 0."""
    domain: str | None = None
    """Wanted domain, with methods that know several: DATA/test/<domain> are its real images. Unset takes the pair that
    was scored during training."""
    source_domain: str | None = None
    """Domain that is translated, with methods that know several."""
    paired: Literal["auto", "yes", "no"] = "auto"
    """Whether files with the same stem are an input and its ground truth; auto: yes if each source file has a target
    file of its stem."""
    metrics: tuple[str, ...] = ()
    """Scores to compute, by name; unset means all that the files and the available networks allow."""
    unchanged_masks: Path | None = None
    """What may change in the source images; the change of all else is scored. A folder of masks of the sources' names
    and sizes, non-zero where something may change, or a JSON file {"boxes": {"file name": [[left, top, right, bottom],
    ...]}} in pixels of the source files. Sources without a mask do not count."""
    network: tuple[str, ...] = ()
    """Networks that scores use, as NAME=PATH: the weights of a known one (inception=PATH, drn_d_22=PATH or
    espnet=PATH), or a Python file, which is run, with one of your own; its KID is then a score."""
    download: bool = False
    """Let torch-fidelity fetch the Inception weights of FID if they are not on this machine."""
    skip_bad: bool = False
    """Report and skip images that cannot be read, instead of stopping with an error."""
    cache: bool = True
    """Keep the features that networks compute of files in your cache folder (UNPAIRED_CACHE names another)."""
    intervals: bool = True
    """Compute 95 % confidence intervals."""
    image_size: Side | tuple[Side, Side] | None = None
    """When a folder of generated images is scored: size to which all images are resized, one side of a square, or
    height and width. Unset: the size of the generated images, if they are square."""
    channels: Channels | None = None
    """When a folder of generated images is scored (a run has its own): channels of the images, 1 to 16; of the source
    domain, where target_channels differs. Unset: 3."""
    target_channels: Channels | None = None
    """Channels of target and generated images; unset: as many as the source images have."""
    pages: Literal["first", "channels"] | None = None
    """first (unset): the first page of a TIFF file is the image. channels: its pages are the channels of one image."""
    value_range: Literal["dtype", "percentiles"] | tuple[Value, Value] | None = None
    """Values of the files that become -1 and 1; what lies beyond is clipped. dtype (unset): the whole range of 8- or
    16-bit integers. Two numbers: these. percentiles: taken per channel from the real images of the domain. Scores of
    different ranges are not comparable."""
    target_value_range: Literal["dtype", "percentiles"] | tuple[Value, Value] | None = None
    """The same for target and generated images; unset: as value_range."""
    percentiles: tuple[Value, Value] | None = None
    """Which percentiles, 0 to 100, where a range is 'percentiles'; unset: 0.1 99.9."""
    fill_value: Value | None = None
    """Put in the place of values that are no data; unset: the mean of the others in the channel of the file."""
    background: tuple[Byte, Byte, Byte] | None = None
    """Red, green, blue (0 to 255) put behind transparent pixels; unset: white."""
    colour_profiles: Literal["convert", "ignore"] | None = None
    """convert (unset): colours and gray of another embedded profile than sRGB become sRGB. ignore: they are taken as
    they are."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    precision: InferencePrecision = "32"
    """Arithmetic in which a run translates; auto uses bf16 where it is faster here. Scores are computed in float32."""
    batch_size: BatchSize = 8
    """Images translated at a time."""
    seed: Seed = 0
    """Seed of everything drawn at random."""
    out: Path | None = None
    """Write the record to this JSON file as well."""
    option_groups: ClassVar[dict[str, tuple[str, ...]]] = {
        "image": ("source", "target", "direction", "paired", "image_size", "skip_bad"),
        "pixel": (
            "channels", "target_channels", "pages", "value_range", "target_value_range", "percentiles", "fill_value",
            "background", "colour_profiles",
        ),
        "translation": ("reverse", "style_seed", "domain", "source_domain"),
        "score": ("metrics", "unchanged_masks", "network", "download", "intervals", "seed"),
        "computing": ("device", "precision", "batch_size", "cache"),
    }  # fmt: skip


def main(argv: Sequence[str]) -> int:
    """Evaluate, print a table, keep a record; 0 done, 1 images were left out."""
    options = parse(Evaluate, argv, "unpaired evaluate")
    from unpaired.cli.evaluation import evaluate

    return evaluate(options)
