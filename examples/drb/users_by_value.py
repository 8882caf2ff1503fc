"""Users that travel by value: a client that does not know their class can read them, and call nothing.

python users_by_value.py [server | client ADDRESS]

Then the client names the class. What it gets is a copy, and what it changes there, nobody else sees.
"""

from dataclasses import dataclass

import both

from discovery import Server, connect
from discovery.errors import UnknownClass
from discovery.remote import by_value


@dataclass
class User:
    id: int
    username: str

    def greeting(self) -> str:
        return f"I am {self.username}"


class Users:
    def __init__(self) -> None:
        self._users = {number: User(number, f"user {number}") for number in range(1, 6)}

    def find(self, number: int) -> User:
        return self._users[number]


def server() -> str:
    return Server("127.0.0.1").serve(Users())


def client(address: str) -> None:
    users = connect(address)
    user = users.find(1)
    print(user)  # says that it is something unknown, of which class, and what is in it
    try:
        user.greeting()
    except UnknownClass as exc:
        print(f"the call fails: {exc}")

    by_value(User)  # usually a decorator of the class; here it comes late, to show what happens without
    user = users.find(1)
    user.username = "somebody else"
    print(f"the copy says: {user.greeting()}")
    print(f"the server still says: {users.find(1).greeting()}")


if __name__ == "__main__":
    both.run(server, client)
