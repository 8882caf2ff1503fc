"""Find the service of hello_service.py in a ring, and call it."""

import sys

from discovery import RingFinger
from discovery.rings import BROADCAST


def main() -> None:
    ring = RingFinger(sys.argv[1:] or [BROADCAST, "localhost"]).lookup_ring_any()
    _, _, hello, description = ring.read(("name", "HelloWorld", None, None), timeout=10)
    print(f"{description}: {hello.say_hello()}")
    print(hello)


if __name__ == "__main__":
    main()
