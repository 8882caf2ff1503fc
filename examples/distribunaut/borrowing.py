"""Borrow a service: others are refused meanwhile, and the service is free again even if its borrower dies.

python borrowing.py provider        in one terminal
python borrowing.py borrower        in another terminal; without an argument it runs both
"""

import os
import subprocess
import sys

from discovery import Registry
from discovery.errors import ServiceOnLoan

URL = "distributed://hello_app/HelloWorld"


def here(app: str = "") -> Registry:
    """Return a registry for this machine only. A plain `Registry(app)` is for the whole network."""
    return Registry(app, interfaces=["127.0.0.1"], secret=os.environ.get("POLITICS_SECRET", ""))


class HelloWorld:
    def say_hi(self) -> str:
        return "Hi!"


def provider() -> None:
    registry = here("hello_app")
    registry.register("HelloWorld", HelloWorld())
    registry.serve_forever()


def borrower() -> None:
    with here() as registry:
        hello = registry.lookup(URL, timeout=5)
        print(f"before: {hello.say_hi()}")
        with registry.borrow(URL) as ours:
            print(f"meanwhile, by the borrower: {ours.say_hi()}")
            try:
                registry.lookup(URL, timeout=0.1)
            except ServiceOnLoan as exc:
                print(f"meanwhile, looked up: {exc}")
            try:
                hello.say_hi()  # through a proxy that was looked up before the loan
            except ServiceOnLoan as exc:
                print(f"meanwhile, called: {exc}")
        print(f"after: {registry.lookup(URL, timeout=5).say_hi()}")

        subprocess.run([sys.executable, __file__, "careless borrower"])
        with registry.borrow(URL, timeout=5) as ours:
            print(f"after a borrower's death: {ours.say_hi()}")


def careless_borrower() -> None:
    with here() as registry, registry.borrow(URL, timeout=5):
        print("borrowed by somebody who dies", flush=True)
        os._exit(1)


def main() -> None:
    match sys.argv[1:]:
        case ["provider"]:
            provider()
        case ["borrower"]:
            borrower()
        case ["careless borrower"]:
            careless_borrower()
        case _:
            with subprocess.Popen([sys.executable, __file__, "provider"]) as other:
                try:
                    borrower()
                finally:
                    other.terminate()


if __name__ == "__main__":
    main()
