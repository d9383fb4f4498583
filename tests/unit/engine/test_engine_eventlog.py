from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from recovery.engine.eventlog import EventLog
from recovery.events import Event, Message, Progress, RunFinished

some_events = st.lists(
    st.one_of(
        st.builds(Message, text=st.text(max_size=3)),
        st.builds(
            Progress,
            step=st.sampled_from("ab"),
            disk=st.sampled_from(["", "d"]),
            done=st.integers(0, 9),
            total=st.just(9),
        ),
    ),
    max_size=30,
)


@given(some_events, st.integers(0, 35))
def test_a_replay_has_every_message_and_the_newest_progress(events: list[Event], since: int) -> None:
    log = EventLog()
    for event in events:
        log.add(event)
    replay = log.read(since, timeout=0)
    numbers = [number for number, _ in replay]
    assert numbers == sorted(set(numbers))
    assert all(number >= since and events[number] == event for number, event in replay)
    assert [e for _, e in replay if isinstance(e, Message)] == [e for e in events[since:] if isinstance(e, Message)]
    for step, disk in {(e.step, e.disk) for e in events[since:] if isinstance(e, Progress)}:
        kept = [e for _, e in replay if isinstance(e, Progress) and (e.step, e.disk) == (step, disk)]
        assert kept == [[e for e in events if isinstance(e, Progress) and (e.step, e.disk) == (step, disk)][-1]]
    assert log.count == len(events)


def test_progress_does_not_pile_up() -> None:
    log = EventLog()
    for done in range(10_000):
        log.add(Progress(step="stream:disk1", disk="disk1", done=done, total=10_000))
    assert len(log.read(0, timeout=0)) == 1
    assert log.count == 10_000


def test_followers_hear_everything_and_end() -> None:
    log = EventLog()
    heard: list[list[Event]] = [[], [], []]
    threads = [threading.Thread(target=lambda box=box, n=n: box.extend(log.follow(n))) for n, box in enumerate(heard)]
    log.add(Message(text="0"))
    for thread in threads:
        thread.start()
    for number in range(1, 50):
        log.add(Message(text=str(number)))
    log.add(RunFinished())
    log.add(Message(text="too late"))
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    for start, box in enumerate(heard):
        assert [e.text for e in box if isinstance(e, Message)] == [str(n) for n in range(start, 50)]
        assert isinstance(box[-1], RunFinished)
    assert list(log.follow(51)) == []
