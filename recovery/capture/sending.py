"""One or several rounds of reading chunks, naming them and storing what the repository lacks, by a crew of threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from recovery.capture.crew import Channel, Crew, Stopped
from recovery.capture.figures import STEP, Figures
from recovery.capture.hashing import Batch, ChunkReader, Worker
from recovery.capture.packer import Packer
from recovery.capture.reader import SourceReader
from recovery.capture.request import CaptureRequest
from recovery.capture.sources import Source
from recovery.events import Listener, StepFinished, StepStarted
from recovery.repository.attention import RetryTeller
from recovery.repository.protocols import ChunkIndex
from recovery.repository.repository import Repository
from recovery.units import format_size

#: Puts batches into the channel and closes it; settles holes itself.
Feed = Callable[[Channel[Batch], Figures], None]


class Sender:
    """Sends chunks of disks. When ``send`` returns, all maps know where their chunks lie."""

    def __init__(
        self,
        repository: Repository,
        index: ChunkIndex,
        request: CaptureRequest,
        listener: Listener,
        cancel: threading.Event,
        retries: RetryTeller,
    ) -> None:
        self._repository, self._index, self._request = repository, index, request
        self._listener, self._cancel, self._retries = listener, cancel, retries
        self._begun = 0.0
        self._sent = self._skipped = 0

    def begin(self, title: str, number: int, of: int) -> None:
        """Tell that the step begins."""
        self._begun, self._sent, self._skipped = time.monotonic(), 0, 0
        self._listener(StepStarted(step=STEP, title=title, number=number, of=of))

    def end(self) -> None:
        """Tell what was sent since ``begin``."""
        summary = f"{format_size(self._sent)} sent, {format_size(self._skipped)} needed no sending"
        self._listener(StepFinished(step=STEP, summary=summary, seconds=time.monotonic() - self._begun))

    def send(self, total: int, feed: Feed, open_reader: Callable[[Source], ChunkReader] = SourceReader) -> None:
        """Work through what ``feed`` gives, ``total`` logical bytes. Raises what reading and storing raise, and
        CancelledError."""
        figures = Figures(total, self._listener, self._retries)
        crew = Crew(self._cancel)
        request = self._request
        packer = Packer(self._repository, self._index, crew, figures, request.uploaders)
        batches: Channel[Batch] = Channel(crew, request.workers)
        told = threading.Event()
        teller = threading.Thread(target=figures.tell_until, args=(told,), name="capture-figures", daemon=True)
        teller.start()
        try:
            workers = [
                crew.start(
                    f"capture-worker-{number}",
                    lambda: Worker(
                        self._repository, self._index, packer, crew, figures, request.level, open_reader
                    ).run(batches),
                )
                for number in range(request.workers)
            ]
            for number in range(request.uploaders):
                crew.start(f"capture-upload-{number}", packer.upload)
            try:
                feed(batches, figures)
                for worker in workers:
                    crew.join(worker)
                packer.flush()
            except Stopped:
                pass
            except BaseException as error:
                crew.fail(error)
            crew.finish()
        finally:
            told.set()
            teller.join()
        figures.tell()
        self._sent += figures.transferred
        self._skipped += figures.skipped
