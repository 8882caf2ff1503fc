"""A logger: one line registers it in a ring, and clients find it by the name of its class.

politics ring &  python logger.py service &  python logger.py client
You can add the hosts on which to look for a ring (localhost:7647). Without them the program looks on the local network
and on this machine. Without any argument it runs all three. The service stays registered while rings start and stop.
"""

import os
import subprocess
import sys
import threading

from discovery import RingFinger, RingServer
from discovery.rings import BROADCAST, Registration, find, services


class Logger:
    def info(self, text: str) -> None:
        print(f"INFO {text}\n", end="", flush=True)  # one write, whatever other threads print


def service(finger: RingFinger) -> None:
    with Registration(Logger(), finger=finger) as registration:
        registration.wait()
        print(f"{registration}\n", end="", flush=True)
        threading.Event().wait()


def client(finger: RingFinger) -> None:
    find("Logger", finger=finger).info(f"process {os.getpid()} was here")
    for host, found in services(finger).items():
        for _, name, _, description in found:
            print(f"{name} is on {host}: {description}")


def both() -> None:
    with RingServer(port=0, host="127.0.0.1", announce=False) as ring:
        host = f"127.0.0.1:{ring.port}"
        with subprocess.Popen([sys.executable, __file__, "service", host]) as other:
            try:
                client(RingFinger([host]))
            finally:
                other.terminate()


def main() -> None:
    match sys.argv[1:]:
        case ["service", *hosts]:
            service(RingFinger(hosts or [BROADCAST, "localhost"]))
        case ["client", *hosts]:
            client(RingFinger(hosts or [BROADCAST, "localhost"]))
        case _:
            both()


if __name__ == "__main__":
    main()
