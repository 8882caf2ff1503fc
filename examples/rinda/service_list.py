"""List every service in a ring: its name, its description and its address."""

import sys

from discovery import RingFinger
from discovery.rings import BROADCAST


def main() -> None:
    ring = RingFinger(sys.argv[1:] or [BROADCAST, "localhost"]).lookup_ring_any()
    for _, name, service, description in ring.read_all(("name", None, None, None)):
        print(f"{name}: {description}\n  {service}")


if __name__ == "__main__":
    main()
