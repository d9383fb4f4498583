"""Two network namespaces joined by a link of a chosen rate and latency: what a LAN or a far store does to a program.

No namespace has a name, and nothing outside of them is touched: they end with the last process in them. Needs root.

The rate is made by ``tc tbf``. Latency is made by ``tests.support.delay``, a process that holds back each packet
between two TUN devices (not every kernel has ``netem``): TCP sees a long way, with slow start, windows and congestion
control as on one. It costs CPU: compare with a link of ``delay=0.0``, which has the same process, not with loopback.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from recovery.commands import run

NEAR, FAR = "10.99.0.1", "10.99.0.2"
_CHECKOUT = Path(__file__).parents[2]
#: linux/sched.h
_CLONE_NEWNET = 0x40000000
#: linux/if_tun.h: packets with a virtio_net_hdr, so that the kernel may hand over 64 KiB at a time (TSO)
_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
_TUN_F_CSUM, _TUN_F_TSO4 = 0x01, 0x02

_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """A network namespace without a name, with loopback up."""

    def __init__(self) -> None:
        """Raises OSError for other users than root."""
        made: list[int | OSError] = []

        def make() -> None:
            try:
                _check(_libc.unshare(_CLONE_NEWNET))
                made.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
            except OSError as error:
                made.append(error)

        thread = threading.Thread(target=make)  # only a thread leaves its namespace, not the process
        thread.start()
        thread.join()
        if isinstance(made[0], OSError):
            raise made[0]
        self.descriptor = made[0]
        self.ip("link", "set", "lo", "up")

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """For the block this thread is in the namespace: so are sockets, threads and processes that it makes."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check(_libc.setns(self.descriptor, _CLONE_NEWNET))
            try:
                yield
            finally:
                _check(_libc.setns(before, _CLONE_NEWNET))
        finally:
            os.close(before)

    def ip(self, *words: str) -> None:
        """``ip WORDS`` inside. Raises CommandError."""
        with self.entered():
            run(["ip", *words])

    def tc(self, *words: str) -> None:
        """``tc WORDS`` inside. Raises CommandError."""
        with self.entered():
            run(["tc", *words])

    @property
    def path(self) -> str:
        """For ``ip``, while this process lives."""
        return f"/proc/{os.getpid()}/fd/{self.descriptor}"

    def close(self) -> None:
        """Let go of it."""
        os.close(self.descriptor)


@dataclass(frozen=True)
class Link:
    """``near`` is the client's side with the address NEAR, ``far`` the server's with the address FAR."""

    near: Namespace
    far: Namespace


@contextlib.contextmanager
def link(*, rate: int = 0, delay: float | None = None) -> Iterator[Link]:
    """Two namespaces and a way between them.

    ``rate``: bits a second in each direction, 0: as fast as it goes. ``delay``: seconds added to the round trip; None:
    a plain veth pair without the process that delays.
    """
    with contextlib.ExitStack() as stack:
        near, far = Namespace(), Namespace()
        stack.callback(near.close)
        stack.callback(far.close)
        if delay is None:
            near.ip("link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", far.path)
        else:
            stack.enter_context(_delaying(near, far, delay))
        for side, address in ((near, NEAR), (far, FAR)):
            side.ip("address", "add", f"{address}/24", "dev", "wire")
            side.ip("link", "set", "wire", "up")
            if rate:
                # A burst is what the kernel hands over at once, 64 KiB; 50 ms is a usual switch's buffer at 1 Gbit/s.
                side.tc("qdisc", "add", "dev", "wire", "root", "tbf", "rate", f"{rate}bit", "burst", "128kb",
                        "latency", "50ms")  # fmt: skip
        yield Link(near, far)


@contextlib.contextmanager
def _delaying(near: Namespace, far: Namespace, delay: float) -> Iterator[None]:
    devices = [_tun(side) for side in (near, far)]
    try:
        argv = [sys.executable, "-m", "tests.support.delay", *map(str, devices), str(delay / 2)]
        process = subprocess.Popen(argv, cwd=_CHECKOUT, pass_fds=devices, stdin=subprocess.PIPE)
    finally:
        for device in devices:
            os.close(device)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _tun(side: Namespace) -> int:
    with side.entered():
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", b"wire", _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR))
        fcntl.ioctl(device, _TUNSETOFFLOAD, _TUN_F_CSUM | _TUN_F_TSO4)
    # A far way holds much on it: what does not fit into the device's queue would be lost.
    side.ip("link", "set", "wire", "txqueuelen", "10000")
    return device


def _check(result: int) -> None:
    if result:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
