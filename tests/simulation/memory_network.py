"""Connections without sockets: bytes arrive after a while, late, in part or never, as the seed says.

A connection's luck is drawn from its own dice, so what one of them meets does not depend on the others. Bytes
of one direction arrive in order. Who does not read makes the other side's transport pause, as TCP does.
"""

import asyncio
import random
from collections import deque

from tests.simulation.virtual_loop import PROCESS

BUFFER_BYTES_HIGH = 16 * 1024
DELAY_SECONDS = (0.0005, 0.004)
LATE_SECONDS = (1.0, 45.0)


class Weather:
    """How likely what is, per write; `sometimes` hears of what happened."""

    def __init__(self, sometimes, *, lost_request=0.0, lost_reply=0.0, cut_reply=0.0, late=0.0):
        self.sometimes = sometimes
        self.lost_request = lost_request
        self.lost_reply = lost_reply
        self.cut_reply = cut_reply
        self.late = late
        self.is_fair = False  # nothing goes wrong any more


class Network:
    """Who listens where, and the weather between them."""

    def __init__(self, loop, seed, weather):
        self.loop = loop
        self.listeners = {}
        self.weather = weather
        self._seed = seed
        self._count = 0

    def listen(self, protocol_factory, name):
        process = PROCESS.get()
        self.listeners[name] = (protocol_factory, process)
        process.listening.append(name)
        return Listening(self, name, process)

    def close(self, name, process):
        """Listen no more, unless somebody else has taken the name meanwhile."""
        if self.listeners.get(name, (None, None))[1] is process:
            del self.listeners[name]

    async def connect(self, protocol_factory, name):
        self._count += 1
        dice = random.Random(f"{self._seed} {name} {self._count}")
        await asyncio.sleep(dice.uniform(*DELAY_SECONDS))
        if name not in self.listeners:
            raise ConnectionRefusedError(111, f"nobody listens at {name}")
        make_server, server_process = self.listeners[name]
        client_process = PROCESS.get()
        client = MemoryTransport(self, client_process, dice, is_server=False)
        server = MemoryTransport(self, server_process, dice, is_server=True)
        client.peer, server.peer = server, client
        protocol = protocol_factory()
        client.open(protocol)
        server.context.run(lambda: server.open(make_server()))
        return client, protocol

    async def start_connection(self, addr_infos, **_):
        """Stand in for aiohttp's way to a connected socket: the address is all there is."""
        host, port = addr_infos[0][4][:2]
        return f"{host}:{port}"


class Listening:
    """What `create_server` returns."""

    def __init__(self, network, name, process):
        self._network = network
        self._name = name
        self._process = process
        self.sockets = ()

    def close(self):
        self._network.close(self._name, self._process)

    async def wait_closed(self):
        """It is closed at once."""


class MemoryTransport(asyncio.Transport):
    """One end of a connection."""

    def __init__(self, network, process, dice, *, is_server):
        super().__init__()
        self.network = network
        self.loop = network.loop
        self.process = process
        self.context = process.context()
        self.peer = None
        self.is_server = is_server
        self.protocol = None
        self._dice = dice
        self._inbound = deque()  # (due_s, bytes), None at the end
        self._last_due_s = 0.0
        self._in_flight = 0  # bytes that this end has written and the other has not taken
        self._is_closing = self._is_over = False
        self._is_reading = True
        self._has_paused_writer = False
        self._has_ended = False
        process.transports.append(self)

    def open(self, protocol):
        self.protocol = protocol
        protocol.connection_made(self)

    # -- what a protocol uses ---------------------------------------------------------------------

    def write(self, data):
        if self._is_closing or not data:
            return
        data, weather, extra_s = bytes(data), self.network.weather, 0.0
        if not weather.is_fair:
            roll = self._dice.random()
            lost = weather.lost_reply if self.is_server else weather.lost_request
            if roll < lost:
                weather.sometimes("reply lost" if self.is_server else "request lost")
                self.break_off(both=True)
                return
            if self.is_server and roll < lost + weather.cut_reply and len(data) > 1:
                weather.sometimes("reply cut")
                self._send(data[: self._dice.randrange(1, len(data))], 0.0)
                self.peer._push(None, self._last_due_s)
                self.break_off()
                return
            if roll > 1 - weather.late:
                weather.sometimes("late")
                extra_s = self._dice.uniform(*LATE_SECONDS)
        self._send(data, extra_s)

    def writelines(self, parts):
        self.write(b"".join(parts))

    def _send(self, data, extra_s):
        due_s = self.loop.time() + self._dice.uniform(*DELAY_SECONDS) + extra_s
        self._last_due_s = due_s = max(due_s, self._last_due_s)
        self._in_flight += len(data)
        self.peer._push(data, due_s)
        if self._in_flight > BUFFER_BYTES_HIGH and not self._has_paused_writer:
            self._has_paused_writer = True
            if self.is_server:
                self.network.weather.sometimes("slow reader held back")
            self.protocol.pause_writing()

    def close(self):
        if self._is_closing or self.loop.is_closed():  # a response that is collected after its world ended
            return
        self._is_closing = True
        self.peer._push(None, max(self._last_due_s, self.loop.time() + DELAY_SECONDS[0]))
        self.context.run(self.loop.call_soon, self._end, None)

    def abort(self):
        self.break_off(both=True)

    def is_closing(self):
        return self._is_closing

    def can_write_eof(self):
        return False

    def get_extra_info(self, name, default=None):
        return {"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)}.get(name, default)

    def get_protocol(self):
        return self.protocol

    def set_protocol(self, protocol):
        self.protocol = protocol

    def is_reading(self):
        return self._is_reading

    def pause_reading(self):
        self._is_reading = False

    def resume_reading(self):
        self._is_reading = True
        self.context.run(self.loop.call_soon, self._deliver)

    def get_write_buffer_size(self):
        return self._in_flight

    def get_write_buffer_limits(self):
        return (BUFFER_BYTES_HIGH // 4, BUFFER_BYTES_HIGH)

    def set_write_buffer_limits(self, high=None, low=None):
        """They stay as they are."""

    # -- what the network does --------------------------------------------------------------------

    def break_off(self, *, both=False):
        """The connection is gone: the other end hears it, this one only if it lives (`both`)."""
        self._is_closing = True
        peer = self.peer
        reset = ConnectionResetError(104, "reset by the network")
        peer.context.run(self.loop.call_later, DELAY_SECONDS[1], peer._end, reset)
        if both:
            self.context.run(self.loop.call_soon, self._end, reset)

    def _push(self, data, due_s):
        if not self._is_over:
            self._inbound.append((due_s, data))
            self.context.run(self.loop.call_at, due_s, self._deliver)

    def _deliver(self):
        """Hand over what has arrived by now; after the other side's last word the connection ends."""
        while self._inbound and self._is_reading and not self._is_over:
            due_s, data = self._inbound[0]
            if due_s > self.loop.time():
                return
            self._inbound.popleft()
            if data is None:
                if not self.protocol.eof_received():
                    self._is_closing = True
                    self._end(None)
                return
            self.peer._taken(len(data))
            self.protocol.data_received(data)

    def _taken(self, count):
        self._in_flight -= count
        if self._has_paused_writer and self._in_flight <= BUFFER_BYTES_HIGH // 4:
            self._has_paused_writer = False
            self.context.run(self.loop.call_soon, self._resume_writer)

    def _resume_writer(self):
        if not self._is_over:
            self.protocol.resume_writing()

    def _end(self, error):
        if self._is_over:
            return
        self._is_over = self._is_closing = True
        if self in self.process.transports:
            self.process.transports.remove(self)
        # In the next turn, as every loop does: whoever was just woken by data runs before.
        self.context.run(self.loop.call_soon, self.protocol.connection_lost, error)
        if not self.peer._is_over:
            self.peer._push(None, self.loop.time() + DELAY_SECONDS[1])
