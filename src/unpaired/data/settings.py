"""The settings of training images: how they are read, brought to size, cropped and kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field

from unpaired.config import Amount, Count, Side, Value, settings
from unpaired.data.pixels import PixelFormat
from unpaired.data.resizing import Resample
from unpaired.data.sizes import Byte, Channels, as_size, height_width, shorter_side, size_words
from unpaired.data.stored import Profiles
from unpaired.errors import ConfigError

Resize = Literal["resize_and_crop", "scale_shorter_side", "resize", "crop_only", "none", "zoom_and_crop"]
Flip = Literal["horizontal", "vertical", "both", "none"]
Percent = Annotated[float, Field(ge=0, le=100)]
Formats = tuple[PixelFormat, PixelFormat]
"""Of the source and of the target domain."""

_ENLARGING = ("resize_and_crop", "scale_shorter_side")
"""Ways to bring images to size that make them larger than the crop on purpose."""
_FORMER_RESIZES = {"shortest_side_and_crop": "scale_shorter_side", "crop": "crop_only"}
_FORMER_FLIPS = {True: "horizontal", False: "none"}
_ALWAYS_STORED = ("image_size", "load_size", "resize", "flip", "channels", "background", "cache_gib", "num_workers")
"""What every version wrote into the run file of a run folder; a person's own file names what it changes."""


def _as_text(given: Any) -> Any:
    """A list of transforms, as YAML files have it, in one line."""
    return yaml.safe_dump(given, default_flow_style=True, width=10**6).strip() if isinstance(given, list) else given


@settings
class DataConfig:
    """How training images are read, resized, cropped and kept."""

    image_size: Side | tuple[Side, Side] = 256
    """Size of the training crop in pixels: one side of a square, or height and width; multiples of 4."""
    load_size: Side | tuple[Side, Side] | Literal["image_size"] | None = None
    """Size after resizing and before cropping, in pixels: one side, or height and width. image_size: no larger than
    the crop. Unset: image_size * 286 / 256, rounded; with zoom_and_crop the image's own size."""
    resize: Resize = "resize_and_crop"
    """resize_and_crop: to load_size (the shape is distorted), then a random crop. scale_shorter_side: until it covers
    load_size (the shape is kept), then a random crop. resize: to image_size, no crop. crop_only: a random crop of the
    original pixels. none: the files already measure image_size. zoom_and_crop: the longer side to load_size, then each
    crop from a zoom of its own; takes a single image per domain, too."""
    load_size_until: Literal["end", "decay"] = "end"
    """end: images are loaded at load_size throughout. decay: once the learning rate begins to fall they are loaded at
    image_size, so that resize_and_crop shows the whole image."""
    smallest_zoom: Annotated[float, Field(gt=0, le=1)] = 1 / 3
    """With zoom_and_crop: each crop's image is scaled by two factors, for height and width, drawn uniformly between
    this and 1; no side falls below the crop's."""
    images_per_epoch: Count | None = None
    """Images that count as one epoch; unset: as many as use every image of the larger domain once (with several
    domains: every image at least once as source and once as target)."""
    resample: Resample = "bicubic"
    """Filter for resizing training images; antialiased, except nearest. Test images are always resized by bicubic."""
    flip: Flip = "horizontal"
    """Mirror half of the images left to right (horizontal), top to bottom (vertical), each independently, or none."""
    channels: Channels = 3
    """Channels of the images, 1 to 16: 3 is colour, 1 gray; of the source domain, where target_channels differs."""
    target_channels: Channels | None = None
    """Channels of the target images; unset: as many as the source images have."""
    pages: Literal["first", "channels"] = "first"
    """first: the first page of a TIFF file is the image. channels: its pages are the channels of one image."""
    value_range: Literal["dtype", "percentiles"] | tuple[Value, Value] = "dtype"
    """Values of the files that become -1 and 1; what lies beyond is clipped. dtype: the whole range of 8- or 16-bit
    integers. Two numbers: these. percentiles: taken per channel from the training images, once."""
    target_value_range: Literal["dtype", "percentiles"] | tuple[Value, Value] | None = None
    """The same for the target images; unset: as value_range."""
    percentiles: tuple[Percent, Percent] = (0.1, 99.9)
    """Which percentiles, 0 to 100, where a range is 'percentiles'; 0 100 clips nothing of the training images."""
    fill_value: Value | None = None
    """Put in the place of values that are no data (declared by the file, masked, NaN or infinite); unset: the mean of
    the others in the channel of the file."""
    background: tuple[Byte, Byte, Byte] = (255, 255, 255)
    """Red, green, blue (0 to 255) put behind transparent pixels."""
    colour_profiles: Profiles = "convert"
    """convert: colours and gray of another embedded profile than sRGB (Display P3, Adobe RGB, CMYK of a press) become
    sRGB. ignore: they are taken as they are, as the field's other programs do."""
    transform: Annotated[str, BeforeValidator(_as_text)] | None = None
    """A transform of each loaded image before the crop: package.module:name (of albumentations, torchvision v2, or a
    function of an array (H, W, C)), or a list of torchvision's: "[{ColorJitter: {hue: 0.1}}, RandomGrayscale]"."""
    cache_gib: Amount = 1.0
    """Memory for decoded and resized images, in GiB per training process, shared by its loading processes; 0: none."""
    num_workers: Annotated[int, Field(ge=0, le=1024)] = 1
    """Data-loading worker processes of each training process; 0: the training process loads images itself."""

    def __post_init__(self) -> None:
        self._check_sizes()
        if self.enlarges and any(
            crop > loaded for crop, loaded in zip(self.crop_size, self.resized_size, strict=True)
        ):  # fmt: skip
            raise ConfigError(
                f"image_size is {size_words(self.image_size)}, larger than load_size "
                f"{size_words(as_size(*self.resized_size))}: the crop cannot be larger than the image; raise load_size "
                "or lower image_size"
            )
        if self.resize == "zoom_and_crop" and isinstance(self.load_size, tuple):
            raise ConfigError(
                f"load_size is {size_words(self.load_size)}: with resize = zoom_and_crop it is one number, the longer "
                "side of the image"
            )
        for name in ("value_range", "target_value_range"):
            ends = getattr(self, name)
            if isinstance(ends, tuple) and ends[0] >= ends[1]:
                raise ConfigError(f"{name} is {ends[0]} {ends[1]}: it must go from a smaller to a larger number")
        if not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise ConfigError(f"percentiles is {self.percentiles}: two numbers from 0 to 100, the smaller one first")

    def _check_sizes(self) -> None:
        """Refuse sizes that cannot work; write pairs of equal sides as one side, so that equal sizes compare equal."""
        for name, step in (("image_size", 4), ("load_size", 1)):
            size = getattr(self, name)
            if size is None or (name == "load_size" and size == "image_size"):
                continue
            if isinstance(size, str) or (not isinstance(size, int) and len(size) != 2):
                raise ConfigError(f"{name} is {size}: give one side, or height and width")
            if any(side <= 0 or side % step for side in height_width(size)):
                multiples = "a positive multiple of 4" if isinstance(size, int) else "positive multiples of 4"
                what = multiples if step == 4 else "positive"
                raise ConfigError(f"{name} is {size_words(size)}: it must be {what}")
            object.__setattr__(self, name, as_size(*height_width(size)))

    @property
    def crop_size(self) -> tuple[int, int]:
        """Height and width of the training crop, pixels."""
        return height_width(self.image_size)

    @property
    def shorter_crop_side(self) -> int:
        """The shorter side of the training crop, pixels."""
        return shorter_side(self.image_size)

    @property
    def resized_size(self) -> tuple[int, int]:
        """``load_size``, or its default, as height and width in pixels."""
        if self.load_size == "image_size":
            return self.crop_size
        if self.load_size is None:
            height, width = (round(side * 286 / 256) for side in self.crop_size)
            return height, width
        return height_width(self.load_size)

    @property
    def enlarges(self) -> bool:
        """Whether images are brought to ``load_size`` before cropping."""
        return self.resize in _ENLARGING

    @property
    def changes_with_decay(self) -> bool:
        """Whether images are loaded at another size once the learning rate falls."""
        return self.load_size_until == "decay" and self.enlarges and self.resized_size != self.crop_size

    @property
    def in_decay(self) -> DataConfig:
        """The settings with which images are loaded once the learning rate falls."""
        return dataclasses.replace(self, load_size="image_size") if self.changes_with_decay else self

    @property
    def least_images(self) -> int:
        """How many images a domain needs for training."""
        return 1 if self.resize == "zoom_and_crop" else 2

    @property
    def domain_channels(self) -> tuple[int, int]:
        """Channels of source and target images."""
        return self.channels, self.channels if self.target_channels is None else self.target_channels

    @property
    def plain_formats(self) -> Formats:
        """Source and target as 8-bit images, whatever the files are."""
        source, target = (
            PixelFormat(channels, background=self.background, colour_profiles=self.colour_profiles)
            for channels in self.domain_channels
        )
        return source, target


def of_an_earlier_version(stored: Mapping[str, Any]) -> bool:
    """Whether a section ``data`` was stored by a version that did not know ``load_size_until``.

    A stored section names every setting of its version, wherever the file lies now; what it leaves out did not exist,
    and the run was trained as :class:`DataConfig` has it by default. In a person's own file the same settings are left
    to the method.
    """
    return "load_size_until" not in stored and all(name in stored for name in _ALWAYS_STORED)


def in_todays_words(section: Mapping[str, Any]) -> dict[str, Any]:
    """A section ``data`` with the names that earlier versions had for some values replaced, and what they did said."""
    today = dict(section)
    if isinstance(resize := section.get("resize"), str):
        today["resize"] = _FORMER_RESIZES.get(resize, resize)
    if isinstance(flip := section.get("flip"), bool):
        today["flip"] = _FORMER_FLIPS[flip]
    if "colour_profiles" not in section and all(name in section for name in _ALWAYS_STORED):
        today["colour_profiles"] = "ignore"
    return today
