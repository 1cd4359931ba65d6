"""Where a cloud's state rests: in memory, or in a JSON file that several processes share.

A change reads the newest state, alters a copy and replaces the whole under an exclusive lock. A reader never
waits and never sees half a change; a process that dies in the middle leaves the old state.
"""

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

from pydantic import ValidationError

from libs.providers.base import Cause, Rejected, Unavailable
from libs.providers.simulated.state import CODEC, CloudState

Result = TypeVar("Result")
_LOCK_DEADLINE_S = 5.0


class Store(Protocol):
    """Holds one cloud."""

    def read(self) -> CloudState | None:
        """The newest state, not to be altered; None when the cloud does not exist."""

    def create(self, state: CloudState) -> bool:
        """Put the first state; False when the cloud exists already."""

    def change(self, alter: Callable[[CloudState], Result]) -> Result:
        """Alter the newest state and keep it; what `alter` raises leaves everything as it was."""


class MemoryStore:
    """A cloud that lives as long as the process."""

    def __init__(self) -> None:
        self._body: bytes | None = None
        self._state: CloudState | None = None
        self._lock = threading.Lock()

    def read(self) -> CloudState | None:
        return self._state

    def create(self, state: CloudState) -> bool:
        with self._lock:
            if self._body is not None:
                return False
            self._keep(CODEC.dump_json(state))
            return True

    def change(self, alter: Callable[[CloudState], Result]) -> Result:
        with self._lock:
            if self._body is None:
                raise Unavailable(Cause.UNREACHABLE, "the simulated cloud does not exist")
            state = CODEC.validate_json(self._body)
            result = alter(state)
            body = CODEC.dump_json(state)
            if body != self._body:
                self._keep(body)
            return result

    def _keep(self, body: bytes) -> None:
        self._body, self._state = body, CODEC.validate_json(body)


class FileStore:
    """A cloud in a file. While a version is cached its descriptor stays open, so its inode cannot be used
    again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: int | None = None
        self._inode: int | None = None
        self._state: CloudState | None = None

    def __del__(self) -> None:
        if self._held is not None:
            os.close(self._held)

    def read(self) -> CloudState | None:
        try:
            if self._inode is not None and os.stat(self._path).st_ino == self._inode:
                return self._state
            self._load()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unavailable(Cause.UNREACHABLE, f"cloud file: {error.strerror}") from None
        return self._state

    def create(self, state: CloudState) -> bool:
        with self._locked():
            if self.read() is not None:
                return False
            self._replace(CODEC.dump_json(state))
            return True

    def change(self, alter: Callable[[CloudState], Result]) -> Result:
        with self._locked():
            if self.read() is None or self._held is None:
                raise Unavailable(Cause.UNREACHABLE, "the simulated cloud does not exist")
            before = self._body()
            state = CODEC.validate_json(before)
            result = alter(state)
            after = CODEC.dump_json(state)
            if after != before:
                self._replace(after)
            return result

    def _load(self) -> None:
        descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        self._hold(descriptor)
        try:
            self._state = CODEC.validate_json(self._body())
        except ValidationError:
            self._inode = None
            raise Rejected(Cause.INVALID, "the file is not a simulated cloud") from None

    def _hold(self, descriptor: int) -> None:
        if self._held is not None:
            os.close(self._held)
        self._held, self._inode = descriptor, os.fstat(descriptor).st_ino

    def _body(self) -> bytes:
        assert self._held is not None
        return os.pread(self._held, os.fstat(self._held).st_size, 0)

    def _replace(self, body: bytes) -> None:
        fresh = f"{self._path}.new"
        try:
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(body)
            os.replace(fresh, self._path)
            self._load()
        except OSError as error:
            raise Unavailable(Cause.UNREACHABLE, f"cloud file: {error.strerror}") from None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            descriptor = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Unavailable(Cause.UNREACHABLE, f"cloud file: {error.strerror}") from None
        try:
            _acquire(descriptor)
            yield
        finally:
            os.close(descriptor)


def _acquire(descriptor: int) -> None:
    """Locks are held for about a millisecond; somebody stopped in the middle must not stop us for ever."""
    deadline = time.monotonic() + _LOCK_DEADLINE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise Unavailable(Cause.TIMEOUT, "the cloud file is locked") from None
            time.sleep(0.001)
        else:
            return
