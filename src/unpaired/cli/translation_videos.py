"""The videos of ``unpaired translate``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from unpaired.cli.translation_bar import frame_bar
from unpaired.cli.translation_targets import check_targets, existing, is_file_name, make_folder
from unpaired.errors import ConfigError, DataError
from unpaired.inference import Translator
from unpaired.inference.video import VIDEO_SUFFIXES, WRITTEN, translate_video


def is_video(place: str) -> bool:
    """Whether an INPUT is named like a video."""
    return place.lower().endswith(VIDEO_SUFFIXES) and not Path(place).is_dir()


def translate_videos(options: Any, translator: Translator, side: int | None, request: dict[str, Any]) -> int:
    """Translate each video into a file of its own.

    Args:
        options: Of ``unpaired translate``.
        translator: What translates the frames.
        side: Their shorter side for the networks, in pixels; None: as they are.
        request: As of :meth:`Translator.translate`.

    Returns:
        1 where a video could not be read, else 0.

    Raises:
        ConfigError: Options do not go with videos.
    """
    if others := [place for place in options.input if not is_video(place)]:
        raise ConfigError(
            f"INPUT: {others[0]} is not a video, but other inputs are; translate videos and images one after the other"
        )
    for name, none in (("styles", 1), ("format", "same"), ("pages", "first"), ("ray", None)):
        if getattr(options, name) != none:
            raise ConfigError(f"{name} is for images; leave it out for videos, whose format is the suffix of --out")
    sources = [Path(place) for place in options.input]
    single = is_file_name(options.out)
    if single and options.out.suffix.lower() not in WRITTEN:
        raise ConfigError(
            f"{options.out}: no video is written under such a name; name a folder as --out, or a file ending in "
            f"{', '.join(WRITTEN)}"
        )
    if single and len(sources) > 1:
        raise ConfigError(f"{options.out} is one file and INPUT {len(sources)} videos; name a folder as --out")
    names = [path.name if path.suffix.lower() in WRITTEN else f"{path.stem}.mp4" for path in sources]
    plan = {path: options.out if single else options.out / name for path, name in zip(sources, names, strict=True)}
    check_targets(list(plan.items()))
    there = existing(options.out, [*plan.values()], overwrite=options.overwrite, skip_existing=options.skip_existing)
    make_folder(options.out.parent if single else options.out)
    problems = 0
    for source, target in plan.items():
        if target in there:
            continue
        try:
            with frame_bar(source.name) as progress:
                made = translate_video(
                    translator, source, target, batch_size=options.batch_size, side=side, progress=progress, **request
                )
        except DataError as error:
            problems += 1
            name = "" if str(source) in str(error) else f"{source}: "
            print(f"skipped: {name}{error}", file=sys.stderr)
            continue
        if made.dropped:
            print(f"not in {target}: {made.dropped}", file=sys.stderr)
        print(
            f"{made.frames} frames of {made.size[0]} x {made.size[1]} translated into {target}; flicker "
            f"{made.flicker:.2f} times that of the input ({made.before:.2f} -> {made.after:.2f} levels per frame)"
        )
    return 1 if problems else 0
