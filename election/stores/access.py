"""How to get to a memcached: over TCP or a socket of this machine, with TLS, with a user and a password."""

import socket
import ssl
import time
from dataclasses import dataclass, field


class StoreRefused(ValueError):
    """The server, or we, refuse this connection, and will do so again: a wrong password, an unknown certificate."""


@dataclass(frozen=True)
class Files:
    """PEM files for TLS, empty where there is none: whom to trust (otherwise the system's), and who we are."""

    ca: str = ""
    cert: str = ""
    key: str = ""

    def context(self) -> ssl.SSLContext:
        """Read the files.

        Raises:
            StoreRefused: one of them cannot be used.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca or None)
            if self.cert:
                context.load_cert_chain(self.cert, self.key or None)
        except OSError as exc:  # ssl.SSLError too
            names = ", ".join(f"{name}={file}" for name, file in vars(self).items() if file)
            raise StoreRefused(f"the files for TLS ({names}) cannot be used: {exc}") from exc
        return context


@dataclass(frozen=True)
class ServerAccess:
    """How to get to a server. `path` is that of its socket, and stands in the place of host and port, if there is one.

    `login` is `user password`, empty where none is wanted.
    """

    path: str = ""
    login: bytes = field(default=b"", repr=False)
    tls: Files | None = None

    def connect(self, host: str, port: int, timeout: float) -> socket.socket:
        """Return a socket on which commands are answered. `timeout` seconds are its limit, and that of each step here.

        Raises:
            OSError: no answer.
            StoreRefused: the server does not take the password, or its certificate is none that we trust.
        """
        if self.path:
            made = socket.socket(socket.AF_UNIX)
        else:
            # /etc/hosts may say ::1 first, and memcached listens on the other.
            made = socket.create_connection(("127.0.0.1" if host == "localhost" else host, port), timeout)
        try:
            if self.path:
                made.settimeout(timeout)
                made.connect(self.path)
            else:
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.tls:
                made = self.tls.context().wrap_socket(made, server_hostname=host)
            if self.login:
                self._log_in(made, timeout)
        except ssl.SSLCertVerificationError as exc:
            made.close()
            raise StoreRefused(f"its certificate is not accepted: {exc.verify_message}") from exc
        except BaseException:
            made.close()
            raise
        return made

    def _log_in(self, made: socket.socket, timeout: float) -> None:
        # The first `set` is the password, if the server wants one. Where it wants none, this is an item, which has
        # expired already.
        made.sendall(b"set politics 0 -1 %d\r\n%b\r\n" % (len(self.login), self.login))
        answer, until = b"", time.monotonic() + timeout
        while not answer.endswith(b"\r\n"):
            if not (more := made.recv(1000)):
                raise ConnectionError("it closed the connection")
            answer += more
            if time.monotonic() > until:
                raise TimeoutError("timed out")
        if answer.startswith(b"CLIENT_ERROR"):
            raise StoreRefused("it does not accept this user with this password")
        if answer != b"STORED\r\n":
            # It is not shown: it may contain the password.
            raise ValueError("it does not answer a password as memcached does")
