"""How errors travel: by name and words, and as themselves where they are Python's or ours."""

import os
import traceback
from collections.abc import Callable
from typing import Any

from discovery import errors
from discovery.errors import CannotTravel, DiscoveryError, RemoteError
from discovery.remote.encoding.values import class_name, text_of

__all__ = ["pack_error", "unpack_error"]

_ERRORS: dict[str, type[Exception]] = {
    f"{kind.__module__}.{kind.__qualname__}": kind
    for kind in [*vars(__import__("builtins")).values(), *vars(errors).values()]
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, SyntaxError)
}  # printing a SyntaxError draws as many carets as it says
_ATTRIBUTES: dict[str, type] = {"maybe_executed": bool, "value": object, "type_name": str, "remote_traceback": str}


def pack_error(error: Exception, pack: Callable[[Any], Any]) -> list[Any]:
    """Return the class's name, the message, what it was made of if that can be sent, and where it was raised."""
    try:
        attributes = {name: getattr(error, name) for name in _ATTRIBUTES if name in vars(error)}
        made_of = pack([list(error.args), attributes])
    except CannotTravel:
        made_of = None
    return [class_name(type(error)), str(error), made_of, _trace(error)[-20_000:]]


def _trace(error: Exception) -> str:
    """Return where an error was raised, and what caused it, without the folders of this machine."""
    if error.__traceback__ is None:
        return ""
    told = traceback.TracebackException.from_exception(error, limit=-20)
    following = [told]
    while following:
        part = following.pop()
        for frame in part.stack:
            frame.filename = os.path.basename(frame.filename)
        following += [each for each in (part.__cause__, part.__context__, *(part.exceptions or ())) if each]
    return "".join(told.format())


def unpack_error(body: list[Any]) -> Exception:
    """Return the error that was sent, or a `RemoteError` that tells of it."""
    name, message, made_of, trace = body
    error = _rebuilt(_ERRORS.get(text_of(name)), made_of) or RemoteError(name, text_of(message), text_of(trace))
    if text_of(trace):
        error.add_note(f"Raised at the other side:\n{trace.rstrip()}")
    return error


def _rebuilt(kind: type[Exception] | None, made_of: Any) -> Exception | None:
    """Return the same error again; None if its class is not one of Python's or ours, or cannot be made of this."""
    if kind is None or made_of is None:
        return None
    args, attributes = made_of
    try:
        error = kind.__new__(kind, *args)
        if isinstance(error, DiscoveryError):
            error.args = tuple(args)
            for attribute, value in attributes.items():
                if hasattr(kind, attribute) and isinstance(value, _ATTRIBUTES.get(attribute, ())):
                    setattr(error, attribute, value)
            return error
        kind.__init__(error, *args)
        if isinstance(error, UnicodeDecodeError | UnicodeEncodeError | UnicodeTranslateError):
            # To print one that is elsewhere would read what is not there.
            return error if 0 <= error.start <= error.end <= len(error.object) else None
    except Exception:  # noqa: BLE001 - a stranger's arguments
        return None
    return error
