"""A proxy between a client and a server of any kind: it loses answers, delivers late, and counts what was sent."""

import base64
import contextlib
import random
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.processes import free_port
from tests.waiting import DEADLINE, SOON

CHUNK = 1 << 16


class Proxy:
    """Forwards connections to `127.0.0.1:port` until it is left. What it does wrong may be changed at any time.

    With a `context` its clients have to use TLS.
    """

    def __init__(self, target: int, context: ssl.SSLContext | None = None, seed: int = 0) -> None:
        self.target, self.port = target, free_port()
        self._context = context
        self.loss = 0.0
        """The chance that an answer is lost: the server gave it, and the connection is cut in its place."""
        self.requests, self.answers = threading.Event(), threading.Event()
        """What clients send, and what they are answered, is held back while these are not set, and delivered then."""
        for gate in (self.requests, self.answers):
            gate.set()
        self.lost = 0
        self._chance = random.Random(seed)
        self._doomed: list[bytes] = []
        self._sent: list[bytearray] = []
        self._open: set[socket.socket] = set()
        self._listener: socket.socket | None = None

    def __enter__(self) -> "Proxy":
        self.accept()
        return self

    def __exit__(self, *_: object) -> None:
        self.refuse()
        for gate in (self.requests, self.answers):
            gate.set()

    def accept(self) -> None:
        """Take connections."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._listen, args=(self._listener,), daemon=True).start()

    def refuse(self) -> None:
        """Cut all connections, and refuse new ones until `accept`."""
        listener, self._listener = self._listener, None
        if listener:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.cut()

    def cut(self) -> None:
        """Cut all connections."""
        for each in tuple(self._open):
            self._close(each)

    def lose_answer_to(self, data: bytes) -> None:
        """Forward the request that has this data in it, wait for its answer, and cut the connection instead."""
        self._doomed = forms(data)

    def sent(self, data: bytes) -> int:
        """Return how often clients have sent this data to the server."""
        return sum(bytes(each).count(form) for each in self._sent for form in forms(data))

    @contextlib.contextmanager
    def losing(self, chance: float) -> Iterator[None]:
        """Lose so many of the answers meanwhile."""
        self.loss = chance
        try:
            yield
        finally:
            self.loss = 0.0

    @contextlib.contextmanager
    def holding(self, gate: threading.Event) -> Iterator[None]:
        """Hold `requests` or `answers` back meanwhile, and deliver them at the end."""
        gate.clear()
        try:
            yield
        finally:
            gate.set()

    def _listen(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                if self._context:
                    client.settimeout(SOON)
                    client = self._context.wrap_socket(client, server_side=True)
                    client.settimeout(None)
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                client.close()
                continue
            sent = bytearray()
            self._sent.append(sent)
            self._open |= {client, server}
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for work in (self._forward, self._answer):
                threading.Thread(target=work, args=(client, server, sent), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket, sent: bytearray) -> None:
        """What is on its way arrives, even if the client has given up in the meantime."""
        with contextlib.suppress(OSError):
            while data := client.recv(CHUNK):
                self.requests.wait()
                sent += data
                server.sendall(data)
            self.requests.wait()
            server.shutdown(socket.SHUT_WR)

    def _answer(self, client: socket.socket, server: socket.socket, sent: bytearray) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(CHUNK):
                self.answers.wait()
                doomed = any(form in sent for form in self._doomed)
                if doomed or (self.loss and self._chance.random() < self.loss):
                    self._doomed = [] if doomed else self._doomed
                    self.lost += 1
                    break
                client.sendall(data)
        self._close(client)
        self._close(server)

    def _close(self, connection: socket.socket) -> None:
        self._open.discard(connection)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()


def forms(data: bytes) -> list[bytes]:
    """Return how this data may look on its way: as it is, in hexadecimal digits, and in base64 within anything."""
    found = [data, data.hex().encode()]
    for offset in range(3):
        encoded = base64.b64encode(b"." * offset + data)
        found.append(encoded[-(-offset * 4 // 3) : (offset + len(data)) * 4 // 3])
    return found


def certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """Make a certificate for 127.0.0.1; return its file, and the context of a server that has it and wants it shown."""
    ours, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1", "-out", str(ours), "-keyout", str(key)]
    subprocess.run(command, check=True, capture_output=True, timeout=DEADLINE)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ours, key)
    context.load_verify_locations(ours)
    context.verify_mode = ssl.CERT_REQUIRED
    return ours, context
