"""How long a reference is valid: until the server closes, or for some time after its last use.

python keeping.py [server | client ADDRESS]

An object that you serve is valid until the server closes. An object of a class that is marked `@by_reference`, which a
method returned, is valid for `keep` seconds after its last use.
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
        return Note(text)  # only the server keeps it, as long as it is used

    def wait(self, seconds: float) -> None:
        self.now += seconds  # so that the example need not really wait


def server() -> str:
    notes = Notes()
    server = Server("127.0.0.1", keep=600, clock=lambda: notes.now)  # without `clock` it uses a real one
    return server.serve(notes, "HW:notes")  # an id that we chose, so others can guess it


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
