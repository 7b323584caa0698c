"""A stream for programs that block: its event loop lives in a thread as long as somebody reads it."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator
from typing import TypeVar

T = TypeVar("T")

CLOSE_SECONDS_MAX = 5.0


def followed(source: AsyncGenerator[T, None]) -> Iterator[T]:
    """Yield what an asynchronous generator yields; its socket is closed when the reader leaves."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True, name="fallow stream")
    thread.start()
    try:
        while True:
            step = asyncio.run_coroutine_threadsafe(_step(source), loop)
            try:
                yield step.result()
            except StopAsyncIteration:
                return
            finally:
                step.cancel()  # after Ctrl-C nothing may go on waiting behind it
    finally:
        asyncio.run_coroutine_threadsafe(_end(source), loop).result(CLOSE_SECONDS_MAX)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(CLOSE_SECONDS_MAX)
        loop.close()


async def _step(source: AsyncGenerator[T, None]) -> T:
    return await anext(source)


async def _end(source: AsyncGenerator[T, None]) -> None:
    """Let what was interrupted unwind first, then the generator close its socket."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    await source.aclose()
