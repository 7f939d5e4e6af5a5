"""Work that comes together is done together: a queue with a bound, fair between clients, and threads that empty it.

Clients take turns, so that one with many requests does not keep the others waiting. Where a batch fails, each half of
it is tried alone, so that in the end only the request at fault fails.
"""

import asyncio
import itertools
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from vision_reasoner.models.engine import Watch

logger = logging.getLogger(__name__)

GATHER_SECONDS = 0.01  # that the first request of a batch waits for others
STEP_SECONDS = 1.0  # after which a wait for work looks again whether to end

Request = TypeVar("Request")
Result = TypeVar("Result")


class FullError(Exception):
    """There is no room for another request.

    Attributes:
        seconds: after which there may be, by the time that recent ones took.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__("the server is busy; try again later")
        self.seconds = seconds


class Job(Generic[Request, Result]):
    """A request on its way. Made and awaited in an event loop; worked on in a thread.

    Attributes:
        request: what is wanted.
        client: whose it is.
        cost: how much of the queue's `max_cost` it takes.
        text: what the model has written so far.
        canceled: whether nobody waits for it any more.
    """

    def __init__(self, request: Request, client: str, cost: int) -> None:
        self.request, self.client, self.cost = request, client, cost
        self.text = ""
        self.canceled = False
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._outcome: list[Result | Exception] = []

    @property
    def done(self) -> bool:
        """Whether the result is there."""
        return bool(self._outcome)

    async def wait(self, seconds: float | None = None) -> None:
        """Come back when there is more text or the result, or after so many seconds."""
        try:
            await asyncio.wait_for(self._changed.wait(), seconds)
        except TimeoutError:
            return
        self._changed.clear()

    async def result(self) -> Result:
        """What came of it.

        Raises:
            Exception: what the work raised.
        """
        while not self.done:
            await self.wait()
        outcome = self._outcome[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def write(self, text: str) -> None:
        """Tell the waiting side what is written so far; from any thread."""
        self.text = text
        self._wake()

    def finish(self, outcome: Result | Exception) -> None:
        """Tell the waiting side the end; from any thread."""
        self._outcome.append(outcome)
        self._wake()

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._changed.set)
        except RuntimeError:  # the loop has been closed: nobody waits
            self.canceled = True


Work = Callable[[Sequence[Request], Watch], Sequence[Result]]
"""Does several requests; the watch tells texts by their numbers and says when to stop."""


class Batcher(Generic[Request, Result]):
    """A queue and the threads that empty it."""

    def __init__(
        self,
        name: str,
        work: Work[Request, Result],
        *,
        size: int,
        threads: int = 1,
        max_waiting: int = 64,
        max_cost: int | None = None,
        on_batch: Callable[[int], object] | None = None,
    ) -> None:
        """Prepare it; nothing is worked on before `start`.

        Args:
            name: of the threads.
            work: does a batch.
            size: requests of a batch at most.
            threads: batches under way at once.
            max_waiting: requests that wait at most.
            max_cost: of all requests that wait or are worked on, together.
            on_batch: told the size of every batch.
        """
        self.name, self.size, self.max_waiting, self.max_cost = name, size, max_waiting, max_cost
        self._work, self._on_batch = work, on_batch
        self._queues: OrderedDict[str, deque[Job[Request, Result]]] = OrderedDict()  # by client, whose turn it is first
        self._running: dict[int, tuple[list[Job[Request, Result]], threading.Event]] = {}
        self._numbers = itertools.count()
        self._cost = 0
        self._seconds = 1.0  # that a request took lately
        self._closed = False
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._serve, name=f"{name}-{i}", daemon=True) for i in range(threads)]

    def start(self) -> None:
        """Begin to work."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Finish what is under way, fail what waits, and end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()
        with self._changed:
            left = [job for queue in self._queues.values() for job in queue]
            self._queues.clear()
        for job in left:
            job.finish(FullError(self._seconds))

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        with self._changed:
            return self._n_waiting()

    def _n_waiting(self) -> int:
        return sum(map(len, self._queues.values()))

    def submit(self, request: Request, client: str, *, cost: int = 0) -> Job[Request, Result]:
        """Put a request into the queue; in an event loop.

        Raises:
            FullError: there is no room, or the server is about to end.
        """
        job: Job[Request, Result] = Job(request, client, cost)
        with self._changed:
            n = self._n_waiting()
            dear = self.max_cost is not None and self._cost > 0 and self._cost + cost > self.max_cost
            if self._closed or n >= self.max_waiting or dear:
                raise FullError(max(1.0, self._seconds * (n + 1) / len(self._threads)))
            self._queues.setdefault(client, deque()).append(job)
            self._cost += cost
            self._changed.notify()
        return job

    def cancel(self, job: Job[Request, Result]) -> None:
        """Nobody waits for it any more: take it out, or stop its batch where nobody waits for the others either."""
        with self._changed:
            job.canceled = True
            queue = self._queues.get(job.client)
            if queue is not None and job in queue:
                queue.remove(job)
                self._cost -= job.cost
                if not queue:
                    del self._queues[job.client]
            for batch, stop in self._running.values():
                if all(other.canceled or other.done for other in batch):
                    stop.set()

    def _serve(self) -> None:
        while (batch := self._take()) is not None:
            if not batch:
                continue
            stop, number, start = threading.Event(), next(self._numbers), time.monotonic()
            with self._changed:
                self._running[number] = (batch, stop)
            try:
                if self._on_batch is not None:
                    self._on_batch(len(batch))
                self._do(batch, stop)
            finally:
                seconds = (time.monotonic() - start) / len(batch)
                with self._changed:
                    del self._running[number]
                    self._cost -= sum(job.cost for job in batch)
                    self._seconds += 0.3 * (seconds - self._seconds)

    def _take(self) -> list[Job[Request, Result]] | None:
        """The next batch, perhaps an empty one; None at the end."""
        with self._changed:
            if not self._queues:
                if self._closed:
                    return None
                self._changed.wait(STEP_SECONDS)
            if self._queues and self.size > 1 and not self._closed:
                self._changed.wait_for(lambda: self._closed or self._n_waiting() >= self.size, GATHER_SECONDS)
            batch: list[Job[Request, Result]] = []
            while self._queues and len(batch) < self.size and not self._closed:
                client, queue = self._queues.popitem(last=False)
                batch.append(queue.popleft())
                if queue:
                    self._queues[client] = queue  # at the end: the others' turn comes first
            return None if self._closed and not batch else batch

    def _do(self, batch: Sequence[Job[Request, Result]], stop: threading.Event) -> None:
        """Work on a batch together, or where that fails on each half of it, without those that nobody waits for."""
        watch = Watch(on_text=lambda i, text: batch[i].write(text), stop=stop)
        try:
            results = self._work([job.request for job in batch], watch)
        except Exception as error:  # noqa: BLE001 - each request is told its own
            if len(batch) == 1:
                batch[0].finish(error)
                return
            logger.debug("%s: a batch of %d failed, tried in halves: %s", self.name, len(batch), error)
            middle = len(batch) // 2
            for half in (batch[:middle], batch[middle:]):
                if waited_for := [job for job in half if not job.canceled]:
                    self._do(waited_for, stop)
            return
        for job, result in zip(batch, results, strict=True):
            job.finish(result)
