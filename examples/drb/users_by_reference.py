"""Users sent by reference: a client changes a user at the server, and the next client sees the change.

python users_by_reference.py [server | client ADDRESS]
"""

import both

from discovery import Server, connect
from discovery.remote import by_reference


@by_reference
class User:
    def __init__(self, number: int, username: str) -> None:
        self._number, self._username = number, username

    def username(self) -> str:
        return self._username

    def rename(self, username: str) -> None:
        self._username = username


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
    print(f"found {user.username()}")
    try:
        user.username = "somebody else"  # only methods can be used from another process
    except AttributeError as exc:
        print(f"cannot be set: {exc}")
    user.rename("somebody else")
    print(f"found again: {users.find(1).username()}")
    print(f"the same object: {users.find(1) == user}")


if __name__ == "__main__":
    both.run(server, client)
