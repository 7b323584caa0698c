"""One attempt at one request, both ways, against a server that misbehaves on purpose."""

import asyncio
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from fallow.client import exchange as plain
from fallow.client import pooled
from fallow.client.errors import UnavailableError
from fallow.client.exchange import Answered, PlainExchange, completed
from fallow.client.pooled import PooledExchange
from fallow.client.transport import ATTEMPTS_MAX, Transport

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nRetry-After: 7\r\n\r\n{}"
Script = Callable[[socket.socket], None]


class Server:
    """Answers every request on loopback by a script, and counts connections."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self.requests: list[bytes] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._talk, args=(sock,), daemon=True).start()

    def _talk(self, sock: socket.socket) -> None:
        with sock:
            while asked := sock.recv(65_536):
                self.requests.append(asked)
                try:
                    self._script(sock)
                except OSError:
                    return


@pytest.fixture
def serve() -> Iterator[Callable[[Script], Server]]:
    servers: list[Server] = []

    def start(script: Script) -> Server:
        servers.append(Server(script))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def asked(way: str, url: str, count: int = 1, timeout_seconds: float = 5.0) -> Answered:
    """Ask `count` times, one after the other, and return the last answer."""
    if way == "plain":
        blocking = PlainExchange(url)
        for _ in range(count):
            answered = completed(blocking.send("GET", "/x", {"A": "b"}, None, timeout_seconds))
        completed(blocking.close())
        return answered

    async def awaited() -> Answered:
        pool = PooledExchange(url)
        try:
            for _ in range(count):
                answered = await pool.send("GET", "/x", {"A": "b"}, None, timeout_seconds)
            return answered
        finally:
            await pool.close()

    return asyncio.run(awaited())


both_ways = pytest.mark.parametrize("way", ["plain", "pooled"])


@both_ways
def test_an_answer_is_whole_and_its_connection_is_used_again(way, serve):
    server = serve(lambda sock: sock.sendall(OK))
    assert asked(way, server.url, count=3) == Answered(200, "7", b"{}")
    assert server.connections == 1
    assert len(server.requests) == 3
    assert b"GET /x HTTP/1.1\r\n" in server.requests[0]
    assert b"\r\nA: b\r\n" in server.requests[0]


@both_ways
def test_a_chunked_answer_is_put_together(way, serve):
    parts = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n[\r\n1\r\n]\r\n0\r\n\r\n"
    server = serve(lambda sock: sock.sendall(parts))
    assert asked(way, server.url, count=2).body == b"[]"
    assert server.connections == 1


@both_ways
def test_a_redirect_is_an_answer_and_nobody_follows_it(way, serve):
    away = b"HTTP/1.1 307 Away\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"
    server = serve(lambda sock: sock.sendall(away))
    assert asked(way, server.url).status == 307
    assert len(server.requests) == 1


@both_ways
@pytest.mark.parametrize(
    "begun", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n"]
)
def test_the_time_out_is_for_the_whole_answer_and_not_for_each_byte(way, begun, serve):
    def dribble(sock: socket.socket) -> None:
        sock.sendall(begun)
        for _ in range(80):
            time.sleep(0.05)
            sock.sendall(b"a")

    server = serve(dribble)
    began_s = time.monotonic()
    with pytest.raises(TimeoutError):
        asked(way, server.url, timeout_seconds=0.4)
    assert time.monotonic() - began_s < 2.0


@both_ways
def test_an_answer_that_ends_early_is_no_answer(way, serve):
    def cut(sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nabc")
        sock.shutdown(socket.SHUT_RDWR)

    server = serve(cut)
    with pytest.raises(ConnectionError):
        asked(way, server.url)


@both_ways
def test_noise_is_no_answer(way, serve):
    server = serve(lambda sock: sock.sendall(b"220 mail.example ESMTP\r\n\r\n"))
    with pytest.raises(ConnectionError):
        asked(way, server.url)


@both_ways
@pytest.mark.parametrize("said", [b"Content-Length: 101", b"Connection: close"])
def test_an_answer_has_a_largest_size(way, said, serve, monkeypatch):
    monkeypatch.setattr(plain, "ANSWER_BYTES_MAX", 100)
    monkeypatch.setattr(pooled, "ANSWER_BYTES_MAX", 100)

    def much(sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\n" + said + b"\r\n\r\n" + 101 * b"a")
        sock.shutdown(socket.SHUT_WR)

    server = serve(much)
    with pytest.raises(UnavailableError, match="more than 100 bytes"):
        asked(way, server.url)


@both_ways
def test_nobody_listening_is_an_os_error(way):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ConnectionError):
        asked(way, f"http://127.0.0.1:{port}")


def test_ctrl_c_ends_a_call_that_waits_at_once(serve):
    """Also where the server says nothing: nothing is left behind that the interpreter would wait for."""
    server = serve(lambda sock: time.sleep(60))
    program = "import sys; from fallow import Client; Client(sys.argv[1], key='k').notices(wait_seconds=60)"
    process = subprocess.Popen([sys.executable, "-c", program, server.url], stderr=subprocess.PIPE)
    try:
        for _ in range(600):
            if server.requests:
                break
            time.sleep(0.05)
        assert server.requests, "the program never asked"
        began_s = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=20)
        assert time.monotonic() - began_s < 3.0
        assert b"KeyboardInterrupt" in told
        assert process.returncode == -signal.SIGINT
    finally:
        process.kill()
        process.wait()


def test_there_is_no_pause_after_the_last_attempt(monkeypatch):
    """Nobody waits for an attempt that is not made."""
    paused: list[float] = []

    class Deaf(PlainExchange):
        sent = 0

        async def send(self, *request: object) -> Answered:
            self.sent += 1
            raise ConnectionRefusedError("refused")

        async def pause(self, seconds: float) -> None:
            paused.append(seconds)

    transport = Transport("http://127.0.0.1:1", "k", timeout_seconds=1_000.0, blocks=True)
    deaf = Deaf("http://127.0.0.1:1")
    monkeypatch.setattr(transport, "_exchange", deaf)
    with pytest.raises(UnavailableError, match=f"{ATTEMPTS_MAX} attempts .* refused"):
        completed(transport.ask("GET", "/x", dict))
    assert deaf.sent == ATTEMPTS_MAX
    assert len(paused) == ATTEMPTS_MAX - 1


def test_what_waits_for_a_loop_is_a_mistake():
    with pytest.raises(RuntimeError, match="event loop"):
        completed(asyncio.sleep(0))
