"""Our side of the process that freezes (``freezer``): start it, freeze, thaw; and thaw ourselves if it is gone."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal

import msgspec

from recovery.capture.live import freezer
from recovery.capture.live.filesystems import Filesystem
from recovery.capture.live.rawvolumes import RawVolume, resume_all, volume_name
from recovery.errors import BusyError, DeviceError

How = Literal["frozen", "still"]
_libc = ctypes.CDLL(None, use_errno=True)
#: Seconds for the process to start, and for an answer behind the limit of a freeze.
_PATIENCE = 15.0


class Thawed(msgspec.Struct, frozen=True):
    """How long each filesystem was frozen and each volume suspended, in the order given, and whether the limit passed
    before we were ready."""

    milliseconds: list[float]
    volumes: list[float]
    expired: bool


class FreezeTimeoutError(BusyError):
    """Not all froze in time; all was thawed."""


class _Answer(msgspec.Struct):
    event: str
    how: list[How] = []
    number: int = 0
    errno: int = 0
    expired: bool = False
    milliseconds: list[float] = []
    stuck: list[int] = []


class Holder:
    """Holds filesystems, and volumes that are written to directly, still for a moment. Meanwhile the caller must not
    write, log or start anything."""

    def __init__(self, filesystems: Sequence[Filesystem]) -> None:
        self._filesystems = list(filesystems)
        #: Of the freeze that is on: what is held beside the filesystems, in the freezer's words and in ours.
        self._words: list[str] = []
        self._volumes: list[RawVolume] = []
        self._descriptors: list[int] = []
        self._line: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = b""

    def __enter__(self) -> Holder:
        """Open the filesystems and start the process. Raises DeviceError."""
        try:
            for each in self._filesystems:
                self._descriptors.append(os.open(each.mount, os.O_RDONLY | os.O_CLOEXEC))
            self._line, theirs = socket.socketpair()
            with theirs:
                # Popen, not run(): it lives beside us. Its own session, so that no signal of a terminal ends it.
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(Path(freezer.__file__).resolve()), *map(str, self._descriptors)],
                    stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                    pass_fds=self._descriptors, start_new_session=True, cwd="/",
                )  # fmt: skip
            self._expect("ready", _PATIENCE)
        except OSError as error:
            self.close()
            raise DeviceError(
                f"The filesystems cannot be held still: {error.strerror} ({error.filename}).", hint="Run as root."
            ) from error
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def process_id(self) -> int:
        """The process that freezes."""
        return self._process.pid if self._process else 0

    def sync(self, only: How | None = None, how: Sequence[How] = ()) -> None:
        """Write out the filesystems: all, or (with what ``freeze`` gave) those of one kind only."""
        for number, descriptor in enumerate(self._descriptors):
            if only is None or how[number] == only:
                _syncfs(descriptor)

    def freeze(self, seconds: float, volumes: Sequence[RawVolume] = ()) -> list[How]:
        """Freeze all; for each filesystem whether it is frozen, or cannot be. ``volumes`` are suspended after them.
        All goes on by itself after ``seconds``.

        Raises FreezeTimeoutError, BusyError when one is frozen by somebody else; then nothing is frozen by us.
        """
        self._volumes = list(volumes)
        groups = sorted({each.group for each in volumes if each.group})
        self._words = [*(f"lvm:{group}" for group in groups), *(f"dm:{each.number}" for each in volumes)]
        self._tell(" ".join([f"freeze {seconds}", *self._words]))
        answer = self._answer(seconds + _PATIENCE)
        if answer.event == "frozen":
            return answer.how[: len(self._filesystems)]
        self.thaw()
        what, end = self._named(answer.number)
        if answer.errno == errno.EBUSY:
            raise BusyError(
                f"The {what} is frozen already, by another program.", hint=f"Is another backup, or LVM, at work? {end}"
            )
        if answer.errno == errno.ETIMEDOUT:
            raise FreezeTimeoutError(
                f"The {what} did not freeze within {seconds * 1000:.0f} ms; all were thawed.",
                hint="It had much to write out. Allow a longer freeze, or try again when less is written.",
            )
        raise DeviceError(f"The {what} cannot be frozen: {os.strerror(answer.errno)}.")

    def thaw(self) -> Thawed:
        """Let all go on that we froze. Raises DeviceError when a volume does not."""
        self._tell("thaw")
        while True:
            answer = self._answer(_PATIENCE)
            if answer.event == "thawed":
                break
        volumes, self._volumes = self._volumes, []
        if answer.stuck:
            what, end = self._named(answer.stuck[0])
            raise DeviceError(f"The {what} could not be resumed.", hint=f"{end} Look at the kernel's log (dmesg).")
        count = len(answer.milliseconds) - len(volumes)
        return Thawed(answer.milliseconds[: len(self._filesystems)], answer.milliseconds[count:], answer.expired)

    def _named(self, number: int) -> tuple[str, str]:
        """What the freezer's ``number`` is, and how a freeze of it that was left behind is ended."""
        if number < len(self._filesystems):
            mount = self._filesystems[number].mount
            return f"filesystem '{mount}'", f"'fsfreeze --unfreeze {mount}' ends a freeze that was left behind."
        kind, _, name = self._words[number - len(self._filesystems)].partition(":")
        if kind == "lvm":
            return f"volume group '{name}'", "Try again when LVM's command has ended."
        name = volume_name(name) or name
        return f"volume '{name}'", f"'dmsetup resume {name}' ends a suspension that was left behind."

    def _tell(self, words: str) -> None:
        try:
            if self._line is None:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            self._line.sendall(words.encode() + b"\n")
        except OSError as error:
            raise self._gone() from error

    def _expect(self, event: str, seconds: float) -> None:
        if self._answer(seconds).event != event:
            raise self._gone()

    def _answer(self, seconds: float) -> _Answer:
        deadline = time.monotonic() + seconds
        while b"\n" not in self._buffer:
            if self._line is None or not select.select([self._line], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise self._gone()
            try:
                data = self._line.recv(65536)
            except OSError as error:
                raise self._gone() from error
            if not data:
                raise self._gone()
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return msgspec.json.decode(line, type=_Answer)

    def _gone(self) -> DeviceError:
        """The process is gone or hangs: we thaw ourselves. A filesystem that is not frozen says EINVAL; a volume is
        asked first."""
        for descriptor in reversed(self._descriptors):
            with contextlib.suppress(OSError):
                fcntl.ioctl(descriptor, freezer.FITHAW, 0)
        resume_all(reversed(self._volumes))  # of a freeze that is on
        return DeviceError(
            "The process that holds the filesystems still ended or does not answer; they were thawed.",
            hint="Look at the kernel's log (dmesg), then try again.",
        )

    def close(self) -> None:
        """End the process, which thaws what is frozen, and let go of the filesystems."""
        if self._line is not None:
            self._line.close()
            self._line = None
        if self._process is not None:
            try:
                self._process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
                self._gone()
            self._process = None
        while self._descriptors:
            os.close(self._descriptors.pop())


def sync_mounts(paths: Sequence[str]) -> None:
    """Write out the filesystems that are mounted there, as far as they are still."""
    for path in paths:
        with contextlib.suppress(OSError, DeviceError):
            # Not held open: whoever mounted it may want to unmount it.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                _syncfs(descriptor)
            finally:
                os.close(descriptor)


def _syncfs(descriptor: int) -> None:
    if _libc.syncfs(descriptor) != 0:
        code = ctypes.get_errno()
        raise DeviceError(f"A filesystem could not be written out: {os.strerror(code)}.", hint="See dmesg.")
