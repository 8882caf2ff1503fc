"""Hello, world: call an object in another process. You declare no interface.

python hello.py [server | client ADDRESS]
"""

import os

import both

from discovery import Server, connect


class HelloWorld:
    def say_hello(self) -> str:
        return f"Hello, world! Yours, {os.getpid()}"


def server() -> str:
    return Server("127.0.0.1").serve(HelloWorld())  # Server() alone listens on every interface


def client(address: str) -> None:
    hello = connect(address)
    print(hello)  # a proxy, which shows the address of its object
    print(hello.say_hello())


if __name__ == "__main__":
    both.run(server, client)
