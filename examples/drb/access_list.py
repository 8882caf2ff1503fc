"""Who may connect: one server for each list of rules, and whether it admits this machine.

python access_list.py

In DRb `allow all` silently overrides every `deny`, in either order. Here the rule for the smallest network that has the
address decides. A list belongs to its server, not to the process. So one process can have all of these servers.
"""

from discovery import Client, Server
from discovery.errors import ConnectionLost
from discovery.remote import Access


class HelloWorld:
    def say_hello(self) -> str:
        return "Hello, world!"


LISTS = (
    "deny all allow 127.0.0.1",
    "deny all allow 10.0.0.0/8",
    "deny 127.0.0.1",
    "allow all deny 127.0.0.1",  # the trap: DRb admits us with this list
    "deny 127.0.0.1 allow all",  # and with this one
    "deny 127.0.0.0/8 allow 127.0.0.1",
)


def main() -> None:
    for rules in LISTS:
        with Server("127.0.0.1", access=Access(rules)) as server, Client() as client:
            hello = client.proxy(server.serve(HelloWorld()))
            try:
                print(f"{rules}: {hello.say_hello()}")
            except ConnectionLost:
                print(f"{rules}: refused")


if __name__ == "__main__":
    main()
