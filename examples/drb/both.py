"""Shared by the programs of this folder: run server and client together, or each in its own terminal.

python hello.py                     both; the server is a separate process
python hello.py server              prints its address, and serves until Ctrl-C
python hello.py client ADDRESS      in another terminal
"""

import contextlib
import subprocess
import sys
import threading
from collections.abc import Callable


def run(server: Callable[[], str], client: Callable[[str], None]) -> None:
    """Run what the command line says. `server` starts to serve and returns the address. `client` gets this address."""
    match sys.argv[1:]:
        case ["server"]:
            print(server(), flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait()
        case ["client", address]:
            client(address)
        case []:
            command = [sys.executable, sys.argv[0], "server"]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
                assert other.stdout is not None
                try:
                    client(other.stdout.readline().strip())
                finally:
                    other.terminate()
        case _:
            sys.exit(f"usage: {sys.argv[0]} [server | client ADDRESS]")
