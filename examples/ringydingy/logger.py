"""One line registers an object, and it stays registered while rings come and go (what RingyDingy promises)."""

import sys
import threading

from discovery import Registration, RingFinger
from discovery.ring import BROADCAST


class Logger:
    def info(self, text: str) -> None:
        print(f"INFO {text}", flush=True)


def main() -> None:
    finger = RingFinger(sys.argv[1:] or [BROADCAST, "localhost"])
    with Registration(Logger(), finger=finger) as registration:
        registration.wait()
        print(registration, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
