"""`distributed://app/Service`: how a service is named. Pure. The form is Distribunaut's."""

import re
from typing import Any, NamedTuple

from discovery.errors import BadURL

SCHEME = "distributed"
_NAME = re.compile(r"[^\s/?#\x00-\x1f\x7f]{1,64}")


class ServiceURL(NamedTuple):
    """The name of a service: `str()` is its text, `parse` reads that."""

    app: str
    service: str

    def __str__(self) -> str:
        return f"{SCHEME}://{self.app}/{self.service}"

    @classmethod
    def parse(cls, text: str) -> "ServiceURL":
        """Read the text form. Raise `BadURL`, which shows what cannot be read."""
        scheme, separator, rest = text.partition("://") if isinstance(text, str) else ("", "", "")
        app, slash, service = rest.partition("/")
        if scheme != SCHEME or not separator or not slash:
            raise BadURL(f"not of the form {SCHEME}://app/Service: {text!r}")
        return cls(name(app, "app", text), name(service, "service", text))


def name(value: Any, what: str, within: object = None) -> str:
    """Return the name of an app or a service, if it is one. Raise `BadURL` otherwise."""
    if isinstance(value, str) and _NAME.fullmatch(value):
        return value
    where = "" if within is None else f" in {within!r}"
    raise BadURL(f"the name of {what} has 1 to 64 characters, no blanks and none of / ? #; got {value!r}{where}")
