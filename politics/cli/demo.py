"""`politics demo`: an election to watch, in which a leader is killed and another one is stopped."""

import contextlib
import json
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer
from rich.live import Live
from rich.table import Table

from discovery.signals import SignalQueue
from politics.cli.common import complain, out, pause, styled
from politics.cli.demo_worker import Spender

PIECES = 30
GIVE_UP = 30.0


@dataclass
class DemoWorker:
    """One worker process, as the demo sees it."""

    name: str
    process: subprocess.Popen[str]
    state: str = "standing by"
    spent: int = 0


@dataclass
class Play:
    """What has happened so far."""

    folder: Path
    signals: SignalQueue
    begun: float = field(default_factory=time.monotonic)
    workers: list[DemoWorker] = field(default_factory=list)
    listeners: list[threading.Thread] = field(default_factory=list)
    events: "queue.Queue[tuple[DemoWorker, dict[str, Any]]]" = field(default_factory=queue.Queue)
    slots: set[int] = field(default_factory=set)
    spent: list[tuple[int, str]] = field(default_factory=list)
    handovers: list[str] = field(default_factory=list)
    struck: tuple[DemoWorker, float] | None = None

    def start(self, name: str) -> None:
        """Start one worker, and a thread that reads its output."""
        command = [sys.executable, "-m", "politics.cli.demo_worker", str(self.folder)]
        # A worker ends when this pipe does, which it does with us even if we are killed. Ctrl-C is for us alone: a
        # worker that is still importing would show a traceback.
        pipe = subprocess.PIPE
        worker = DemoWorker(name, subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, process_group=0))
        self.workers.append(worker)

        def listen() -> None:
            assert worker.process.stdout is not None
            with worker.process.stdout as lines:
                for line in lines:
                    self.events.put((worker, json.loads(line)))
                    self.signals.put(0)

        self.listeners.append(threading.Thread(target=listen, daemon=True))
        self.listeners[-1].start()

    def say(self, text: str, style: str = "") -> None:
        """Print one line, with the time since the beginning."""
        out.print(styled(f"{time.monotonic() - self.begun:5.1f} s  ", (text, style)))

    def strike(self, worker: DemoWorker, number: signal.Signals, how: str) -> None:
        """Send the leader a signal in the middle of its slot."""
        self.struck = (worker, time.monotonic())
        worker.state = how
        self.say(f"{worker.name} gets {number.name} in the middle of its slot", "bold")
        worker.process.send_signal(number)

    def see(self, worker: DemoWorker, event: dict[str, Any]) -> None:
        """Process one event."""
        kind = event["event"]
        if kind == "elected":
            worker.state = "leading"
            self.say(f"{worker.name} is elected (fence {event['fence']})", "green")
            if self.struck and self.struck[0] is not worker:
                took = time.monotonic() - self.struck[1]
                self.handovers.append(f"after {self.struck[0].name} was {self.struck[0].state}: {took:.2f} s")
                self.say(f"taken over {took:.2f} s after {self.struck[0].name} was {self.struck[0].state}", "bold")
                self.struck = None
        elif kind == "slot":
            again = ", again: its first leader was interrupted" if event["slot"] in self.slots else ""
            self.slots.add(event["slot"])
            self.say(f"{worker.name} works in slot {event['slot']}{again}")
        elif kind == "spent":
            worker.spent += 1
            self.spent.append((event["fence"], event["name"]))
        elif worker.process.poll() is None and worker.state != "stopped":
            worker.state = "standing by"

    def left(self) -> int:
        """Return the number of pieces that are still in the queue."""
        return len(list(self.folder.glob("queue/*")))

    def table(self) -> Table:
        """Return a table of the workers."""
        table = Table("worker", "pid", "state", "spent", box=None)
        for worker in self.workers:
            style = "green" if worker.state == "leading" else ""
            table.add_row(worker.name, str(worker.process.pid), worker.state, str(worker.spent), style=style)
        table.caption = f"{self.left()} of {PIECES} pieces left"
        return table


def demo() -> None:
    """Watch three workers elect a leader, lose it, and go on.

    They share a queue of files, and spend each file exactly once. The first leader is killed in the middle of its
    slot, the second one is asked to stop.

    It takes about 12 seconds, needs no server, and leaves nothing behind.
    """
    ending = (signal.SIGINT, signal.SIGTERM)
    with SignalQueue(*ending) as signals, tempfile.TemporaryDirectory(prefix="politics-demo-") as name:
        play = Play(Path(name), signals)
        for folder in ("queue", "spent"):
            (play.folder / folder).mkdir()
        for number in range(PIECES):
            (play.folder / "queue" / f"{number:02}.pork").touch()
        play.say(f"three workers, one queue of {PIECES} pieces of pork; a lease lasts {Spender.lease_ttl:g} s")
        play.say("the store is new, so the first election waits one lease: the record of a leader may have been lost")
        try:
            for worker in ("Alice", "Bob", "Carol"):
                play.start(worker)
            live = Live(console=out, get_renderable=play.table, refresh_per_second=8, transient=True)
            with live if out.is_terminal else contextlib.nullcontext():
                _watch(play)
        finally:
            _end(play)
        raise typer.Exit(0 if _sum_up(play) else 1)


def _watch(play: Play) -> None:
    """Process events until the queue is empty, and stop the leader twice on the way."""
    blows = [(signal.SIGKILL, "killed", 6), (signal.SIGTERM, "stopped", 6)]
    spent_since = 0
    while play.left() and (left := play.begun + GIVE_UP - 3 - time.monotonic()) > 0:
        pause(play.signals, min(left, 0.5))
        while not play.events.empty():
            worker, event = play.events.get()
            play.see(worker, event)
            spent_since += event["event"] == "spent"
            if event["event"] == "spent" and blows and spent_since > blows[0][2] and not play.struck:
                number, how, _ = blows.pop(0)
                spent_since = 0
                play.strike(worker, number, how)


def _end(play: Play) -> None:
    """Stop all workers, and process their last events."""
    for worker in play.workers:
        worker.process.terminate()
    for worker in play.workers:
        try:
            worker.process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
        assert worker.process.stdin is not None
        worker.process.stdin.close()
    for listener in play.listeners:
        listener.join()
    while not play.events.empty():
        play.see(*play.events.get())


def _sum_up(play: Play) -> bool:
    """Print a summary of the files, and return whether all went well."""
    spent = len(list(play.folder.glob("spent/*")))
    fences, names = [fence for fence, _ in play.spent], {name for _, name in play.spent}
    play.say(f"spent: {', '.join(f'{worker.name} {worker.spent}' for worker in play.workers)}")
    for handover in play.handovers:
        play.say(f"handover {handover}")
    once, in_turn = len(names) == len(fences), fences == sorted(fences)
    # The one that was killed may have spent a piece that it could not report any more.
    well = spent == PIECES and len(names) >= PIECES - 1 and once and in_turn and len(play.handovers) == 2
    if well:
        play.say(f"all {PIECES} pieces were spent, each once, and only ever by the leader", "green")
    else:
        complain(
            f"{spent} of {PIECES} pieces were spent, {len(fences)} reports of {len(names)} pieces, "
            f"{len(play.handovers)} of 2 handovers seen, fences {'in' if in_turn else 'out of'} order"
        )
    return well
