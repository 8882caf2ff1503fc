"""One worker of `politics demo`: spends a queue of files, and tells what happens in JSON lines."""

import json
import logging
import os
import sys
import threading
from pathlib import Path

from politics import Term, TokenWorker


class Spender(TokenWorker):
    """Moves files from `queue` to `spent`, which happens to each of them once or not at all."""

    group = "politics-demo"
    iteration_length = 2.0
    lease_ttl = 1.5
    announce = False  # the demo is nobody else's affair

    def __init__(self, folder: Path) -> None:
        super().__init__(store=f"sqlite:///{folder}/store.db")
        self.folder = folder

    def perform(self, term: Term) -> None:
        """Spend up to five pieces of pork, one each 250 ms."""
        tell("slot", slot=term.iteration, fence=term.fence, takeover=term.takeover)
        for file in sorted(self.folder.glob("queue/*"))[:5]:
            term.check()
            file.rename(self.folder / "spent" / file.name)
            tell("spent", name=file.name, fence=term.fence)
            term.lost.wait(0.25)

    def on_elected(self, term: Term) -> None:
        """Say so."""
        tell("elected", fence=term.fence)

    def on_lost(self, term: Term) -> None:
        """Say so."""
        tell("lost", fence=term.fence)


def tell(event: str, **fields: object) -> None:
    """One line to the demo."""
    print(json.dumps({"event": event, **fields}), flush=True)


def die_with_the_demo() -> None:
    """End when the pipe from the demo does."""
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=die_with_the_demo, daemon=True).start()
    logging.basicConfig(level=logging.ERROR)  # what is worth seeing is told in events
    Spender(Path(sys.argv[1])).process()
