"""Users sent by value: a client that does not know their class can read their fields, but call no method.

python users_by_value.py [server | client ADDRESS]

Then the client names the class with `by_value`. It gets a copy. Changes to the copy do not reach the server.
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
    print(user)  # an `Unknown`, which shows the class's name and the fields
    try:
        user.greeting()
    except UnknownClass as exc:
        print(f"the call fails: {exc}")

    by_value(User)  # usually a decorator; here it comes late to show the case without it
    user = users.find(1)
    user.username = "somebody else"
    print(f"the copy says: {user.greeting()}")
    print(f"the server still says: {users.find(1).greeting()}")


if __name__ == "__main__":
    both.run(server, client)
