"""Where a remote object is: `remote://HOST:PORT/ID`."""

from typing import NamedTuple

from discovery.errors import BadAddress

__all__ = ["FORM", "MAX_ADDRESS", "SCHEME", "Address"]

SCHEME = "remote://"
FORM = "remote://HOST:PORT/ID"

MAX_ADDRESS = 300
"""The most characters that an address may have."""


class Address(NamedTuple):
    """Where an object is. `str` writes it as `remote://HOST:PORT/ID`, an IPv6 host in brackets."""

    object_id: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{SCHEME}{host}:{self.port}/{self.object_id}"

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read the text form. This accepts exactly what `str` writes, in time linear in the length of the text.

        Raises:
            BadAddress: The text is no address. The message shows the text and the form.
        """
        if type(text) is not str or len(text) > MAX_ADDRESS or not _is_plain(text) or not text.startswith(SCHEME):
            raise _bad(text)
        place, _, object_id = text[len(SCHEME) :].partition("/")
        host, _, digits = place.rpartition(":")
        if host.startswith("["):
            host = host[1:-1] if host.endswith("]") and ":" in host else ""
        elif ":" in host:
            host = ""
        port = int(digits) if digits.isascii() and digits.isdecimal() and len(digits) <= 5 else 0
        if not (host and object_id and 0 < port < 65536) or str(port) != digits or any(c in host for c in "[]@"):
            raise _bad(text)
        return cls(object_id, host, port)


def _is_plain(text: str) -> bool:
    return text.isprintable() and " " not in text


def _bad(text: object) -> BadAddress:
    shown = repr(text[:80])[:-1] + "...'" if isinstance(text, str) and len(text) > 80 else repr(text)
    return BadAddress(f"not of the form {FORM}, with at most {MAX_ADDRESS} characters and no spaces: {shown}")
