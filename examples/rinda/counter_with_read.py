"""Ten threads count to a hundred and do not get there: between a read and a write of one thread, others read too."""

import time
from threading import Thread

from discovery import TupleSpace


def count(space: TupleSpace) -> None:
    for _ in range(10):
        _, number = space.read(("counter", int))
        time.sleep(0.001)  # long enough for the other threads to read the same number
        space.take(("counter", int))
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
        print(f"counted to {number}; {100 - number} updates were lost")


if __name__ == "__main__":
    main()
