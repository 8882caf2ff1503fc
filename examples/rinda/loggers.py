"""Find three loggers with templates that each fix another field. A read returns the oldest match."""

import re
from collections.abc import Callable

from discovery import TupleSpace


def logger(name: str) -> Callable[[str], None]:
    return lambda message: print(f"{name}: {message}")


def main() -> None:
    with TupleSpace() as space:
        space.write(("Logger", "disk", logger("disk"), "keeps a week"))
        space.write(("Logger", "console", logger("console"), "forgets"))
        space.write(("Audit", "vault", logger("vault"), "keeps everything"))

        for template in (
            ("Logger", None, None, None),  # two loggers match: make the template more specific
            ("Logger", "console", None, None),
            (None, None, None, "keeps everything"),
            (None, re.compile("^v"), Callable, str),
        ):
            _, _, log, description = space.read(template)
            log(description)

        # The same with named fields, which is easier to read. A template must have the same names.
        space.write({"name": "Logger", "log": logger("named"), "level": 3})
        space.read({"name": "Logger", "log": None, "level": range(1, 5)})["log"]("level 1 to 4")


if __name__ == "__main__":
    main()
