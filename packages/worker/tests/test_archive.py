"""Archives that somebody made to hurt, and those that are fine."""

import gzip
import io
import os
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apothic_server.testing.guarantees import guarantee
from apothic_worker.archive import ArchiveRefused, UnpackLimits, unpack

SMALL = UnpackLimits(bytes_max=100_000, entries_max=20)


def entry(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> bytes:
    """One entry exactly as given, names unchecked."""
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname, info.mode = len(data), kind, link, mode
    return info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)


def archive(*entries: bytes) -> bytes:
    return gzip.compress(b"".join(entries) + bytes(1024))


def pax(key: str, value: bytes) -> bytes:
    """One record of an extended header."""
    rest = f" {key}=".encode() + value + b"\n"
    size = len(rest) + len(str(len(rest) + 2))
    return str(size).encode() + rest


def prefixed(prefix: str, name: str) -> bytes:
    """The header of an empty file whose name is in two parts."""
    header = tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT)
    return checked(header[:345] + prefix.encode().ljust(155, b"\0") + header[500:])


def checked(header: bytes) -> bytes:
    """The header block with a right checksum."""
    total = sum(header[:148]) + 8 * 32 + sum(header[156:512])
    return header[:148] + b"%06o\0 " % total + header[156:]


def unpacked(data: bytes, folder: Path, limits: UnpackLimits = SMALL) -> dict[str, bytes]:
    target = folder / "target"
    target.mkdir(parents=True)
    unpack(io.BytesIO(data), target, limits)
    return {str(path.relative_to(target)): path.read_bytes() for path in target.rglob("*") if path.is_file()}


def test_files_and_folders_are_unpacked(tmp_path):
    data = archive(entry("a", kind=tarfile.DIRTYPE), entry("a/b.py", b"x" * 700), entry("c", b"", mode=0o755))

    assert unpacked(data, tmp_path) == {"a/b.py": b"x" * 700, "c": b""}
    assert os.access(tmp_path / "target/c", os.X_OK)


@pytest.mark.parametrize("layout", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_what_tarfile_writes_is_understood(tmp_path, layout):
    names = ["plain.py", "x" * 90 + "/" + "y" * 90 + ".py", "grüße/ünïcode.py"]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=layout) as made:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 3
            info.mtime = 1.5
            made.addfile(info, io.BytesIO(b"abc"))

    assert unpacked(out.getvalue(), tmp_path) == dict.fromkeys(names, b"abc")


REFUSED = {
    "absolute": [entry("/etc/passwd", b"x")],
    "parent": [entry("../out", b"x")],
    "parent inside": [entry("a/../../out", b"x")],
    "parent last": [entry("a/..", kind=tarfile.DIRTYPE)],
    "dot inside": [entry("a/./b", b"x")],
    "empty component": [entry("a//b", b"x")],
    "symlink": [entry("a", kind=tarfile.SYMTYPE, link="/etc")],
    "relative symlink": [entry("a", kind=tarfile.SYMTYPE, link="b")],
    "file through symlink": [entry("a", kind=tarfile.SYMTYPE, link="/tmp"), entry("a/b", b"x")],
    "hard link": [entry("a", kind=tarfile.LNKTYPE, link="/etc/passwd")],
    "character device": [entry("a", kind=tarfile.CHRTYPE)],
    "block device": [entry("a", kind=tarfile.BLKTYPE)],
    "fifo": [entry("a", kind=tarfile.FIFOTYPE)],
    "sparse": [entry("a", kind=tarfile.GNUTYPE_SPARSE)],
    "sparse by pax": [entry("@", pax("GNU.sparse.major", b"1"), kind=b"x"), entry("a", b"x")],
    "hard link to a folder above": [entry("a", kind=tarfile.LNKTYPE, link="../../out"), entry("a", b"x")],
    "file through hard link": [entry("a", kind=tarfile.LNKTYPE, link="."), entry("a/b", b"x")],
    "contiguous": [entry("a", kind=tarfile.CONTTYPE)],
    "unknown kind": [entry("a", kind=b"Z")],
    "long link": [entry("././@LongLink", b"x" * 200, kind=tarfile.GNUTYPE_LONGLINK)],
    "twice": [entry("a", b"1"), entry("a", b"2")],
    "twice by other spelling": [entry("a", b"1"), entry("./a", b"2")],
    "twice by long name": [entry("a", b"1"), entry("@", pax("path", b"a"), kind=b"x"), entry("z", b"2")],
    "folder with content": [entry("a", b"x" * 600, kind=tarfile.DIRTYPE), entry("b", b"x")],
    "folder twice": [entry("a", kind=tarfile.DIRTYPE), entry("a", kind=tarfile.DIRTYPE)],
    "file over folder": [entry("a/b", b"1"), entry("a", b"2")],
    "file as folder": [entry("a", b"1"), entry("a/b", b"2")],
    "root as file": [entry("./", b"1")],
    "long component": [entry("@", b"x" * 300 + b"\0", kind=b"L"), entry("a", b"x")],
    "long name": [entry("@", b"a/" * 600 + b"b\0", kind=b"L"), entry("a", b"x")],
    "deep name": [entry("@", b"a/" * 100 + b"b\0", kind=b"L"), entry("a", b"x")],
    "hidden name": [entry("@", b"../out\0", kind=b"L"), entry("a", b"x")],
    "nul in name": [entry("@", b"12 path=a\0b\n", kind=b"x"), entry("a", b"x")],
    "nul in short name": [checked(b"a\0../../out".ljust(100, b"\0") + entry("a")[100:512])],
    "nul in long name": [entry("@", b"a\0/../out\0", kind=b"L"), entry("a", b"x")],
    "parent in the prefix": [prefixed("../..", "out")],
    "root in the prefix": [prefixed("/etc", "out")],
    "overlong utf-8 slash": [checked(b"..\xc0\xafout".ljust(100, b"\0") + entry("a")[100:512])],
    "surrogate in name": [checked(b"\xed\xa0\x80".ljust(100, b"\0") + entry("a")[100:512])],
    "line break in name": [entry("a\nb", b"x")],
    "escape sequence in name": [entry("a\x1b[2J", b"x")],
    "name that reads backwards": [entry("a\u202eyp.exe", b"x")],
    "name with an unseen character": [entry("a\u200b.py", b"x")],
    "extended headers only": [entry("@", pax("path", b"a"), kind=b"x") for _ in range(30)],
    "pax link": [entry("@", pax("linkpath", b"/etc"), kind=b"x"), entry("a", kind=tarfile.SYMTYPE)],
    "pax absolute": [entry("@", pax("path", b"/etc/passwd"), kind=b"x"), entry("a", b"x")],
    "pax size of a folder": [entry("@", pax("size", b"99999"), kind=b"x"), entry("a", kind=tarfile.DIRTYPE), b"x"],
    "pax parent": [entry("@", b"15 path=../out\n", kind=b"x"), entry("a", b"x")],
    "pax negative size": [entry("@", b"11 size=-1\n", kind=b"x"), entry("a", b"x")],
    "pax huge size": [entry("@", b"20 size=99999999999\n", kind=b"x"), entry("a", b"x")],
    "pax nonsense": [entry("@", b"hello", kind=b"x"), entry("a", b"x")],
    "pax length zero": [entry("@", b"0 a=b\n", kind=b"x"), entry("a", b"x")],
    "global name": [entry("@", b"10 path=b\n", kind=b"g"), entry("a", b"x")],
    "huge extended header": [entry("@", b"x" * 70_000, kind=b"x"), entry("a", b"x")],
    "not utf-8": [checked(b"\xff\xfe" + entry("a")[2:512])],
    "too many bytes": [entry("a", b"x" * 60_000), entry("b", b"x" * 60_000)],
    "too many entries": [entry(f"f{n}") for n in range(21)],
    "too many folders": [entry(f"d{n}", kind=tarfile.DIRTYPE) for n in range(21)],
    "too many folders that nobody names": [entry("d/" * 21 + "f")],
    "folders in folders": [entry(f"{n}/" + "d/" * 8 + "f") for n in range(3)],
    "wrong checksum": [b"b" + entry("a")[1:]],
    "binary size": [checked(entry("a")[:124] + b"\x80" + b"\xff" * 11 + entry("a")[136:512])],
    "cut off": [checked(entry("a")[:124] + b"00000100000\0" + entry("a")[136:512])],
    "data after the end": [bytes(1024), b"surprise".ljust(512, b"!")],
}


@guarantee("G19.4", "archive_corpus")
@pytest.mark.parametrize("name", REFUSED)
def test_an_archive_made_to_hurt_is_refused_and_writes_nothing_outside(tmp_path, name):
    with pytest.raises(ArchiveRefused):
        unpacked(archive(*REFUSED[name]), tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


FINE = {
    "case": [entry("a", b"1"), entry("A", b"2")],
    "two forms of one letter": [entry("\u00e9", b"1"), entry("e\u0301", b"2")],
    "wide dots and slashes": [entry("\uff0e\uff0e\uff0fout", b"1")],
    "backslashes": [entry("..\\out", b"1")],
    "three dots": [entry("...", b"1")],
    "a name of the host": [entry("C:\\x", b"1")],
    "folder named after its file": [entry("a/b", b"1"), entry("a", kind=tarfile.DIRTYPE)],
    "as many entries as allowed": [entry(f"f{n}", b"1") for n in range(20)],
    "a long name for each": [entry("@", pax("path", b"a%d" % n), kind=b"x") + entry("z", b"1") for n in range(20)],
}


@guarantee("G19.4", "archive_corpus")
@pytest.mark.parametrize("name", FINE)
def test_odd_names_that_stay_inside_are_plain_files(tmp_path, name):
    found = unpacked(archive(*FINE[name]), tmp_path)

    assert found
    assert set(found.values()) <= {b"1", b"2"}
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


@guarantee("G19.4", "archive_corpus")
def test_an_archive_cut_off_anywhere_is_refused(tmp_path):
    data = archive(entry("a", b"x" * 40), entry("b/c", b"y" * 600))
    for cut in range(len(data)):
        with pytest.raises(ArchiveRefused):
            unpacked(data[:cut], tmp_path / str(cut))


@guarantee("G19.4", "archive_corpus")
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no gzip",
        archive(entry("a", b"x"))[:-20],
        gzip.compress(b""),
        archive(entry("a", b"x")) + b"more",
        archive(entry("a", b"x")) + archive(entry("b", b"x")),
        archive(entry("a", b"x"))[:-8] + bytes(8),
    ],
    ids=["empty", "other", "cut", "nothing compressed", "data behind", "another archive behind", "wrong checksum"],
)
def test_damaged_bytes_are_refused(tmp_path, data):
    with pytest.raises(ArchiveRefused):
        unpacked(data, tmp_path)


def test_a_bomb_is_stopped_while_it_unpacks(tmp_path):
    header = checked(entry("a")[:124] + b"77777777777\0" + entry("a")[136:512])
    with pytest.raises(ArchiveRefused, match="more than 100000 bytes"):
        unpacked(gzip.compress(header + bytes(5_000_000)), tmp_path)


@guarantee("G19.4", "archive_fuzz")
@settings(max_examples=300, derandomize=True)
@given(st.data())
def test_mutated_archives_stay_inside_or_are_refused(tmp_path_factory, data):
    plain = bytearray(
        entry("a", kind=tarfile.DIRTYPE)
        + entry("a/b", b"x" * 600)
        + entry("@", b"12 path=a/c\n", kind=b"x")
        + entry("q", b"y")
    )
    for _ in range(data.draw(st.integers(1, 8))):
        plain[data.draw(st.integers(0, len(plain) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        for start in range(0, len(plain), 512):
            plain[start : start + 512] = checked(bytes(plain[start : start + 512]))
    folder = tmp_path_factory.mktemp("fuzz")
    with suppress(ArchiveRefused):
        unpacked(gzip.compress(bytes(plain) + bytes(1024)), folder)

    assert [path.name for path in folder.iterdir()] == ["target"]
    assert not any(path.is_symlink() for path in folder.rglob("*"))
