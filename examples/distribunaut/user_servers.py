"""Two servers that offer the same class. They choose their names, and clients tell them apart by URL.

python user_servers.py server        in two terminals
python user_servers.py client        in a third; without an argument the program runs all of them
"""

import contextlib
import os
import subprocess
import sys

from discovery import Registry
from discovery.errors import ServiceTaken


def here(app: str = "") -> Registry:
    """Return a registry for this machine only. A plain `Registry(app)` is for the whole network."""
    return Registry(app, interfaces=["127.0.0.1"], secret=os.environ.get("POLITICS_SECRET", ""))


class User:
    app = ""

    def __init__(self, username: str) -> None:
        self._username = username

    def where(self) -> str:
        return f"{self._username} lives in {self.app}"


def serve_users(number: int) -> Registry:
    """Offer users as `user_server_NUMBER`, or with the next number if this one is in use."""
    registry = here(f"user_server_{number}")
    User.app = registry.app
    try:
        registry.register("User", User, description=f"users of server {number}")
    except ServiceTaken:
        registry.close()
        return serve_users(number + 1)
    return registry


def server() -> None:
    with here() as scout:
        running = scout.services((None, "User", None, None))
    registry = serve_users(1 + len(running))
    print(f"{registry.app} is ready", flush=True)
    registry.serve_forever()


def client() -> None:
    with here() as registry:
        first = registry.lookup("distributed://user_server_1/User", timeout=5)
        second = registry.lookup("distributed://user_server_2/User", timeout=5)
        print(first("Alice").where())
        print(second("Bob").where())
        for name in ("Carol", "Dave"):
            print(registry.find("User")(name).where())  # the servers in turn
        for service in registry.services((None, "User", None, None)):
            print(f"distributed://{service.app}/{service.service}: {service.description}")


def main() -> None:
    match sys.argv[1:]:
        case ["server"]:
            server()
        case ["client"]:
            client()
        case _:
            with contextlib.ExitStack() as stack:
                for _ in range(2):
                    other = stack.enter_context(subprocess.Popen([sys.executable, __file__, "server"]))
                    stack.callback(other.terminate)
                client()


if __name__ == "__main__":
    main()
