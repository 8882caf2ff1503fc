"""What a hostile client can reach: the public methods of what is served, and nothing else.

python unsafe_evaluation.py [server | client ADDRESS]

In Ruby every object has `instance_eval`, so anybody who can connect can run a program. Here you need not turn
anything off: no object has a method that evaluates anything, unless you write one.
"""

import both

from discovery import Client, Server
from discovery.errors import DiscoveryError
from discovery.remote import Address


class Vault:
    combination = "12-34-56"

    def knock(self, who: str) -> str:
        return f"who is there? {who}"

    def _open(self) -> str:
        return self.combination


def server() -> str:
    return Server("127.0.0.1").serve(Vault())


def client(address: str) -> None:
    # A proxy would refuse a private name by itself. A hostile client would not ask a proxy:
    vault, burglar = Address.parse(address), Client()
    for name, arguments in (
        ("knock", ["__import__('os').getpid()"]),  # is a text, and stays one
        ("_open", []),
        ("combination", []),
        ("eval", ["self.combination"]),
        ("__getattribute__", ["combination"]),
        ("__setattr__", ["combination", "0"]),
        ("__reduce__", []),
        ("__class__", []),
        ("__init__.__globals__", []),
    ):
        try:
            print(f"{name}: {burglar.call(vault, name, arguments)}")
        except DiscoveryError as exc:
            print(f"{name}: {type(exc).__name__}: {exc}")
    try:
        burglar.call(vault._replace(object_id="everything"), "list")
    except DiscoveryError as exc:
        print(f"a guess: {type(exc).__name__}: {exc}")


if __name__ == "__main__":
    both.run(server, client)
