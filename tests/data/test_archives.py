"""Archives that try to write elsewhere, and archives that are damaged, leave nothing outside and name the member."""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from curvebench.data import archives
from curvebench.errors import DataError

LIMIT = 1 << 20


def _member(name: str, **attributes: object) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    for key, value in attributes.items():
        setattr(member, key, value)
    return member


def _tar(path: Path, members: Iterable[tuple[tarfile.TarInfo, bytes]], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for member, content in members:
            if content:
                member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


GOOD = (tarfile.TarInfo("set/a"), b"content")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_takes_what_is_wanted_and_no_more(tmp_path: Path, mode: str) -> None:
    folder = _member("set", type=tarfile.DIRTYPE)
    extra = (_member("set/readme.html"), b"hello")
    dotted = (_member("./set/b", mode=0o4777), b"other")
    archive = _tar(tmp_path / "x.tar", [(folder, b""), GOOD, extra, dotted], mode)
    into = tmp_path / "into"
    into.mkdir()
    archives.unpack(archive, into, ["set/a", "set/b", "set/absent"], LIMIT)
    found = {str(p.relative_to(into)): p.read_bytes() for p in into.rglob("*") if p.is_file()}
    assert found == {"set/a": b"content", "set/b": b"other"}
    assert not (into / "set/b").stat().st_mode & 0o4111  # contents only: no setuid, no executable


@pytest.mark.parametrize(
    ("member", "why"),
    [
        (_member("../evil"), r"member '\.\./evil' points outside its folder"),
        (_member("set/../../evil"), r"member 'set/\.\./\.\./evil' points outside its folder"),
        (_member("..\\evil"), "points outside its folder"),
        (_member("/etc/evil"), "member '/etc/evil' has an absolute path"),
        (_member("C:\\evil"), "has an absolute path"),
        (_member("C:evil"), "has an absolute path"),
        (_member("\\\\host\\share\\evil"), "has an absolute path"),
        (_member("set/a", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "member 'set/a' is a link to '/etc/passwd'"),
        (_member("set/a", type=tarfile.SYMTYPE, linkname="b"), "member 'set/a' is a link to 'b'"),
        (_member("set/a", type=tarfile.LNKTYPE, linkname="../evil"), r"member 'set/a' is a link to '\.\./evil'"),
        (_member("set/a", type=tarfile.CHRTYPE, devmajor=1, devminor=3), "'set/a' is neither a file nor a folder"),
        (_member("set/a", type=tarfile.BLKTYPE), "'set/a' is neither a file nor a folder"),
        (_member("set/a", type=tarfile.FIFOTYPE), "'set/a' is neither a file nor a folder"),
    ],
    ids=lambda value: value.name if isinstance(value, tarfile.TarInfo) else "",
)
@pytest.mark.parametrize("first", [True, False])
def test_hostile_members_are_refused_by_name(tmp_path: Path, member: tarfile.TarInfo, why: str, first: bool) -> None:
    content = b"evil" if member.isreg() else b""
    members = [(member, content), GOOD] if first else [GOOD, (member, content)]
    archive = _tar(tmp_path / "evil.tar.gz", members)
    into = tmp_path / "deep" / "into"
    into.mkdir(parents=True)
    before = {path for path in tmp_path.rglob("*")}
    with pytest.raises(DataError, match=rf"evil\.tar\.gz: .*{why}: not unpacked"):
        archives.unpack(archive, into, ["set/a", member.name], LIMIT)
    new = {path for path in tmp_path.rglob("*")} - before
    assert new <= {into / "set", into / "set/a"}
    assert not any(path.is_symlink() for path in new)
    if (into / "set/a").exists():
        assert (into / "set/a").read_bytes() == b"content"


def test_a_bomb_is_stopped_before_it_is_written(tmp_path: Path) -> None:
    bomb = _member("set/a", size=3 * LIMIT)
    archive = tmp_path / "bomb.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.addfile(bomb, io.BytesIO(bytes(bomb.size)))
    with pytest.raises(
        DataError, match=r"'set/a' makes 1 members and 3,145,728 bytes, allowed are 10,000 and 1,048,576"
    ):
        archives.unpack(archive, tmp_path, ["set/a"], LIMIT)
    assert not (tmp_path / "set").exists()


def test_many_small_members_count_together(tmp_path: Path) -> None:
    archive = _tar(tmp_path / "x.tar.gz", [(_member(f"set/{n}"), bytes(300_000)) for n in range(5)])
    with pytest.raises(DataError, match="'set/3' makes 4 members and 1,200,000 bytes"):
        archives.unpack(archive, tmp_path, [], LIMIT)


def test_too_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MEMBERS", 3)
    archive = _tar(tmp_path / "x.tar.gz", [(_member(f"set/{n}"), b"") for n in range(5)])
    with pytest.raises(DataError, match="'set/3' makes 4 members"):
        archives.unpack(archive, tmp_path, [], LIMIT)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_damaged_archive(tmp_path: Path, keep: float) -> None:
    archive = _tar(tmp_path / "x.tar.gz", [(_member("set/a"), bytes(range(256)) * 2000)])
    content = archive.read_bytes()
    archive.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(DataError, match=r"x\.tar\.gz is not a whole tar archive"):
        archives.unpack(archive, tmp_path, ["set/a"], LIMIT)


def test_not_an_archive(tmp_path: Path) -> None:
    (tmp_path / "x.tar.gz").write_text("<html>Please log in to this network</html>")
    with pytest.raises(DataError, match=r"x\.tar\.gz is not a whole tar archive .*: delete it and fetch it again"):
        archives.unpack(tmp_path / "x.tar.gz", tmp_path, ["set/a"], LIMIT)


def test_wrong_crc_is_damage_and_no_fault_of_the_disk(tmp_path: Path) -> None:
    plain = _tar(tmp_path / "x.tar", [(_member("set/a"), bytes(20_000))], "w").read_bytes()
    first = bytearray(gzip.compress(plain[:5000]))
    first[-8] ^= 1  # gzip's checksum of what it holds
    archive = tmp_path / "x.tar.gz"
    archive.write_bytes(first + gzip.compress(plain[5000:]))
    with pytest.raises(DataError, match=r"x\.tar\.gz is not a whole tar archive \(.*CRC"):
        archives.unpack(archive, tmp_path, ["set/a"], LIMIT)


def _zip(path: Path, members: Iterable[tuple[str | zipfile.ZipInfo, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members:
            archive.writestr(member, content, zipfile.ZIP_DEFLATED)
    return path


def _link(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


def test_zip_takes_what_is_wanted_and_no_more(tmp_path: Path) -> None:
    archive = _zip(tmp_path / "x.zip", [("set/", b""), ("set/a", b"content"), ("set/b", b"other")])
    archives.unpack(archive, tmp_path, ["set/a"], LIMIT)
    assert [p.name for p in (tmp_path / "set").iterdir()] == ["a"]
    assert (tmp_path / "set/a").read_bytes() == b"content"


@pytest.mark.parametrize(
    ("member", "why"),
    [
        ("../evil", "points outside its folder"),
        ("/etc/evil", "has an absolute path"),
        ("C:\\evil", "has an absolute path"),
        (_link("set/link"), "is a link"),
    ],
    ids=["dots", "absolute", "drive", "link"],
)
def test_a_hostile_zip_writes_nothing(tmp_path: Path, member: str | zipfile.ZipInfo, why: str) -> None:
    archive = _zip(tmp_path / "evil.zip", [("set/a", b"content"), (member, b"evil")])
    with pytest.raises(DataError, match=f"{why}: not unpacked"):
        archives.unpack(archive, tmp_path, ["set/a"], LIMIT)
    assert not (tmp_path / "set").exists()


def test_a_zip_bomb_and_a_damaged_zip_are_refused(tmp_path: Path) -> None:
    bomb = _zip(tmp_path / "bomb.zip", [("set/a", b"0" * (LIMIT + 1))])
    with pytest.raises(DataError, match="goes beyond 1,048,576 bytes: not unpacked"):
        archives.unpack(bomb, tmp_path, ["set/a"], LIMIT)
    whole = _zip(tmp_path / "x.zip", [("set/a", b"content" * 100)]).read_bytes()
    for content in (b"", whole[:-30], whole[:40] + b"\0\1\2" + whole[43:]):
        (tmp_path / "broken.zip").write_bytes(content)
        with pytest.raises(DataError, match="is not a whole zip archive"):
            archives.unpack(tmp_path / "broken.zip", tmp_path, ["set/a"], LIMIT)
