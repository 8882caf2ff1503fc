"""One worker of `politics demo`. It spends a queue of files, and prints what happens as JSON lines."""

import json
import logging
import os
import sys
import threading
from pathlib import Path

from politics import Term, TokenWorker


class Spender(TokenWorker):
    """Moves files from `queue` to `spent`. A file is moved once or not at all."""

    group = "politics-demo"
    iteration_length = 2.0
    lease_ttl = 1.5
    announce = False  # the demo is private to this machine

    def __init__(self, folder: Path) -> None:
        super().__init__(store=f"sqlite:///{folder}/store.db")
        self.folder = folder

    def perform(self, term: Term) -> None:
        """Spend up to five pieces of pork, one every 250 ms."""
        tell("slot", slot=term.iteration, fence=term.fence, takeover=term.takeover)
        for file in sorted(self.folder.glob("queue/*"))[:5]:
            term.check()
            file.rename(self.folder / "spent" / file.name)
            tell("spent", name=file.name, fence=term.fence)
            term.lost.wait(0.25)

    def on_elected(self, term: Term) -> None:
        """Print it."""
        tell("elected", fence=term.fence)

    def on_lost(self, term: Term) -> None:
        """Print it."""
        tell("lost", fence=term.fence)


def tell(event: str, **fields: object) -> None:
    """Print one line for the demo."""
    print(json.dumps({"event": event, **fields}), flush=True)


def die_with_the_demo() -> None:
    """End this process when the pipe from the demo ends."""
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=die_with_the_demo, daemon=True).start()
    logging.basicConfig(level=logging.ERROR)  # the demo shows the events
    Spender(Path(sys.argv[1])).process()
