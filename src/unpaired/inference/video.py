"""A video through a translator: frame by frame, with its sound, its times and its shape; PyAV (``unpaired[video]``)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unpaired.data import resize_values
from unpaired.data.sizes import MAX_IMAGE_PIXELS
from unpaired.data.stored import check_size
from unpaired.errors import ConfigError, DataError, require_packages
from unpaired.files import written_whole
from unpaired.inference.translator import Translator

if TYPE_CHECKING:
    import av

_X264 = ("libx264", {"crf": "18"})
WRITTEN: dict[str, tuple[str, tuple[str, dict[str, str]]]] = {
    ".mp4": ("mp4", _X264), ".m4v": ("mp4", _X264), ".mov": ("mov", _X264), ".mkv": ("matroska", _X264),
    ".webm": ("webm", ("libvpx-vp9", {"crf": "24", "b": "0", "cpu-used": "4", "row-mt": "1"})),
}  # fmt: skip
"""Suffix of a file that can be written -> PyAV's name of the format, and the encoder with its options."""
VIDEO_SUFFIXES = (*WRITTEN, ".avi", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".3gp", ".ogv")
"""What names of videos end in."""
_DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,asf,flv,ogg,mxf,gif,apng,h264,hevc,ivf,m4v,nut"
)
"""FFmpeg's names of what is read: files that hold pictures themselves, never playlists, which name other files."""
_UNSPECIFIED = 2  # FFmpeg's number, where a video does not say how its colours are coded
_SHORT_SECONDS = 1.0
"""A clip that ends so much earlier than it says was cut off."""


@dataclass(frozen=True)
class VideoResult:
    """What became of a video.

    Attributes:
        frames: Frames translated.
        size: Width and height, upright.
        before: Flicker of the input: the mean of |frame t - frame t-1| over all pixels, channels and frames but the
            first, in levels of 0 to 255. It is what moves and flickers in the clip, and 0 for a clip of one frame.
        after: The same of the translation. It changes more where frames are translated differently, one by one.
        dropped: Tracks that are not in the result, in words.
    """

    frames: int
    size: tuple[int, int]
    before: float
    after: float
    dropped: str = ""

    @property
    def flicker(self) -> float:
        """``after / before``: 1 is as steady as the input; more, that the translation adds flicker. NaN if 0 / 0."""
        return self.after / self.before if self.before else float("nan") if not self.after else float("inf")


def translate_video(
    translator: Translator,
    source: str | Path,
    target: str | Path,
    *,
    batch_size: int = 1,
    side: int | None = None,
    max_pixels: int = MAX_IMAGE_PIXELS,
    max_frames: int | None = None,
    progress: Callable[[int, int], object] | None = None,
    **request: Any,
) -> VideoResult:
    """Translate every frame of a video; sound is copied as it is.

    Times of the frames (also of variable rate), pixel aspect, colour space and metadata are kept. Frames are turned as
    the file says, as photos are by EXIF, and the result is upright. Few frames are in memory at a time. The result is
    H.264 (VP9 in WebM), and lies under its name once it is whole.

    Args:
        translator: It must make 8-bit images of 1 or 3 channels.
        source: A file that FFmpeg reads, no playlist; of several picture tracks the first is taken.
        target: Its suffix is one of :data:`WRITTEN`.
        batch_size: Frames translated at a time.
        side: Shorter side, in pixels, to scale frames to for the networks; unset: as they are.
        max_pixels: Most pixels of a frame; a larger one is refused before it is decoded.
        max_frames: Most frames; unset: any number.
        progress: Called with the frames done, and of how many (0 where the file does not say).
        request: As of :meth:`Translator.translate`: reverse, style_seed, style_reference, domain.

    Raises:
        BackendError: PyAV is not installed.
        ConfigError: The suffix is none that is written, the format cannot hold the sound, or the model makes no such
            images.
        DataError: The video is absent, damaged, too large, or ends before it should.
    """
    require_packages("a video", "video", "av")
    import av

    source, target = Path(source), Path(target)
    made = translator.sides(request.get("reverse", False))[1]
    if made.dtype != "uint8" or made.channels not in (1, 3):
        raise ConfigError(f"{target}: a video holds 8-bit gray or colour, and this model makes {made.words}")
    if target.suffix.lower() not in WRITTEN:
        raise ConfigError(f"{target}: videos cannot be written with this suffix; known: {', '.join(WRITTEN)}")
    translator.request(**request)
    container, (encoder, options) = WRITTEN[target.suffix.lower()]
    with _reading(source):
        first = _first_frame(source, max_pixels)
    meter = _Flicker()
    with contextlib.ExitStack() as held:
        with _reading(source):
            reader = held.enter_context(_opened(source, max_pixels))
        temporary = held.enter_context(written_whole(target))
        writer = held.enter_context(av.open(str(temporary), "w", format=container))
        writer.metadata.update(reader.metadata)
        video: Any = reader.streams.video[0]
        video.thread_type = "AUTO"
        out: Any = writer.add_stream(encoder, rate=video.average_rate or 25, options=options)
        size = out.width, out.height = first.size
        out.pix_fmt = "yuv444p" if encoder == "libx264" and (size[0] % 2 or size[1] % 2) else "yuv420p"
        out.codec_context.time_base = video.time_base
        if first.aspect:
            out.codec_context.sample_aspect_ratio = first.aspect
        for name in ("colorspace", "color_primaries", "color_trc"):
            setattr(out.codec_context, name, getattr(first.frame, name))
        copies = {}
        for stream in reader.streams.audio:
            try:
                copies[stream.index] = writer.add_stream_from_template(stream)
            except (av.FFmpegError, ValueError) as error:
                raise _cannot_hold(target, stream) from error
        left = [s for s in reader.streams if s.index not in (video.index, *copies)]
        try:
            writer.start_encoding()
        except (av.FFmpegError, ValueError) as error:
            raise _cannot_hold(target, next(iter(reader.streams.audio), video)) from error

        def write(frames: list[av.VideoFrame]) -> None:
            given = np.stack([_upright(frame, first) for frame in frames])
            seen = given if side is None else np.stack([resize_values(x, _scaled(size, side)) for x in given])
            for frame, before, after in zip(frames, given, translator.translate(seen, **request), strict=True):
                after = resize_values(np.ascontiguousarray(np.broadcast_to(after, (*after.shape[:2], 3))), size)
                meter.add(before, after)
                coded = av.VideoFrame.from_ndarray(after, "rgb24").reformat(
                    format=out.pix_fmt, dst_colorspace=_matrix(first.frame)
                )
                coded.pts, coded.time_base = frame.pts, video.time_base
                coded.duration = frame.duration
                writer.mux(out.encode(coded))
            if progress is not None:
                progress(meter.frames, video.frames)

        waiting: list[av.VideoFrame] = []
        for item in _packets(source, reader, copies):
            if isinstance(item, av.VideoFrame):
                if max_frames is not None and meter.frames + len(waiting) == max_frames:
                    raise DataError(f"{source}: the clip has more than {max_frames:,} frames; cut it first")
                waiting.append(item)
                if len(waiting) == batch_size:
                    write(waiting)
                    waiting = []
            else:
                item.stream = copies[item.stream.index]
                writer.mux(item)
        if waiting:
            write(waiting)
        writer.mux(out.encode(None))
    return VideoResult(meter.frames, size, *meter.means, _counted([s.type for s in left]))


@dataclass(frozen=True)
class _First:
    """What the first frame says of all of them."""

    frame: Any
    turns: int
    size: tuple[int, int]
    aspect: Any


def _opened(source: Path, max_pixels: int) -> Any:
    import av

    try:
        reader = av.open(str(source), options={"format_whitelist": _DEMUXERS})
    except av.error.ArgumentError as error:
        raise DataError(f"{source}: is no video, or of a kind that is not read; convert it to .mp4 first") from error
    for stream in reader.streams.video:
        check_size(stream.width, stream.height, source, max_pixels)
        stream.codec_context.options = {"max_pixels": str(max_pixels)}  # frames may be larger than the header says
    return reader


def _first_frame(source: Path, max_pixels: int) -> _First:
    with _opened(source, max_pixels) as reader:
        if not reader.streams.video:
            raise DataError(f"{source}: has no video track; give a video")
        video = reader.streams.video[0]
        frame = next(reader.decode(video), None)
        if frame is None:
            raise DataError(_damaged(source, "it holds no frame"))
        turns = round(frame.rotation / 90) % 4
        aspect = video.sample_aspect_ratio
        size = (frame.width, frame.height)
        return _First(frame, turns, size[::-1] if turns % 2 else size, 1 / aspect if turns % 2 and aspect else aspect)


def _upright(frame: Any, first: _First) -> np.ndarray:
    """A frame as RGB (H, W, 3); one of another size, in the middle of a stream, is scaled to the first one's."""
    width, height = first.frame.width, first.frame.height
    values = frame.to_ndarray(format="rgb24", width=width, height=height, src_colorspace=_matrix(frame))
    return np.ascontiguousarray(np.rot90(values, first.turns))


def _packets(source: Path, reader: Any, copied: Collection[int]) -> Iterator[Any]:
    """The frames of the picture track, and the packets of the tracks to copy, as they come."""
    video, end, next_pts, earliest = reader.streams.video[0], 0.0, 0, -(1 << 62)
    packets = reader.demux()
    while True:
        with _reading(source):
            packet = next(packets, None)
            frames = packet.decode() if packet is not None and packet.stream == video else []
        if packet is None:
            break
        if packet.is_corrupt or any(frame.is_corrupt for frame in frames):
            raise DataError(_damaged(source, f"at second {end:.1f}"))
        if packet.pts is not None:
            end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if packet.stream.index in copied and packet.dts is not None:  # the last one of each track is empty
            yield packet
        for frame in frames:
            if frame.pts is None:
                frame.pts = next_pts
            frame.pts = max(frame.pts, earliest)  # a webcam records equal times, which no MP4 holds
            earliest, next_pts = frame.pts + 1, frame.pts + (frame.duration or 1)
            yield frame
    stated = ((reader.start_time or 0) + (reader.duration or 0)) / 1e6
    if end < stated - _SHORT_SECONDS:
        raise DataError(_damaged(source, f"it ends after {end:.1f} of {stated:.1f} seconds"))


@contextlib.contextmanager
def _reading(source: Path) -> Iterator[None]:
    """Turn what FFmpeg says of a file into one line."""
    import av

    try:
        yield
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise DataError(f"{source}: cannot be read: {error.strerror}") from error
    except (av.FFmpegError, EOFError, ValueError) as error:
        raise DataError(_damaged(source, getattr(error, "strerror", "") or str(error))) from error


def _damaged(source: Path, why: str) -> str:
    return f"{source}: the video is truncated or damaged ({why}); copy or download it again, or repair it first"


def _cannot_hold(target: Path, stream: Any) -> ConfigError:
    return ConfigError(
        f"{target}: a {target.suffix} file cannot hold the clip's {stream.type} track ({stream.codec_context.name}); "
        "name a file of the clip's own kind, or .mkv"
    )


def _counted(kinds: list[str]) -> str:
    return ", ".join(
        f"{kinds.count(kind)} {kind} track{'s' * (kinds.count(kind) != 1)}" for kind in dict.fromkeys(kinds)
    )


def _matrix(frame: Any) -> int | None:
    return None if frame.colorspace == _UNSPECIFIED else frame.colorspace


def _scaled(size: tuple[int, int], side: int) -> tuple[int, int]:
    return round(size[0] * side / min(size)), round(size[1] * side / min(size))


class _Flicker:
    """Means of the absolute change between consecutive frames, of two clips at once."""

    def __init__(self) -> None:
        self.frames, self._sums = 0, [0.0, 0.0]
        self._last: tuple[np.ndarray, ...] = ()

    def add(self, *pair: np.ndarray) -> None:
        for place, (last, now) in enumerate(zip(self._last, pair, strict=False)):
            self._sums[place] += float(np.abs(now.astype(np.int16) - last).mean())
        self.frames, self._last = self.frames + 1, pair

    @property
    def means(self) -> tuple[float, float]:
        return self._sums[0] / max(1, self.frames - 1), self._sums[1] / max(1, self.frames - 1)
