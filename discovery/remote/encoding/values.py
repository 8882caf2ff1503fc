"""What arrives of a dataclass: an instance where its class is named with `by_value`, otherwise an `Unknown`."""

import dataclasses
from collections.abc import Callable, Collection
from typing import Any, TypeVar, overload

from discovery.errors import BadMessage, UnknownClass

__all__ = ["Unknown", "by_value", "class_name", "describe", "inside", "known", "parts", "text_of"]

T = TypeVar("T")
_CONTAINERS = (list, tuple, set, frozenset)
known: dict[str, type] = {}
"""The classes that were named with `by_value`, by name."""
_given: dict[type, str] = {}
"""The names that `by_value` was given."""


@dataclasses.dataclass(frozen=True, repr=False)
class Unknown:
    """A value of a class that this process has not named with `by_value`. It travels on as what it is."""

    class_name: str
    fields: dict[str, Any]

    def __repr__(self) -> str:
        return f"<Unknown {self.class_name} {', '.join(f'{k}={v!r}' for k, v in self.fields.items())}>"

    def __hash__(self) -> int:
        try:
            return hash((self.class_name, *self.fields.values()))
        except TypeError:
            return hash(self.class_name)

    def __getattr__(self, name: str) -> Any:
        hint = "decorate it with by_value"
        if self.class_name.startswith("__main__."):
            hint += (
                ', and if that is done, give it a name on both sides, @by_value(name="..."): '
                "its module is run as a program by the sender, and is called __main__ only there"
            )
        raise UnknownClass(f"{self.class_name} is not known here, so there is no {name!r}: {hint}")


@overload
def by_value(cls: type[T]) -> type[T]: ...
@overload
def by_value(*, name: str) -> Callable[[type[T]], type[T]]: ...
def by_value(cls: type[T] | None = None, *, name: str = "") -> type[T] | Callable[[type[T]], type[T]]:
    """Rebuild instances of this dataclass here, through its constructor, when they arrive.

    Any dataclass may be sent. A process that has not named its class gets an `Unknown` instead.

    Args:
        cls: The dataclass.
        name: The name under which it travels, the same on both sides; by default that of its module and its own. A
            module that is run as a program is called `__main__`, and something else where it is imported, so a class
            in it needs a name.

    Raises:
        TypeError: The class is no dataclass.
        ValueError: Another class has that name.
    """
    if cls is None:
        return lambda named: _named(named, name)
    return _named(cls, name)


def _named(cls: type[T], name: str) -> type[T]:
    if not dataclasses.is_dataclass(cls):
        raise TypeError(f"by_value is for dataclasses, which {cls!r} is not")
    if name:
        other = known.get(name, cls)
        if (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(f"{other!r} has the name {name!r} already, so {cls!r} needs another one")
        _given[cls] = name
    known[class_name(cls)] = cls
    return cls


def class_name(cls: type) -> str:
    """Return a class's name with its module's, by which it is known on both sides."""
    return _given.get(cls) or f"{cls.__module__}.{cls.__qualname__}"


def describe(value: Any) -> str:
    """Return how a value is shown in an error message: its `repr`, shortened, and its class."""
    text = repr(value)
    return f"{text if len(text) <= 80 else text[:77] + '...'} ({class_name(type(value))})"


def text_of(value: Any) -> str:
    """Return a text. Raise `BadMessage` for anything else, also for what only behaves like one."""
    if type(value) is not str:
        raise BadMessage(f"text expected, not {type(value).__name__}")
    return value


def parts(body: list[Any], *kinds: type) -> list[Any]:
    """Return the parts of a list. Raise `BadMessage` unless they are exactly of these classes."""
    if [type(part) for part in body] != [*kinds]:
        raise BadMessage(f"expected {', '.join(kind.__name__ for kind in kinds)}")
    return body


def inside(value: Any) -> Collection[Any]:
    """Return what a value holds that has come out of a message."""
    kind = type(value)
    if kind in _CONTAINERS:
        return value  # type: ignore[no-any-return]
    if kind is dict:
        return [*value.keys(), *value.values()]
    if kind is Unknown:
        return [value.fields]
    if isinstance(value, Exception):
        return [value.args, getattr(value, "value", None)]
    if known.get(class_name(kind)) is kind:
        return [getattr(value, field.name, None) for field in dataclasses.fields(value)]
    return ()
