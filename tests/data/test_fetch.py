"""Downloads from a server of our own: right, wrong, broken off, resumed, mirrored, and no server at all."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import hashlib
import io
import socket
import tarfile
from pathlib import Path

import pytest

from curvebench.data import checksums, fetch, roots
from curvebench.errors import DataError

NAME = "cifar-10-python.tar.gz"


def _archive(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def _entry(content: bytes, url: str, mirrors: tuple[str, ...] = (), **more: object) -> dict[str, object]:
    checksum = {"sha256": hashlib.sha256(content).hexdigest()}
    return {"url": url, "mirrors": list(mirrors), "name": NAME, "bytes": len(content)} | (more or checksum)


@pytest.fixture
def files(tiny) -> dict[str, bytes]:
    return tiny.python_files()


@pytest.fixture
def archive(files: dict[str, bytes]) -> bytes:
    return _archive(files | {"cifar-10-batches-py/readme.html": b"hello"})


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("CURVEBENCH_DATA", str(tmp_path / "data"))
    return tmp_path / "data" / "cifar10"


def _left(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {".fetch.lock"}


def test_fetches_checks_and_cleans_up(tiny, site, files, archive, home: Path) -> None:
    site.files[NAME] = archive
    card = tiny.make_card(python=files, archives=[_entry(archive, f"{site.base}/{NAME}")])
    assert fetch.fetch(card) == home
    assert _left(home) == set(files)
    assert roots.verify(card, roots.locate(card)) == "python"
    assert fetch.fetch(card) == home
    assert len(site.asked) == 1, "what is there is not fetched again"


def test_default_place_is_the_users_cache(tiny, site, files, archive, own_cache: Path) -> None:
    site.files[NAME] = archive
    card = tiny.make_card(python=files, archives=[_entry(archive, f"{site.base}/{NAME}")])
    assert fetch.fetch(card) == own_cache / "curvebench" / "data" / "cifar10"
    assert roots.locate(card) == own_cache / "curvebench" / "data" / "cifar10"


def test_chosen_layout(tiny, site, files, archive, home: Path) -> None:
    binary = tiny.binary_files()
    site.files |= {"p": archive, "b": _archive(binary)}
    entries = [
        _entry(archive, f"{site.base}/p") | {"layout": "python"},
        _entry(site.files["b"], f"{site.base}/b") | {"layout": "binary", "name": "binary.tar.gz"},
    ]
    card = tiny.make_card(python=files, binary=binary, archives=entries)
    fetch.fetch(card, layout="binary")
    assert _left(home) == set(binary)
    assert [name for name, _ in site.asked] == ["b"]
    with pytest.raises(DataError, match="cifar10 has no layout 'binry': did you mean 'binary'"):
        fetch.fetch(card, layout="binry")


def test_replaces_a_corrupt_file(tiny, site, files, archive, home: Path) -> None:
    site.files[NAME] = archive
    card = tiny.make_card(python=files, archives=[_entry(archive, f"{site.base}/{NAME}")])
    tiny.write(home, files | {"cifar-10-batches-py/test_batch": b"rubbish", "mine.txt": b"keep me"})
    fetch.fetch(card)
    assert roots.verify(card, home) == "python"
    assert (home / "mine.txt").read_bytes() == b"keep me"


def test_wrong_checksum_is_named_and_nothing_is_unpacked(tiny, site, files, archive, home: Path) -> None:
    site.files[NAME] = archive[:-1] + b"X"
    card = tiny.make_card(python=files, archives=[_entry(archive, f"{site.base}/{NAME}")])
    with pytest.raises(DataError) as error:
        fetch.fetch(card)
    checksum = hashlib.sha256(archive).hexdigest()
    assert f"({site.base}/{NAME}: its sha256 is not {checksum})" in str(error.value)
    assert len(site.asked) == 1
    assert _left(home) == set()


def test_md5_will_do_where_only_that_is_official(tiny, site, files, archive, home: Path) -> None:
    site.files |= {NAME: archive, "wrong": archive[:-1] + b"X"}
    md5 = hashlib.md5(archive, usedforsecurity=False).hexdigest()
    entry = _entry(archive, f"{site.base}/wrong", (f"{site.base}/{NAME}",), md5=md5)
    fetch.fetch(tiny.make_card(python=files, archives=[entry]))
    assert _left(home) == set(files)


def test_mirrors_are_tried_in_order(tiny, site, files, archive, home: Path) -> None:
    site.files |= {"wrong": archive[:-1] + b"X", "short": archive[:-9], "right": archive, "never": archive}
    addresses = [f"{site.base}/{name}" for name in ("absent", "wrong", "short", "right", "never")]
    fetch.fetch(tiny.make_card(python=files, archives=[_entry(archive, addresses[0], tuple(addresses[1:]))]))
    assert [name for name, _ in site.asked] == ["absent", "wrong", "short", "right"]
    assert _left(home) == set(files)


def test_goes_on_where_the_connection_broke(tiny, site, files, archive, home: Path) -> None:
    site.files[NAME] = archive
    site.break_after[NAME] = [1000, 2000]
    fetch.fetch(tiny.make_card(python=files, archives=[_entry(archive, f"{site.base}/{NAME}")]))
    assert site.asked == [(NAME, None), (NAME, "bytes=1000-"), (NAME, "bytes=3000-")]
    assert _left(home) == set(files)


def test_goes_on_in_a_later_command(tiny, site, files, archive, home: Path) -> None:
    site.files[NAME] = archive
    site.break_after[NAME] = [1000, 0]
    card = tiny.make_card(python=files, archives=[_entry(archive, f"{site.base}/{NAME}")])
    with pytest.raises(DataError, match="could not be downloaded"):
        fetch.fetch(card)
    assert (home / f"{NAME}.part").stat().st_size == 1000
    site.asked.clear()
    fetch.fetch(card)
    assert site.asked == [(NAME, "bytes=1000-")]
    assert _left(home) == set(files)


def test_a_server_that_cannot_resume_starts_again(tiny, site, files, archive, home: Path) -> None:
    site.files[NAME], site.ranges = archive, False
    home.mkdir()
    (home / f"{NAME}.part").write_bytes(archive[:500])
    fetch.fetch(tiny.make_card(python=files, archives=[_entry(archive, f"{site.base}/{NAME}")]))
    assert site.asked == [(NAME, "bytes=500-")]
    assert _left(home) == set(files)


@pytest.mark.parametrize("size", [500, None, 10**6], ids=["partial", "whole", "too long"])
def test_a_wrong_partial_file_does_not_spoil_the_next_try(tiny, site, files, archive, home: Path, size: int) -> None:
    site.files[NAME] = archive
    home.mkdir()
    (home / f"{NAME}.part").write_bytes(b"\0" * (size or len(archive)))
    fetch.fetch(tiny.make_card(python=files, archives=[_entry(archive, f"{site.base}/{NAME}")]))
    assert _left(home) == set(files)


def test_a_page_in_place_of_the_archive_is_refused_at_once(tiny, site, files, archive, home: Path) -> None:
    site.files[NAME] = b"<html>Please log in</html>"
    card = tiny.make_card(python=files, archives=[_entry(archive, f"{site.base}/{NAME}")])
    with pytest.raises(DataError, match=rf"{NAME}: offers 26 bytes, expected {len(archive):,}\)"):
        fetch.fetch(card)
    assert _left(home) == set()


def test_announced_gzip_encoding_is_not_decoded(tiny, site, files, archive, home: Path) -> None:
    site.files[NAME], site.headers = archive, {"Content-Encoding": "x-gzip"}
    fetch.fetch(tiny.make_card(python=files, archives=[_entry(archive, f"{site.base}/{NAME}")]))
    assert _left(home) == set(files)


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def test_no_network_says_exactly_what_to_do(tiny, files, archive, home: Path, closed_port: int) -> None:
    url = f"http://127.0.0.1:{closed_port}/{NAME}"
    card = tiny.make_card(python=files, archives=[_entry(archive, url)])
    with pytest.raises(DataError) as error:
        fetch.fetch(card)
    refused = f"Failed to establish a new connection: [Errno {errno.ECONNREFUSED}] Connection refused"
    checksum = hashlib.sha256(archive).hexdigest()
    assert str(error.value) == (
        f"cifar10: could not be downloaded ({url}: {refused}): get {NAME} ({len(archive):,} bytes, sha256 {checksum}) "
        f"from {url} on another machine, put it at {home / NAME} and run `curvebench data fetch cifar10` again, or set "
        "CURVEBENCH_DATA=/path/to/folder in which cifar10/ holds its unpacked files"
    )
    (home / NAME).write_bytes(archive[:-1])
    with pytest.raises(DataError, match=rf"could not be downloaded \({home / NAME}: its sha256 is not"):
        fetch.fetch(card)
    (home / NAME).write_bytes(archive)
    assert fetch.fetch(card) == home
    assert _left(home) == {*files, NAME}, "what the user put there stays"


def test_unknown_host_is_a_sentence(tiny, files, archive, home: Path) -> None:
    card = tiny.make_card(python=files, archives=[_entry(archive, "http://no-such-host.invalid/x")])
    with pytest.raises(DataError, match=r"could not be downloaded \(http://no-such-host\.invalid/x: .*resolve"):
        fetch.fetch(card)


def test_a_server_that_says_nothing_times_out(
    tiny, files, archive, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from curvebench.data import download

    monkeypatch.setattr(download, "SILENCE", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x"
        with pytest.raises(DataError, match=r"/x: Read timed out"):
            fetch.fetch(tiny.make_card(python=files, archives=[_entry(archive, url)]))


def test_hostile_archive_places_nothing(tiny, site, files, home: Path) -> None:
    evil = _archive(files | {"../evil": b"evil"})
    site.files[NAME] = evil
    card = tiny.make_card(python=files, archives=[_entry(evil, f"{site.base}/{NAME}")])
    with pytest.raises(DataError, match=r"member '\.\./evil' points outside its folder: not unpacked"):
        fetch.fetch(card)
    assert _left(home) == {NAME}
    assert not list(home.parent.rglob("evil"))


def test_archive_without_a_file_of_the_card(tiny, site, files, home: Path) -> None:
    archive = _archive(dict(list(files.items())[:2]))
    site.files[NAME] = archive
    card = tiny.make_card(python=files, archives=[_entry(archive, f"{site.base}/{NAME}")])
    with pytest.raises(
        DataError, match=r"test_batch is missing; the archive has its official checksum, so the card is"
    ):
        fetch.fetch(card)
    assert _left(home) == set()


def test_two_at_once_are_refused(tiny, site, files, archive, home: Path) -> None:
    site.files[NAME] = archive
    card = tiny.make_card(python=files, archives=[_entry(archive, f"{site.base}/{NAME}")])
    home.mkdir()
    with (home / ".fetch.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="cifar10: another curvebench is fetching into"):
            fetch.fetch(card)
    fetch.fetch(card)


def test_folder_that_cannot_be_written(tiny, files, archive, home: Path) -> None:
    home.write_text("a file where the folder should be")
    card = tiny.make_card(python=files, archives=[_entry(archive, "http://127.0.0.1/x")])
    with pytest.raises(DataError, match=r"cannot write to .*cifar10 \(.*\): make room or rights there, or set CURVEB"):
        fetch.fetch(card)


def test_full_disk(tiny, site, files, archive, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil
    from types import SimpleNamespace

    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    card = tiny.make_card(python=files, archives=[_entry(archive, f"{site.base}/{NAME}")])
    with pytest.raises(DataError, match=r"cannot write to .* \(1,000 bytes are free, [\d,]+ are needed\): make room"):
        fetch.fetch(card)
    assert site.asked == []


def test_progress_is_drawn_on_a_terminal_only(tiny, site, files, archive, home: Path, capsys, monkeypatch) -> None:
    site.files[NAME] = archive
    card = tiny.make_card(python=files, archives=[_entry(archive, f"{site.base}/{NAME}")])
    fetch.fetch(card)
    assert capsys.readouterr() == ("", "")

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    (home / "cifar-10-batches-py/test_batch").unlink()
    fetch.fetch(card)
    assert NAME in terminal.getvalue()
    assert "100%" in terminal.getvalue() or "kB" in terminal.getvalue()


def test_nothing_to_download(tiny, files) -> None:
    with pytest.raises(DataError, match="cifar10: nothing to download"):
        fetch.fetch(tiny.make_card(python=files))


def test_stamps_never_vouch_for_the_archive(tiny, site, files, archive, home: Path, monkeypatch) -> None:
    """Files from the archive are hashed before they are placed, whatever stamps say."""
    monkeypatch.setattr(checksums, "SETTLED", 0)
    other = _archive({name: content[:-1] + b"X" for name, content in files.items()})
    site.files[NAME] = other
    card = tiny.make_card(python=files, archives=[_entry(other, f"{site.base}/{NAME}")])
    with pytest.raises(DataError, match="not the official file; the archive has its official checksum"):
        fetch.fetch(card)
    assert _left(home) == set()


def test_a_file_that_comes_alone_is_downloaded_into_its_place(tiny, site, files, home: Path) -> None:
    site.files.update({f"raw/{Path(name).name}": content for name, content in files.items()})
    card = tiny.make_card(python=files)
    alone = tuple(
        dataclasses.replace(file, layout=None, url=f"{site.base}/raw/{Path(file.path).name}") for file in card.files
    )
    card = dataclasses.replace(card, files=alone)
    assert fetch.fetch(card) == home
    assert _left(home) == set(files)
    asked = len(site.asked)
    fetch.fetch(card)
    assert len(site.asked) == asked, "nothing is downloaded twice"
    (home / card.files[0].path).write_bytes(b"spoilt")
    fetch.fetch(card)
    assert (home / card.files[0].path).read_bytes() == files[card.files[0].path]


def test_a_derived_file_has_nothing_to_download(tiny, files) -> None:
    card = tiny.make_card(python=files)
    card = dataclasses.replace(card, files=tuple(dataclasses.replace(f, status="derived") for f in card.files))
    with pytest.raises(DataError, match="has no official address, its card says how it was made"):
        fetch.fetch(card)
    assert "curvebench data fetch" not in roots.mend(card)
