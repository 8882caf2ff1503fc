"""One logger for all processes: a client calls the class, or the only instance that the class has.

python logger.py server        in one terminal
python logger.py client        in another terminal; without an argument it runs both
"""

import logging
import os
import subprocess
import sys

from discovery import Registry


def here(app: str = "") -> Registry:
    """Return a registry for this machine only. A plain `Registry(app)` is for the whole network."""
    return Registry(app, interfaces=["127.0.0.1"], secret=os.environ.get("POLITICS_SECRET", ""))


class Logger:
    """`new` always returns the same instance."""

    _log = logging.getLogger("distributed")

    @classmethod
    def new(cls) -> "Logger":
        return _the_one

    @classmethod
    def debug(cls, text: str) -> None:
        cls._log.debug(text)

    @classmethod
    def info(cls, text: str) -> None:
        cls._log.info(text)

    @classmethod
    def warning(cls, text: str) -> None:
        cls._log.warning(text)

    @classmethod
    def error(cls, text: str) -> None:
        cls._log.error(text)

    @classmethod
    def fatal(cls, text: str) -> None:
        cls._log.fatal(text)


_the_one = Logger()


def server() -> None:
    logging.basicConfig(format=f"{os.getpid()} %(levelname)s %(message)s")
    logging.getLogger("distributed").setLevel(logging.DEBUG)
    registry = here("logs")
    registry.register("Logger", Logger)
    registry.serve_forever()


def client() -> None:
    with here() as registry:
        logger_class = registry.find("Logger", timeout=5)
        logger_class.info(f"the class was called by {os.getpid()}")
        logger = logger_class.new()
        logger.debug(f"the instance was called by {os.getpid()}")
        print(f"a second one is the same: {logger_class.new() == logger}")


def main() -> None:
    match sys.argv[1:]:
        case ["server"]:
            server()
        case ["client"]:
            client()
        case _:
            with subprocess.Popen([sys.executable, __file__, "server"]) as other:
                try:
                    client()
                finally:
                    other.terminate()


if __name__ == "__main__":
    main()
