"""One event loop in virtual time, and the processes that live on it.

Time jumps to the next timer when nothing else is to be done; every turn of the loop takes a microsecond. A
`Process` is whatever runs in its context: it can be killed between any two awaits (nothing of it runs again,
no `finally` either), stopped for a while, and told to die after so many steps. No socket can be opened here.
"""

import asyncio
import heapq
import logging
import sys
import traceback
from contextlib import suppress
from contextvars import ContextVar, copy_context

TURN_SECONDS = 1e-6
BEGIN_SECONDS = 1_000.0
CLOSES_MAX = 20

PROCESS = ContextVar("process", default=None)


class Process:
    """All that runs in one context: callbacks, timers, tasks and their children."""

    def __init__(self, loop, name):
        self.loop = loop
        self.name = name
        self.is_alive = True
        self.steps_left = None  # it dies at the step after the last one
        self.steps = 0
        self.transports = []
        self.listening = []
        self.tasks = []
        self._stopped = False
        self._waiting = []
        self._context = copy_context()
        self._context.run(PROCESS.set, self)

    def context(self):
        return self._context.copy()

    def start(self, work):
        """Run a coroutine in this process."""
        return self.context().run(self.loop.create_task, work)

    def begin(self):
        """Say whether the next step may run; it is the one at which the process may have to die."""
        if not self.is_alive:
            return False
        if self.steps_left is not None:
            self.steps_left -= 1
            if self.steps_left < 0:
                self.kill()
                return False
        self.steps += 1
        return True

    def kill(self):
        """End at once, as by SIGKILL: its connections break, nothing of it runs again."""
        if not self.is_alive:
            return
        self.is_alive = False
        for name in self.listening:
            self.loop.network.close(name, self)
        for transport in list(self.transports):
            transport.break_off()
        self.transports.clear()
        # Kept to the end: a task that is collected would run its `finally` after its process has died.
        self.loop.graveyard.append((self.tasks, self._waiting))

    def stall(self, seconds):
        """Stop for a while, as by SIGSTOP: what was due meanwhile runs afterwards, in order."""
        self._stopped = True
        self.loop.network_context.run(self.loop.call_later, seconds, self._go_on)

    def holds_back(self, handle):
        if self._stopped:
            self._waiting.append(handle)
        return self._stopped

    def _go_on(self):
        self._stopped = False
        waiting, self._waiting = self._waiting, []
        if self.is_alive:
            self.loop._ready.extend(waiting)


class _Handle(asyncio.Handle):
    __slots__ = ()

    def _run(self):
        process = self._context.get(PROCESS)
        if process is None or (process.is_alive and not process.holds_back(self) and process.begin()):
            super()._run()


class _Timer(asyncio.TimerHandle):
    __slots__ = ()

    def _run(self):
        process = self._context.get(PROCESS)
        if process is None or (process.is_alive and not process.holds_back(self) and process.begin()):
            super()._run()


class _Jump:
    """The loop's selector: there is nothing to wait for but time."""

    def __init__(self, loop):
        self._loop = loop

    def select(self, timeout):
        if timeout is None:
            raise RuntimeError("nothing is left to happen: everybody waits for somebody else")
        self._loop.now_s += max(timeout, TURN_SECONDS)
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """Give it a network (memory_network.py) before anything connects."""

    def __init__(self):
        super().__init__()
        self.now_s = BEGIN_SECONDS
        self._selector = _Jump(self)
        self._clock_resolution = TURN_SECONDS / 1_000
        self.graveyard = []
        self.network = None
        self.network_context = copy_context()
        self.failures = []
        self.set_task_factory(_make_task)
        self.set_exception_handler(self._fail)

    def time(self):
        return self.now_s

    def _process_events(self, events):
        assert not events

    def _write_to_self(self):
        """There is nobody to wake."""

    def _call_soon(self, callback, args, context):
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(self, when, callback, *args, context=None):
        timer = _Timer(when, callback, args, self, context)
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True
        return timer

    def run_in_executor(self, executor, work, *args):
        future = self.create_future()
        try:
            result = work(*args)
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(result)
        return future

    async def create_server(self, protocol_factory, host=None, port=None, **_):
        return self.network.listen(protocol_factory, f"{host}:{port}")

    async def create_connection(self, protocol_factory, host=None, port=None, *, sock=None, **_):
        assert sock is not None, "the network has chosen the address (memory_network.py)"
        return await self.network.connect(protocol_factory, sock)

    async def shutdown_default_executor(self, timeout=None):
        """There is none."""

    def _fail(self, loop, context):
        """Something ended with an exception that nobody has heard of."""
        process = PROCESS.get()
        if process is None or process.is_alive:
            error = context.get("exception")
            where = "".join(traceback.format_exception(error)[-6:]) if error else ""
            self.failures.append(f"{context['message']}: {where}")

    def bury(self):
        """Let go of the dead and of the living: their `finally` blocks run now, and nobody hears them."""
        hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
        level = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        try:
            self._ready.clear()
            self._scheduled.clear()
            left = [task for tasks, _ in self.graveyard for task in tasks if not task.done()]
            left += asyncio.all_tasks(self)
            self.graveyard.clear()
            for task in left:
                task._log_destroy_pending = False
                _close(task.get_coro())
            for task in asyncio.all_tasks(self) - set(left):  # begun by such a block
                task._log_destroy_pending = False
                task.get_coro().close()
        finally:
            sys.unraisablehook = hook
            logging.disable(level)


def _close(work):
    """End a coroutine, which may await in its `finally` blocks: it is not heard of again in another test."""
    for _ in range(CLOSES_MAX):
        with suppress(Exception):  # whatever such a block meets, or that it went on
            work.close()
        if work.cr_frame is None:
            return


def _make_task(loop, work, **named):
    task = asyncio.Task(work, loop=loop, **named)
    process = PROCESS.get()
    if process is not None:
        process.tasks.append(task)
        if len(process.tasks) > 2_000:
            process.tasks = [task for task in process.tasks if not task.done()]
    return task
