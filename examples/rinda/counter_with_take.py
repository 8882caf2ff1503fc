"""Ten threads count to a hundred. A thread that takes the counter has it alone; the others wait until it is back."""

import time
from threading import Thread

from discovery import TupleSpace


def count(space: TupleSpace) -> None:
    for _ in range(10):
        _, number = space.take(("counter", int), timeout=10)
        time.sleep(0.001)
        space.write(("counter", number + 1))


def main() -> None:
    with TupleSpace() as space:
        space.write(("counter", 0))
        threads = [Thread(target=count, args=(space,)) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        _, number = space.read(("counter", int))
        print(f"counted to {number}")


if __name__ == "__main__":
    main()
