"""A service that writes itself into a ring, and answers calls until you stop it.

politics ring &  python hello_service.py &  python hello_client.py
You can add the hosts on which to look for a ring (localhost:7647). Without them the service looks on the local network
and on this machine.
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
    serve(hello)  # so it is sent by reference
    ring.write(("name", "HelloWorld", hello, "says hello"), SimpleRenewer(30))  # gone within 30 s of this process
    print(f"HelloWorld is in {ring}")
    threading.Event().wait()


if __name__ == "__main__":
    main()
