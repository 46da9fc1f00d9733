"""A TCP relay in front of a real server, for faults that lie between two machines that are both well."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Relay:
    """Passes bytes on to a server until it is told to lose some.

    :ivar lost_answers: how many answers never reached the client.
    :ivar refused: how many connections were broken as soon as they were made.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._is_cut = threading.Event()
        self._marker: bytes | None = None
        self._sockets: set[socket.socket] = set()
        self.lost_answers = 0
        self.refused = 0
        self._refuse_at_most: int | None = None
        threading.Thread(target=self._accept, name="relay", daemon=True).start()

    def cut(self, *, refusals: int | None = None) -> None:
        """Break every connection, and each new one at once: so many of them, or all until it is mended."""
        self._refuse_at_most = refusals
        self._is_cut.set()
        for open_socket in list(self._sockets):
            self._close(open_socket)

    def mend(self) -> None:
        self._is_cut.clear()

    def lose_answer_to(self, marker: bytes) -> None:
        """Let the next request with this in its first line through, and break the connection instead of answering."""
        self._marker = marker

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self._is_cut.is_set():
                    client.close()
                    self.refused += 1
                    if self.refused == self._refuse_at_most:
                        self.mend()
                else:
                    self._relay(client)

    def _relay(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(self._target)
        except OSError:
            client.close()
            return
        self._sockets |= {client, server}
        loses = threading.Event()
        for pump, source, sink in ((self._requests, client, server), (self._answers, server, client)):
            threading.Thread(target=pump, args=(source, sink, loses), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket, loses: threading.Event) -> None:
        with suppress(OSError):
            while data := client.recv(1 << 16):
                if self._marker and self._marker in data.partition(b"\r\n")[0]:
                    self._marker = None
                    loses.set()
                server.sendall(data)
        self._close(client, server)

    def _answers(self, server: socket.socket, client: socket.socket, loses: threading.Event) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 16):
                if loses.is_set() and not data.startswith(b"HTTP/1.1 100"):
                    self.lost_answers += 1
                    break
                client.sendall(data)
        self._close(client, server)

    def _close(self, *sockets: socket.socket) -> None:
        for one in sockets:
            self._sockets.discard(one)
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@contextmanager
def relay_to(host: str, port: int) -> Iterator[Relay]:
    relay = Relay(host, port)
    try:
        yield relay
    finally:
        relay.close()
