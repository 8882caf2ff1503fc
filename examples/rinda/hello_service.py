"""A service that writes itself into a ring, and answers until it is stopped.

politics ring &  python hello_service.py &  python hello_client.py
Hosts to look for a ring on may follow (localhost:7647); otherwise it is the local network and this machine.
"""

import os
import sys
import threading

from discovery import RingFinger, serve
from discovery.rings import BROADCAST
from discovery.tuples import SimpleRenewer


class HelloWorld:
    def say_hello(self) -> str:
        return f"Hello, world! Yours, {os.getpid()}"


def main() -> None:
    ring = RingFinger(sys.argv[1:] or [BROADCAST, "localhost"]).lookup_ring_any()
    hello = HelloWorld()
    serve(hello)  # so it travels by reference
    ring.write(("name", "HelloWorld", hello, "says hello"), SimpleRenewer(30))  # gone within 30 s of this process
    print(f"HelloWorld is in {ring}")
    threading.Event().wait()


if __name__ == "__main__":
    main()
