"""Clips through ``unpaired translate``: what is kept, what is said of flicker, and what becomes of damaged ones."""

from __future__ import annotations

import io
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clips import av, clip
from doc_pages import DOCS, blocks
from tiny import tiny_trained, write_images
from unpaired import cli
from unpaired.errors import DataError
from unpaired.inference import Translator
from unpaired.inference.video import VideoResult, translate_video


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_trained(tmp_path_factory.mktemp("video"))


@pytest.fixture(scope="module")
def unchanged(run: Path) -> Translator:
    """A translator that changes nothing, so that the frames can be compared."""
    translator = Translator.from_pretrained(run, device="cpu")
    translator.run_network = lambda x_BCHW, request=None: x_BCHW  # type: ignore[method-assign,assignment]
    return translator


def contents(path: Path) -> dict[str, Any]:
    with av.open(str(path)) as file:
        frames = list(file.decode(video=0))
        aspect = file.streams.video[0].sample_aspect_ratio
    with av.open(str(path)) as file:
        packets = list(file.demux(audio=0)) if file.streams.audio else []
    begin = float(frames[0].time)
    turns = frames[0].rotation // 90
    return {
        "pictures": np.stack([np.rot90(frame.to_ndarray(format="rgb24"), turns) for frame in frames]).astype(int),
        "times": [float(frame.time) - begin for frame in frames],
        "lag": float(packets[0].pts * packets[0].time_base) - begin if packets else 0,
        "aspect": aspect and (1 / aspect if turns % 2 else aspect),
        "sound": [bytes(packet) for packet in packets],
        "matrix": frames[0].colorspace,
    }


@pytest.mark.parametrize(
    ("name", "made", "options"),
    [
        ("plain.mp4", "night.mp4", {}),
        ("plain.mp4", "night.mkv", {}),
        ("odd.mkv", "odd.mp4", {"size": (51, 33)}),
        ("odd_width.mkv", "odd_width.mov", {"size": (50, 33)}),
        ("turned.mp4", "turned.mp4", {"rotation": 90, "aspect": Fraction(4, 3)}),
        ("upside_down.mov", "upside_down.mov", {"rotation": 180}),
        ("anamorphic.mp4", "anamorphic.mp4", {"aspect": Fraction(4, 3)}),
        ("variable.mp4", "variable.mp4", {"variable": True}),
        ("hd.mp4", "hd.mp4", {"matrix": 1}),
        ("silent.webm", "silent.webm", {"codec": "libvpx-vp9", "audio": None}),
        ("old.avi", "old.mkv", {"codec": "mpeg4", "audio": None}),
        ("one.mp4", "one.mp4", {"frames": 1}),
    ],
)
def test_sound_times_shape_and_colours_are_kept(
    unchanged: Translator, tmp_path: Path, name: str, made: str, options: dict[str, Any]
) -> None:
    source = clip(tmp_path / name, **options)
    (tmp_path / "out").mkdir()
    result = translate_video(unchanged, source, tmp_path / "out" / made, batch_size=4)
    before, after = contents(source), contents(tmp_path / "out" / made)
    assert result.frames == len(before["times"]) == len(after["times"])
    assert np.abs(before["pictures"] - after["pictures"]).mean() < 3
    assert [*after["times"], after["lag"]] == pytest.approx([*before["times"], before["lag"]], abs=0.0021)
    assert after["sound"] == before["sound"]
    assert (after["matrix"], after["aspect"] or 1) == (before["matrix"], before["aspect"] or 1)
    assert result.before == result.after
    assert (result.before > 0) == (result.frames > 1)


@pytest.mark.parametrize("times", [[0, 200, 200, 200, 350], [40, 40, 41, 41, 41]])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm"])
def test_frames_of_equal_times_follow_each_other(
    times: list[int], suffix: str, unchanged: Translator, tmp_path: Path
) -> None:
    with av.open(str(tmp_path / "webcam.mkv"), "w") as file:
        stream: Any = file.add_stream("mjpeg", rate=5)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuvj420p"
        for number, time in enumerate(times):
            values = np.full((32, 48, 3), 40 * number, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(values).reformat(format="yuvj420p")):
                packet.pts = packet.dts = time
                packet.time_base = Fraction(1, 1000)
                file.mux(packet)
    assert translate_video(unchanged, tmp_path / "webcam.mkv", tmp_path / f"made.{suffix}").frames == len(times)
    with av.open(str(tmp_path / f"made.{suffix}")) as file:
        made = [round(frame.time * 1000) for frame in file.decode(video=0)]
    assert made == sorted({*made})
    assert len(made) == len(times)
    assert max(abs(a - b) for a, b in zip(made, times, strict=True)) <= 3


def test_the_flicker_score_is_the_change_between_frames(unchanged: Translator, tmp_path: Path) -> None:
    still, moving = (clip(tmp_path / f"{n}.mp4", moving=n, audio=None, crf="1") for n in (0, 2))
    assert translate_video(unchanged, still, tmp_path / "a.mp4").before < 0.3
    assert translate_video(unchanged, moving, tmp_path / "b.mp4").before > 1
    assert VideoResult(3, (4, 4), before=2.0, after=3.0).flicker == 1.5
    count = iter(range(99))
    flashing = Translator(unchanged.method, unchanged.description)
    flashing.run_network = lambda x, request=None: x * (0.5 if next(count) % 2 else 1)  # type: ignore[method-assign,assignment]
    assert translate_video(flashing, still, tmp_path / "c.mp4").flicker > 20


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def scrambled(path: Path) -> None:
    content = np.frombuffer(path.read_bytes(), np.uint8).copy()
    content[len(content) // 2 :][:2000] ^= 0x5A
    path.write_bytes(content.tobytes())


def text(path: Path) -> None:
    path.write_text("hello")


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm"])
@pytest.mark.parametrize("damage", [half, scrambled, text])
def test_a_damaged_clip_is_one_line_and_leaves_nothing(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Any, name: str
) -> None:
    codec, audio = ("libvpx-vp9", None) if name == "a.webm" else ("libx264", "aac")
    source = clip(tmp_path / name, frames=20, codec=codec, audio=audio)
    if damage is scrambled and name == "a.webm":
        pytest.skip("VP9 decodes anything")
    damage(source)
    assert cli.main(["translate", str(run), str(source), "--out", str(tmp_path / "out")]) == 1
    answer = capsys.readouterr().err
    assert answer.startswith(f"skipped: {source}: the video is truncated or damaged (")
    assert answer.count("\n") == 1
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "made", "said"),
    [
        (["a.mp4", "--out", "night.mp4"], {"night.mp4"}, "6 frames of 48 x 32 translated into night.mp4; flicker "),
        (["a.mp4", "--out", "out", "--size", "16"], {"out/a.mp4"}, "48 x 32 translated into out/a.mp4"),
        (["a.mp4", "b.avi", "--out", "out"], {"out/a.mp4", "out/b.mp4"}, "out/b.mp4"),
        (["a.mp4", "--out", "there.mp4", "--overwrite"], {"there.mp4"}, "there.mp4"),
        (["a.mp4", "--out", "there.mp4"], "error", "there.mp4 exists already; --overwrite"),
        (["a.mp4", "--out", "a.mp4", "--overwrite"], "error", "would replace it"),
        (["a.mp4", "b.avi", "--out", "c.mp4"], "error", "name a folder as --out"),
        (["a.mp4", "p", "--out", "out"], "error", "p is not a video"),
        (["a.mp4", "--out", "night.avi"], "error", "night.avi: no video is written under such a name; name a folder"),
        (["a.mp4", "--out", "night.png"], "error", "night.png: no video is written under such a name; name a folder"),
        (["a.mp4", "--out", "d.avi"], {"d.avi/a.mp4"}, "48 x 32 translated into d.avi/a.mp4"),
        (["a.mp4", "--out", "out", "--format", "png"], "error", "format is for images"),
        (["a.mp4", "--out", "night.webm"], "error", "cannot hold the clip's audio track (aac)"),
        (["absent.mp4", "--out", "out"], 1, "absent.mp4: cannot be read: No such file"),
    ],
)
def test_where_videos_go(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    words: list[str], made: Any, said: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    clip(Path("a.mp4"))
    clip(Path("b.avi"), codec="mpeg4", audio=None)
    Path("there.mp4").write_bytes(b"mine")
    write_images(Path("p"), 1)
    Path("d.avi").mkdir()
    code = cli.main(["translate", str(run), *words])
    answer = "".join(capsys.readouterr())
    assert said in answer
    assert code == (2 if made == "error" else made if isinstance(made, int) else 0)
    if isinstance(made, set):
        assert all(contents(Path(name))["times"] for name in made)
    else:
        assert Path("there.mp4").read_bytes() == b"mine"
    assert not list(Path().rglob("*.tmp"))


def test_a_clip_too_large_for_the_memory_is_named_and_costs_no_other(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("unpaired.inference.large_images.translate.taken_memory", lambda device: 0)
    clip(Path("a.mp4"), size=(400, 32))
    clip(Path("b.mp4"))
    assert cli.main(["translate", str(run), "a.mp4", "b.mp4", "--out", "out", "--memory-gib", "0.0005"]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("skipped: a.mp4: memory_gib: 0.00 GiB are too little for 400 x 32 pixels")
    assert "out/b.mp4" in said.out
    assert [path.name for path in Path("out").iterdir()] == ["b.mp4"]


def test_the_example_of_the_page(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").symlink_to(run)
    clip(Path("clip.mp4"))
    code = blocks(DOCS / "serving.md", "python")[0]
    space: dict[str, Any] = {}
    exec(code, space)
    assert space["result"].frames == len(contents(Path("night.mp4"))["times"]) == 6


def test_without_pyav_the_extra_is_named(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "av", None)
    assert cli.main(["translate", str(run), "clip.mp4", "--out", "night.mp4"]) == 2
    assert 'pip install "unpaired[video]"' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1,\n{other}\n#EXT-X-ENDLIST\n"),
        ("list.mp4", "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1,\nfile://{other}\n#EXT-X-ENDLIST\n"),
        ("list.mp4", "ffconcat version 1.0\nfile '{other}'\n"),
        ("list.mkv", "ffconcat version 1.0\nfile '{other}'\n"),
        ("list.avi", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"),
    ],
)
def test_playlists_which_name_other_files_are_not_followed(
    unchanged: Translator, tmp_path: Path, name: str, content: str
) -> None:
    other = clip(tmp_path / "other.ts", audio=None)
    (tmp_path / name).write_text(content.format(other=other))
    with pytest.raises(DataError, match=rf"{name}: (is no video, or of a kind|the video is truncated or damaged)"):
        translate_video(unchanged, tmp_path / name, tmp_path / "made.mp4")
    assert not (tmp_path / "made.mp4").exists()


def pictures(path: Path, *sides: int) -> Path:
    """A clip of JPEGs, whatever their sizes."""
    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream("mjpeg", rate=5)
        stream.width = stream.height = sides[0]
        stream.pix_fmt = "yuvj420p"
        for number, side in enumerate(sides):
            held = io.BytesIO()
            Image.new("RGB", (side, side), (90, 120, 30)).save(held, "JPEG")
            packet = av.Packet(held.getvalue())
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 5)
            packet.is_keyframe = True
            file.mux(packet)
    return path


@pytest.mark.parametrize("suffix", ["mov", "mkv", "avi"])
@pytest.mark.parametrize(
    ("sides", "options", "words"),
    [
        ((32, 32), {"max_pixels": 1023}, "32 x 32 pixels are more than the limit of 1,023"),
        ((16, 16, 64), {"max_pixels": 1023}, "truncated or damaged"),
        ((16, 16, 16), {"max_frames": 2}, "the clip has more than 2 frames"),
    ],
    ids=["by its header", "later than its header", "frames"],
)
def test_limits_of_a_clip(
    unchanged: Translator, tmp_path: Path, suffix: str, sides: tuple[int, ...], options: dict[str, int], words: str
) -> None:
    source, made = pictures(tmp_path / f"clip.{suffix}", *sides), tmp_path / "made.mp4"
    with pytest.raises(DataError, match=words):
        translate_video(unchanged, source, made, **options)
    assert not made.exists()
    larger = dict.fromkeys(options, 2**20)
    assert translate_video(unchanged, source, made, **larger).frames == len(sides)
