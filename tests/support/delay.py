"""``python -m tests.support.delay FD FD SECONDS``: packets go from TUN device to TUN device, so much later.

Ends when its standard input does, with the process that started it. See ``tests.support.netns``.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections import deque

#: A virtio_net_hdr and the largest IP packet.
_PACKET = 10 + 65536
#: Packets taken from a device before those that are due are sent.
_BATCH = 32


def pump(one: int, other: int, delay: float, lifeline: int) -> None:
    """Until ``lifeline`` ends. What a device cannot take is lost, as on a real way."""
    ways: dict[int, tuple[int, deque[tuple[float, bytes]]]] = {one: (other, deque()), other: (one, deque())}
    poll = select.epoll()
    for descriptor in (*ways, lifeline):
        poll.register(descriptor, select.EPOLLIN)
    while True:
        due = [queue[0][0] for _, queue in ways.values() if queue]
        wait = max(0.0, min(due) - time.monotonic()) if due else -1
        for descriptor, _ in poll.poll(wait):
            if descriptor == lifeline:
                return
            _, queue = ways[descriptor]
            for _ in range(_BATCH):
                try:
                    packet = os.read(descriptor, _PACKET)
                except BlockingIOError:
                    break
                queue.append((time.monotonic() + delay, packet))
        now = time.monotonic()
        for out, queue in ways.values():
            while queue and queue[0][0] <= now:
                try:
                    os.write(out, queue.popleft()[1])
                except OSError:  # not up yet, or going down
                    continue


if __name__ == "__main__":
    pump(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), 0)
