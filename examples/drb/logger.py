"""A logger for many processes: it is Python's standard logger, and the lines appear in the server's process.

python logger.py [server | client ADDRESS]
"""

import logging
import os

import both

from discovery import Server, connect


def server() -> str:
    logging.basicConfig(level=logging.INFO, format=f"{os.getpid()} %(levelname)s %(message)s")
    return Server("127.0.0.1").serve(logging.getLogger("shared"))


def client(address: str) -> None:
    logger = connect(address)
    logger.info("process %d has begun", os.getpid())
    logger.warning("process %d has nothing to do", os.getpid())
    print(f"process {os.getpid()} has logged two lines elsewhere")


if __name__ == "__main__":
    both.run(server, client)
