"""Micro-batching: requests that wait at the same time go through the model together.

A batch is whatever waits when the model is free, so an idle service adds no delay. The queue
has an end: a request that finds it full is refused at once and told when to come back, and one
that waited past its deadline is refused in place of being computed for nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class BatchSettings:
    """How many requests may wait, how long, and how many go together.

    Attributes:
        max_batch_size: requests in one call of the model.
        max_queue_length: requests that may wait; the next one is refused.
        deadline_seconds: how long a request may wait before it is refused.
        in_loop: compute in the event loop in place of a thread. The hand-over to a thread
            takes longer than a small model does. All that waits is computed before the next
            request is read, so a large model would keep the service from refusing.
    """

    max_batch_size: int = 16
    max_queue_length: int = 64
    deadline_seconds: float = 1.0
    in_loop: bool = False

    def __post_init__(self) -> None:
        if min(self.max_batch_size, self.max_queue_length) < 1 or not self.deadline_seconds > 0:
            raise ValueError(f"all three bounds must be positive: {self}")


class RefusedError(Exception):
    """A request that the service has no time for; nothing is wrong with the request."""

    def __init__(self, reason: str, *, status: int, retry_after_seconds: int) -> None:
        super().__init__(reason)
        self.status = status
        self.retry_after_seconds = retry_after_seconds


@dataclass
class _Waiting:
    item: Any
    since: float
    answer: asyncio.Future[Any]


class MicroBatcher:
    """A bounded queue in front of a function that computes several answers at once.

    Args:
        run: function from a list of items to as many answers. Unless the settings say
            otherwise it has a thread of its own, so the service accepts and refuses meanwhile.
        settings: the bounds.
        on_batch: told the size of each batch.
    """

    def __init__(
        self,
        run: Callable[[list[Any]], Sequence[Any]],
        settings: BatchSettings,
        *,
        on_batch: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.settings = settings
        self._run = run
        self._on_batch = on_batch
        self._queue: deque[_Waiting] = deque()
        self._has_work = asyncio.Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")
        self._seconds_per_item = 0.0
        self._worker: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts the worker in the running event loop."""
        self._worker = asyncio.get_running_loop().create_task(self._work())

    async def close(self) -> None:
        """Stops the worker; whoever still waits is refused, so nobody waits for ever."""
        if self._worker is not None:
            self._worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._worker
        while self._queue:
            self._refuse(self._queue.popleft(), "the service is stopping")
        self._thread.shutdown()

    @property
    def queue_length(self) -> int:
        """Requests that wait."""
        return len(self._queue)

    async def submit(self, item: Any) -> Any:
        """Waits for the answer to an item.

        Raises:
            RefusedError: with status 429 if the queue is full, with 503 if the deadline passed
                or the service is stopping.
        """
        if self._worker is None or self._worker.done():
            raise RefusedError("the service is stopping", status=503, retry_after_seconds=1)
        if len(self._queue) >= self.settings.max_queue_length:
            raise RefusedError(
                "too many requests wait", status=429, retry_after_seconds=self._estimate_wait()
            )
        loop = asyncio.get_running_loop()
        waiting = _Waiting(item, loop.time(), loop.create_future())
        self._queue.append(waiting)
        self._has_work.set()
        return await waiting.answer

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._has_work.wait()
            batch = self._take_batch(loop.time())
            if not self._queue:
                self._has_work.clear()
            if batch:
                await self._answer(batch, loop)

    def _take_batch(self, now: float) -> list[_Waiting]:
        """Takes the longest waiting requests that somebody still waits for."""
        batch: list[_Waiting] = []
        while self._queue and len(batch) < self.settings.max_batch_size:
            waiting = self._queue.popleft()
            if waiting.answer.done():  # whoever asked has gone
                continue
            if now - waiting.since > self.settings.deadline_seconds:
                self._refuse(waiting, "the deadline passed while the request waited")
            else:
                batch.append(waiting)
        return batch

    async def _answer(self, batch: list[_Waiting], loop: asyncio.AbstractEventLoop) -> None:
        started = loop.time()
        items = [waiting.item for waiting in batch]
        try:
            if self.settings.in_loop:
                answers = self._run(items)
            else:
                answers = await loop.run_in_executor(self._thread, self._run, items)
            pairs = list(zip(batch, answers, strict=True))
        except asyncio.CancelledError:
            for waiting in batch:
                self._refuse(waiting, "the service is stopping")
            raise
        except Exception as error:  # whoever asked must hear of it
            for waiting in batch:
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
            return
        self._seconds_per_item = (loop.time() - started) / len(batch)
        self._on_batch(len(batch))
        for waiting, answer in pairs:
            if not waiting.answer.done():
                waiting.answer.set_result(answer)

    def _refuse(self, waiting: _Waiting, reason: str) -> None:
        if not waiting.answer.done():
            refused = RefusedError(reason, status=503, retry_after_seconds=self._estimate_wait())
            waiting.answer.set_exception(refused)

    def _estimate_wait(self) -> int:
        """Whole seconds, as the header wants them, until those who wait are served."""
        return max(1, math.ceil(len(self._queue) * self._seconds_per_item))
