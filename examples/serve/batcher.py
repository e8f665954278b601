"""Texts of concurrent requests, answered in batches."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

Item, Answer = Any, Any


class FullError(Exception):
    """As many texts are waiting as are allowed."""


class Batcher:
    """Collects items of many callers, and gives each caller its own answers.

    A batch is run when it is full, or when its first item has waited long enough. While it runs in a thread, the next
    one collects.

    Args:
        run: items to as many answers, in their order; called in one thread.
        largest: items in a batch, at most.
        wait: seconds that an item waits for others, at most, while nothing runs.
        waiting: items that may wait; more are refused.
    """

    def __init__(self, run: Callable[[Sequence[Item]], Sequence[Answer]], largest: int, wait: float, waiting: int):
        self._run, self._largest, self._wait = run, largest, wait
        self._queue: asyncio.Queue[tuple[Item, asyncio.Future[Answer]]] = asyncio.Queue(waiting)

    @contextlib.asynccontextmanager
    async def running(self) -> Any:
        """Within the block, items are answered."""
        worker = asyncio.create_task(self._work())
        try:
            yield self
        finally:
            worker.cancel()

    @property
    def is_full(self) -> bool:
        return self._queue.full()

    async def answer(self, items: Sequence[Item]) -> list[Answer]:
        """The answers to one caller's items, in their order.

        Raises:
            FullError: they do not fit behind the items that wait; none of them was taken.
        """
        if len(items) > self._queue.maxsize - self._queue.qsize():
            raise FullError
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in items]
        for item, future in zip(items, futures, strict=True):
            self._queue.put_nowait((item, future))
        try:
            return list(await asyncio.gather(*futures))
        finally:
            for future in futures:  # of a caller who has left, or whose other items failed
                future.cancel()

    async def _work(self) -> None:
        while True:
            batch = [pair for pair in await self._collect() if not pair[1].done()]
            if batch:
                await self._answer(batch)

    async def _collect(self) -> list[tuple[Item, asyncio.Future[Answer]]]:
        batch = [await self._queue.get()]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._wait):
                while len(batch) < self._largest:
                    batch.append(await self._queue.get())
        return batch

    async def _answer(self, batch: Sequence[tuple[Item, asyncio.Future[Answer]]]) -> None:
        items, futures = zip(*batch, strict=True)
        try:
            answers: Sequence[Any] = await asyncio.to_thread(self._run, items)
        except Exception as error:
            for future in futures:
                if not future.done():
                    future.set_exception(error)
            return
        for future, answer in zip(futures, answers, strict=True):
            if not future.done():
                future.set_result(answer)
