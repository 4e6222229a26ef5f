"""CIFAR-10 in miniature, in both official layouts, made here; a cache folder of the test's own; a small web server."""

from __future__ import annotations

import hashlib
import io
import pickle
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import platformdirs
import pytest

from curvebench import cards
from curvebench.cards import DatasetCard

BATCHES = ("data_batch_1", "data_batch_2", "test_batch")
ROWS = 20


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the user's cache or data."""
    folder = tmp_path / "user-cache"
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: folder / name)
    monkeypatch.delenv("CURVEBENCH_DATA", raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return folder


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """Writes strings as Python 2's protocol 2 did, and NumPy's names as NumPy 1 did: the official files' dialect."""

    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_old_string(self, obj: bytes | str) -> None:
        raw = obj if isinstance(obj, bytes) else obj.encode("latin1")
        if len(raw) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(raw)]) + raw)
        else:
            self.write(pickle.BINSTRING + struct.pack("<i", len(raw)) + raw)
        self.memoize(obj)

    dispatch[bytes] = save_old_string
    dispatch[str] = save_old_string


def python2_pickle(content: object) -> bytes:
    stream = io.BytesIO()
    Python2Pickler(stream, protocol=2).dump(content)
    return stream.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def images_and_labels(batch: int) -> tuple[np.ndarray, list[int]]:
    rng = np.random.default_rng(batch)
    return rng.integers(0, 256, (ROWS, 3072), dtype=np.uint8), [int(x) for x in rng.integers(0, 10, ROWS)]


def python_files() -> dict[str, bytes]:
    files = {}
    for number, name in enumerate(BATCHES):
        images, labels = images_and_labels(number)
        content = {"batch_label": "tiny", "labels": labels, "data": images, "filenames": ["a.png"] * ROWS}
        files[f"cifar-10-batches-py/{name}"] = python2_pickle(content)
    return files


def binary_files() -> dict[str, bytes]:
    files = {}
    for number, name in enumerate(BATCHES):
        images, labels = images_and_labels(number)
        rows = np.concatenate([np.array(labels, np.uint8)[:, None], images], axis=1)
        files[f"cifar-10-batches-bin/{name}.bin"] = rows.tobytes()
    return files


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def entry(path: str, content: bytes, layout: str | None) -> dict[str, Any]:
    out = {"path": path, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return out | ({"layout": layout} if layout else {})


def make_card(
    python: dict[str, bytes] | None = None,
    binary: dict[str, bytes] | None = None,
    archives: list[dict[str, Any]] | None = None,
) -> DatasetCard:
    """The card of a miniature CIFAR-10 with the checksums of these files."""
    files = [entry(path, content, "python") for path, content in (python or {}).items()]
    files += [entry(path, content, "binary") for path, content in (binary or {}).items()]
    content = {
        "name": "cifar10",
        "title": "CIFAR-10 in miniature",
        "licence": "none",
        "terms": "Made by a test.",
        "citation": "none",
        "homepage": "https://www.cs.toronto.edu/~kriz/cifar.html",
        "source": "download",
        "loader": "curvebench.data.cifar:load_cifar10",
        "folder": "cifar10",
        "files": files,
        "archives": archives or [],
        "splits": {"train": 30, "validation": 10, "test": 20},
    }
    card = cards.build("datasets", content, "tiny.toml")
    assert isinstance(card, DatasetCard)
    return card


@dataclass
class Site:
    """What the server holds and how it behaves; ``asked`` lists ``(path, Range header)``."""

    base: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    break_after: dict[str, list[int]] = field(default_factory=dict)  # bytes per answer, then the connection is cut
    ranges: bool = True
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)


def _handler(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.lstrip("/")
            wanted = self.headers.get("Range")
            site.asked.append((name, wanted))
            if name not in site.files:
                self.send_error(404)
                return
            content = site.files[name]
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and site.ranges else 0
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            for key, value in site.headers.items():
                self.send_header(key, value)
            self.end_headers()
            limits = site.break_after.get(name)
            self.wfile.write(content[start:][: limits.pop(0)] if limits else content[start:])
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            return

    return Handler


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(site))
    site.base = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield site
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass
class Tiny:
    """The helpers above, for tests: modules in ``tests`` do not import each other."""

    rows: int = ROWS
    make_card: Callable[..., DatasetCard] = make_card
    write: Callable[[Path, dict[str, bytes]], None] = write
    python_files: Callable[[], dict[str, bytes]] = python_files
    binary_files: Callable[[], dict[str, bytes]] = binary_files
    images_and_labels: Callable[[int], tuple[np.ndarray, list[int]]] = images_and_labels
    python2_pickle: Callable[[object], bytes] = python2_pickle


@pytest.fixture
def tiny() -> Tiny:
    return Tiny()
