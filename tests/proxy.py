"""A TCP proxy that cuts connections, or lets answers get lost."""

import contextlib
import socket
import ssl
import subprocess
import threading
from pathlib import Path

from tests.waiting import DEADLINE, SOON


class Proxy:
    """Forward what comes to `port` of this machine.

    `silent` forwards nothing more in either direction. `answerless` forwards requests, and closes the connection in
    place of an answer. With `tls` it speaks TLS to whoever connects.
    """

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._target, self._tls = port, tls
        self.silent = self.answerless = False
        self._connections: list[tuple[socket.socket, socket.socket, list[threading.Thread]]] = []

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._server.getsockname()[1]
        return port

    def cut(self) -> None:
        """Close all connections, as a server does that has been idle, and wait until they are."""
        while self._connections:
            near, far, threads = self._connections.pop()
            _end(near, far)
            for thread in threads:
                thread.join(SOON)
            near.close()
            far.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                if self._tls:
                    try:
                        near = self._tls.wrap_socket(near, server_side=True)
                    except OSError:  # who does not believe our certificate goes away
                        near.close()
                        continue
                far = socket.create_connection(("127.0.0.1", self._target))
                ways = (near, far, False), (far, near, True)
                threads = [threading.Thread(target=self._forward, args=way, daemon=True) for way in ways]
                self._connections.append((near, far, threads))
                for thread in threads:
                    thread.start()

    def _forward(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if answers and self.answerless:
                    break
                if not self.silent:
                    sink.sendall(data)
        _end(source, sink)

    def __enter__(self) -> "Proxy":
        self._server = socket.create_server(("127.0.0.1", 0))
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(SOON)
        self._server.close()
        self.cut()


def _end(*sockets: socket.socket) -> None:
    for each in sockets:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


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
