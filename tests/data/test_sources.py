"""Reading from archives: junk is passed over, and what is damaged or malicious ends in one line."""

from __future__ import annotations

import gzip
import io
import stat
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from official_archives import horse2zebra, picture, write_folder, write_zip

from limited import limited
from unpaired.data.sources import Zip, open_source
from unpaired.errors import DataError

MEMBERS = {"set/trainA/a.png": picture(1), "set/trainB/b.png": picture(2), "set/readme.txt": b"hello"}


def test_an_archive_and_its_folder_are_the_same_source(tmp_path: Path) -> None:
    junk = {"__MACOSX/set/._a.png": b"x", ".DS_Store": b"x", "set/trainA/Thumbs.db": b"x", "set/trainA/._a.png": b"x"}
    packed = open_source(write_zip(tmp_path / "a.zip", MEMBERS | junk))
    unpacked = open_source(write_folder(tmp_path / "a", MEMBERS | junk))
    for source in (packed, unpacked):
        assert source.sizes == {name: len(content) for name, content in sorted(MEMBERS.items())}
        assert source.images == ["set/trainA/a.png", "set/trainB/b.png"]
        assert {name: source.read(name) for name in source.sizes} == MEMBERS
        assert source.found() == "set/trainA/ (1), set/trainB/ (1)"
    assert packed.listing() == unpacked.listing()


@pytest.mark.parametrize("name", ["../evil.png", "set/../../evil.png", "/etc/evil.png", "C:/evil.png", "..\\evil.png"])
def test_a_member_that_wants_out_is_refused(name: str, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", MEMBERS | {name: picture(3)})
    with pytest.raises(DataError, match=r"a\.zip: holds a file whose path leads out of its folder .*evil\.png"):
        open_source(path)


def test_links_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        link = zipfile.ZipInfo("set/link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match=r"holds a link \(set/link\.png\)"):
        open_source(tmp_path / "a.zip")


def patched(path: Path, offset_in_entry: int, code: str, value: int) -> Path:
    """Change one field of the last entry of the directory of an archive."""
    content = bytearray(path.read_bytes())
    struct.pack_into(code, content, content.rindex(b"PK\x01\x02") + offset_in_entry, value)
    path.write_bytes(content)
    return path


def test_encrypted_archives_are_refused(tmp_path: Path) -> None:
    path = patched(write_zip(tmp_path / "a.zip", MEMBERS), 8, "<H", 1)
    with pytest.raises(DataError, match=r"a\.zip: is encrypted .*password"):
        open_source(path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damaged_data_is_named_however_it_is_compressed(compression: int, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"a.png": picture(1)}, compression)
    content = bytearray(path.read_bytes())
    data = 30 + len("a.png") + 9  # behind the local header and what LZMA says of itself
    content[data : data + 50] = b"\xff" * 50
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.zip: a\.png is damaged"):
        open_source(path).read("a.png")


def test_a_bomb_is_refused_by_what_it_claims(tmp_path: Path) -> None:
    path = patched(write_zip(tmp_path / "a.zip", MEMBERS), 24, "<L", 2**31)
    with pytest.raises(DataError, match=r"claims to unpack from \d+ to 2,147,483,648 bytes"):
        open_source(path)
    with pytest.raises(DataError, match="do not trust this archive"):
        open_source(patched(path, 24, "<L", 2**27))


def test_a_bomb_that_claims_less_than_it_is_gives_no_more_than_it_claims(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"a.png": bytes(2**24)})
    path = patched(path, 24, "<L", 1000)
    with pytest.raises(DataError, match=r"a\.png is damaged"):
        open_source(path).read("a.png")


METHODS = {"stored": zipfile.ZIP_STORED, "deflate": zipfile.ZIP_DEFLATED, "bzip2": zipfile.ZIP_BZIP2,
           "lzma": zipfile.ZIP_LZMA}  # fmt: skip
READ = """
from pathlib import Path
from unpaired.data.sources import open_source

def work(item):
    return len(open_source(Path(item)).read("a.png"))
"""


def test_no_method_unpacks_more_than_the_header_says(tmp_path: Path) -> None:
    """Python's own reader unpacks all of it first and counts afterwards."""
    names = []
    for name, method in METHODS.items():
        path = tmp_path / f"{name}.zip"
        with zipfile.ZipFile(path, "w", method) as archive, archive.open("a.png", "w") as file:
            for _ in range(1 if name == "stored" else 150):
                file.write(bytes(1 << 20))
        names.append(str(patched(path, 24, "<L", 5000)))
    for name, (said, grown) in zip(names, limited(READ, names), strict=True):
        assert said.startswith(f"DataError: {name}: a.png is damaged (")
        assert grown < 20, name


@pytest.mark.parametrize("method", METHODS.values(), ids=list(METHODS))
def test_every_method_and_size_is_read_as_it_was_written(method: int, tmp_path: Path) -> None:
    random = np.random.default_rng(1).bytes
    members = {f"{size}{kind}.png": make(size) for size in (0, 1, 4095, 4096, 300_000)
               for kind, make in (("flat", bytes), ("random", random))}  # fmt: skip
    source = open_source(write_zip(tmp_path / "a.zip", members, method))
    assert {name: source.read(name) for name in source.sizes} == members

    class Pipe(io.BytesIO):
        """Written from front to back, so sizes stand behind each member."""

        def seekable(self) -> bool:
            return False

        def seek(self, *_: int) -> int:
            raise io.UnsupportedOperation

        def tell(self) -> int:
            raise io.UnsupportedOperation

    piped = Pipe()
    with zipfile.ZipFile(piped, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    (tmp_path / "b.zip").write_bytes(b"before" + piped.getvalue())
    source = open_source(tmp_path / "b.zip")
    assert {name: source.read(name) for name in source.sizes} == members


@pytest.mark.parametrize("field", [16, 24], ids=["checksum", "size"])
@pytest.mark.parametrize("difference", [-1, 1])
@pytest.mark.parametrize("method", METHODS.values(), ids=list(METHODS))
def test_a_member_that_is_not_what_the_header_says_is_damaged(
    method: int, difference: int, field: int, tmp_path: Path
) -> None:
    path = write_zip(tmp_path / "a.zip", {"a.png": picture(1)}, method)
    content = path.read_bytes()
    (said,) = struct.unpack_from("<L", content, content.rindex(b"PK\x01\x02") + field)
    patched(path, field, "<L", said + difference)
    with pytest.raises(DataError, match=r"a\.zip: a\.png is damaged \(.*\); download it again"):
        open_source(path).read("a.png")


def test_the_ratio_is_that_of_the_bytes_that_are_there(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"a.png": bytes(1000)})
    patched(patched(path, 24, "<L", 2**27), 20, "<L", 2**26)
    with pytest.raises(DataError, match="do not trust this archive"):
        open_source(path)


def tar_file() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.png"), io.BytesIO(b""))
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>Please log in", "web page"),
        (gzip.compress(b"x", mtime=0), "gzip"),
        (tar_file(), "tar archive"),
        (b"7z\xbc\xaf\x27\x1c", "7z"),
        (b"Rar!\x1a\x07", "rar"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"PK\x03\x04" + bytes(100), "truncated or damaged"),
        (bytes(300), "not a zip archive"),
    ],
)
def test_what_is_no_archive_is_named(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "horse2zebra.zip"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words) as found:
        open_source(path)
    assert str(found.value).startswith(f"{path}: ")
    assert "\n" not in str(found.value)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_zip(tmp_path_factory.mktemp("zip") / "a.zip", horse2zebra((1, 1, 1, 1))).read_bytes()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_cut_or_changed_byte_is_noticed_or_harmless(data: st.DataObject, whole: bytes, tmp_path: Path) -> None:
    content = bytearray(whole)
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "a.zip"
    path.write_bytes(content)
    true = horse2zebra((1, 1, 1, 1))
    try:
        source = Zip(path)
        read = {name: source.read(name) for name in source.sizes}
    except DataError:
        return
    assert all(any(content == other for other in true.values()) for content in read.values())


def test_links_between_folders_are_followed_once(tmp_path: Path) -> None:
    write_folder(tmp_path / "photos", {"cats/1.png": b"1"})
    (tmp_path / "photos" / "cats" / "again").symlink_to(tmp_path / "photos")
    (tmp_path / "photos" / "dogs").symlink_to(write_folder(tmp_path / "elsewhere", {"2.png": b"2"}))
    assert open_source(tmp_path / "photos").images == ["cats/1.png", "dogs/2.png"]
    (tmp_path / "photos" / "broken.png").symlink_to(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"broken\.png: the link points to nothing"):
        open_source(tmp_path / "photos")
