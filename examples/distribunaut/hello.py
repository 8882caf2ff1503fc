"""Hello, world, by name: one process offers a class, and another process, which does not have it, uses it.

python hello.py provider        in one terminal
python hello.py user            in another terminal; without an argument it runs both
"""

import os
import subprocess
import sys

from discovery import Distributed, Registry, distributable
from discovery.registry import use_registry


def here(app: str = "") -> Registry:
    """Return a registry for this machine only. A plain `Registry(app)` is for the whole network."""
    return Registry(app, interfaces=["127.0.0.1"], secret=os.environ.get("POLITICS_SECRET", ""))


def provider() -> None:
    registry = use_registry(here("hello_app"))

    @distributable
    class HelloWorld:
        """Greets."""

        def __init__(self, name: str = "world") -> None:
            self._name = name

        def say_hi(self) -> str:
            return f"Hi, {self._name}! Yours, {os.getpid()}"

        @classmethod
        def languages(cls) -> list[str]:
            return ["English"]

    registry.serve_forever()


def user() -> None:
    registry = use_registry(here())
    registry.find("HelloWorld", timeout=5)  # waits until the provider is there
    print(Distributed.HelloWorld().say_hi())
    print(Distributed.HelloWorld("Alice").say_hi())
    print(Distributed.HelloWorld.languages())
    for app, service, _, description in registry.services():
        print(f"distributed://{app}/{service}: {description}")


def main() -> None:
    match sys.argv[1:]:
        case ["provider"]:
            provider()
        case ["user"]:
            user()
        case _:
            with subprocess.Popen([sys.executable, __file__, "provider"]) as other:
                try:
                    user()
                finally:
                    other.terminate()


if __name__ == "__main__":
    main()
