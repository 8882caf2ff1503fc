"""How long a reference works: of an object that is served, until the server ends it; of one that is lent, for a while.

python keeping.py [server | client ADDRESS]
"""

import both

from discovery import Server, connect
from discovery.errors import NoSuchObject
from discovery.remote import by_reference


@by_reference
class Note:
    def __init__(self, text: str) -> None:
        self._text = text

    def text(self) -> str:
        return self._text


class Notes:
    now = 0.0

    def new(self, text: str) -> Note:
        return Note(text)  # nobody here keeps it; the server does, for as long as it is used

    def wait(self, seconds: float) -> None:
        self.now += seconds  # the clock of this server, so that the program need not wait


def server() -> str:
    notes = Notes()
    server = Server("127.0.0.1", keep=600, clock=lambda: notes.now)  # without a clock of our own it takes a real one
    return server.serve(notes, "HW:notes")  # an id of our choice, which others can guess


def client(address: str) -> None:
    notes = connect(address)
    note = notes.new("buy milk")
    for _ in range(3):
        notes.wait(599)
        print(f"after 599 s more: {note.text()}")
    notes.wait(601)
    try:
        note.text()
    except NoSuchObject:
        print("after 601 s more: let go")
    print(f"still served: {notes.new('buy bread').text()}")


if __name__ == "__main__":
    both.run(server, client)
