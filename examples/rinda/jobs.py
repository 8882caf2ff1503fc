"""A queue of jobs that survives a failing worker: a job leaves the queue when it is done, not when it is begun."""

from discovery import TupleSpace


class Disk:
    """Full when the second job comes for the first time."""

    full = True

    def store(self, number: int) -> None:
        if number == 2 and self.full:
            self.full = False
            raise OSError("disk full")


def main() -> None:
    with TupleSpace() as space:
        for number in (1, 2, 3):
            space.write(("job", number))
        disk = Disk()
        while len(space):
            try:
                with space.taking(("job", int), timeout=0) as (_, number):
                    disk.store(number)
                print(f"job {number} is done")
            except OSError as exc:
                print(f"job {number} failed, {exc}, and is still there")


if __name__ == "__main__":
    main()
