"""Observe what happens to a tuple: it is written, taken, written back, and expires. Then the stream ends."""

from threading import Thread

from discovery import TupleSpace
from discovery.tuples import EventStream


def observe(stream: EventStream) -> None:
    for event in stream:
        print(f"{event.kind}: {event.tuple}")


def main() -> None:
    with TupleSpace() as space:
        observer = Thread(target=observe, args=(space.notify(None, ("service", None), expires=0.3),))
        observer.start()
        space.write(("service", "hello"))
        service = space.take(("service", None))
        space.write(service, expires=0.1)
        space.write(("client", "hello"))  # does not match the observer's template
        observer.join()


if __name__ == "__main__":
    main()
