"""Who runs what, when several studies work on one store: a lock per run, which the kernel drops with its process."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path

from curvebench.errors import StoreError

FOLDER = ".running"
NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
"""What file systems without locks answer: then a run may be done twice, and both records are kept."""


class Claims:
    """The runs that this process has taken for itself, among all that share a store.

    Args:
        records: the store's folder; the locks lie in a hidden folder below it.
    """

    def __init__(self, records: Path) -> None:
        self._folder = records / FOLDER
        self._held: dict[str, int] = {}

    def take(self, name: str) -> bool:
        """Claim a run. False if another study has it now.

        Raises:
            StoreError: the folder of the locks cannot be written.
        """
        path = self._folder / name
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            while True:
                handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(handle)
                    return False
                except OSError as error:
                    if error.errno not in NO_LOCKS:
                        os.close(handle)
                        raise
                if os.fstat(handle).st_nlink:
                    self._held[name] = handle
                    return True
                os.close(handle)  # its last holder removed it between our opening and locking it
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error.strerror or error}") from error

    def release(self, name: str) -> None:
        """Give a run back."""
        handle = self._held.pop(name)
        with contextlib.suppress(OSError):
            os.unlink(self._folder / name)
        os.close(handle)

    def release_all(self) -> None:
        """Give everything back."""
        for name in list(self._held):
            self.release(name)
        with contextlib.suppress(OSError):
            self._folder.rmdir()  # another study's locks keep it
