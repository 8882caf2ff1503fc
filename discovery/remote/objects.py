"""What this process serves: which objects, under which addresses, and which of their methods."""

import secrets
import threading
from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar

from discovery.errors import NoSuchMethod, NoSuchObject
from discovery.fork import ForkGuard
from discovery.remote.address import Address

__all__ = ["ObjectTable", "by_reference", "goes_by_reference", "method"]

T = TypeVar("T")

# Of all servers of this process, so that what one of them serves is known by all, and comes home as itself.
addresses: dict[int, Address] = {}
objects: dict[Address, Any] = {}


class ObjectTable:
    """The objects of one server, by id. For any thread.

    Args:
        keep: Seconds for which an object that is only lent is kept after its last use.
        clock: Seconds since some fixed moment.
    """

    def __init__(self, *, keep: float, clock: Callable[[], float]) -> None:
        self._keep, self._clock = keep, clock
        self._lock = threading.RLock()
        self._objects: dict[str, Any] = {}
        self._lent: dict[str, float] = {}  # until when each is kept
        self._barred: dict[str, Exception] = {}
        self._next_look = 0.0
        self.host, self.port = "", 0

    def add(self, target: Any, object_id: str | None = None) -> Address:
        """Serve an object, by default under an id that nobody can guess.

        Raises:
            ValueError: The id is taken, or it cannot be part of an address.
        """
        address = Address(object_id or secrets.token_urlsafe(16), self.host, self.port)
        if object_id is not None:
            Address.parse(str(address))
        with self._lock:
            if address.object_id in self._objects:
                raise ValueError(f"{self.host}:{self.port} already serves something as {object_id!r}")
            self._objects[address.object_id] = target
            addresses[id(target)] = address
            objects[address] = target
        return address

    def lend(self, target: Any, keep: float = 0.0) -> Address:
        """Serve an object for as long as it is used, and `keep` seconds more; return its address."""
        with self._lock:
            address = addresses.get(id(target))
            if address is None:
                address = self.add(target)
                self._lent[address.object_id] = 0.0
            self._used(address.object_id, keep)
            return address

    def alias(self, target: Any) -> Address:
        """Return another address for an object, which is not the one that others hear of when the object is sent."""
        address = Address(secrets.token_urlsafe(16), self.host, self.port)
        with self._lock:
            self._objects[address.object_id] = target
        return address

    def bar(self, object_id: str, error: Exception | None) -> None:
        """Refuse calls to an address with this error, until it is barred with None."""
        with self._lock:
            if error is None:
                self._barred.pop(object_id, None)
            else:
                self._barred[object_id] = error

    def find(self, object_id: Any) -> Any:
        """Return the object with that id, which counts as a use of it.

        Raises:
            NoSuchObject: There is none, or no longer.
        """
        with self._lock:
            if object_id in self._barred:
                raise self._barred[object_id].with_traceback(None)
            if object_id in self._lent:
                if self._lent[object_id] <= self._clock():
                    self._remove(object_id)
                self._used(object_id, 0.0)
            if object_id not in self._objects:
                raise NoSuchObject(f"nothing is served as {object_id!r} here, or no longer")
            return self._objects[object_id]

    def remove(self, target: Any) -> None:
        """Serve an object no longer, whatever its ids."""
        with self._lock:
            for object_id in [known for known, served in self._objects.items() if served is target]:
                self._remove(object_id)

    def remove_alias(self, address: Address) -> None:
        """Refuse an address from now on."""
        with self._lock:
            if address.object_id in self._objects:
                self._remove(address.object_id)

    def clear(self) -> None:
        """Serve nothing any longer."""
        with self._lock:
            for object_id in list(self._objects):
                self._remove(object_id)

    def let_go(self) -> None:
        """Forget what was lent and has not been used for a while. Call it now and then; it is cheap."""
        now = self._clock()
        with self._lock:
            if now >= self._next_look:
                self._next_look = now + self._keep
                for object_id in [lent for lent, until in self._lent.items() if until <= now]:
                    self._remove(object_id)

    def __len__(self) -> int:
        return len(self._objects)

    def _remove(self, object_id: str) -> None:
        address = Address(object_id, self.host, self.port)
        target = self._objects.pop(object_id)
        self._barred.pop(object_id, None)
        self._lent.pop(object_id, None)
        objects.pop(address, None)
        if addresses.get(id(target)) == address:
            del addresses[id(target)]

    def _used(self, object_id: str, keep: float) -> None:
        if object_id in self._lent:
            until = self._clock() + max(keep, self._keep)
            self._lent[object_id] = max(self._lent[object_id], until)


def by_reference(cls: type[T]) -> type[T]:
    """Mark a class: its instances, and those of its subclasses, travel by reference, and are lent when they do."""
    cls._by_reference = True  # type: ignore[attr-defined]
    return cls


def goes_by_reference(value: Any) -> bool:
    """Return whether a value is served, or of a class that is marked."""
    return id(value) in addresses or getattr(type(value), "_by_reference", False)


def method(target: Any, name: str) -> Callable[..., Any]:
    """Return the public method of that name. Only classes are searched, so this runs none of the object's code.

    `new` of a class that has no such method makes an instance.

    Raises:
        NoSuchMethod: There is none.
    """
    if name == "__call__" and isinstance(target, type | FunctionType):
        return target
    kind = target if isinstance(target, type) else type(target)
    if not name.startswith("_"):
        found = None
        for cls in kind.__mro__:
            if name in cls.__dict__:
                found = cls.__dict__[name]
                break
        of_class = isinstance(found, (classmethod, staticmethod))
        if of_class or (callable(found) and not isinstance(found, type) and kind is not target):
            return getattr(target, name)  # type: ignore[no-any-return]
        if name == "new" and found is None and kind is target:
            return target
    raise NoSuchMethod(f"{kind.__qualname__} has no public method {name!r}")


def _forget() -> None:
    addresses.clear()
    objects.clear()


_guard = ForkGuard(_forget)  # a forked child serves none of its parent's objects
