"""TLS in both strengths: first only the server proves its identity, then the client must do so too.

python tls.py
"""

import tempfile
from pathlib import Path

from certificates import make_authority, make_certificate

from discovery import Client, Server
from discovery.errors import ConnectionLost
from discovery.remote import TLS


class HelloWorld:
    def say_hello(self) -> str:
        return "Hello, world!"


def attempt(who: str, address: str, tls: TLS | None) -> None:
    with Client(tls=tls, connect_timeout=3) as client:
        try:
            print(f"  {who}: {client.proxy(address).say_hello()}")
        except ConnectionLost as exc:
            print(f"  {who}: {str(exc).partition(': ')[2]}")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        ours, theirs = Path(name, "ours"), Path(name, "theirs")
        for folder in (ours, theirs):
            folder.mkdir()
            make_authority(folder)
            make_certificate(folder, "client", "127.0.0.1")
        make_certificate(ours, "server", "127.0.0.1")
        ca, certificate, key = ours / "ca.pem", ours / "client.pem", ours / "client.key"

        print("The server proves itself:")
        with Server("127.0.0.1", tls=TLS(ours / "server.pem", ours / "server.key")) as server:
            address = server.serve(HelloWorld())
            attempt("a client that has the authority's certificate", address, TLS(authority=ca))
            attempt("one that trusts another authority", address, TLS(authority=theirs / "ca.pem"))
            attempt("one without TLS", address, None)

        print("And so does the client:")
        with Server("127.0.0.1", tls=TLS(ours / "server.pem", ours / "server.key", authority=ca)) as server:
            address = server.serve(HelloWorld())
            attempt("a client with a certificate", address, TLS(certificate, key, ca))
            attempt("one without", address, TLS(authority=ca))
            stranger = TLS(theirs / "client.pem", theirs / "client.key", ca)
            attempt("one with a certificate of another authority", address, stranger)


if __name__ == "__main__":
    main()
