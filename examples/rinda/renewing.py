"""How long tuples live: a number of seconds, for ever, or as long as a renewer says."""

from time import monotonic

from discovery import TupleSpace
from discovery.tuples import SimpleRenewer


class LimitedRenewer:
    """Gives a tuple five lives of a twentieth of a second each. `renew` gets the tuple that it is asked about.

    It is asked on a thread of the space, so it prints nothing itself.
    """

    def __init__(self) -> None:
        self.lives = 5
        self.said: list[str] = []

    def renew(self, fields: tuple[str]) -> float | bool:
        if self.lives == 0:
            return False
        self.lives -= 1
        self.said.append(f"{fields[0]} lives on, {self.lives} left")
        return 0.05


def main() -> None:
    with TupleSpace() as space:
        begun = monotonic()
        deletions = space.notify("delete", (None,))
        space.write(("numeric",), expires=0.8)
        space.write(("eternal",))
        space.write(("simple",), expires=SimpleRenewer(0.1))
        limited = LimitedRenewer()
        space.write(("limited",), expires=limited)
        for _ in range(2):
            print(f"{deletions.get().tuple[0]} is gone after {monotonic() - begun:.2f} s")
        print(*limited.said, sep="\n")
        for name in ("eternal", "simple"):  # `read` waits for a tuple whose renewer is late
            print(f"{space.read((name,), timeout=10)[0]} is still there")


if __name__ == "__main__":
    main()
