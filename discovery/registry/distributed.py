"""The short form: `Distributed.User("bob")`, and `@distributable` for what is found so. The idea is Distribunaut's."""

from __future__ import annotations

import os
import threading
from typing import Any, TypeVar

from discovery.registry.registry import Registry

T = TypeVar("T", bound=type)
_registry: Registry | None = None
_waiting: list[tuple[type, str]] = []
_lock = threading.RLock()


def use_registry(registry: Registry) -> Registry:
    """Makes a registry the default one of this process, registers every `distributable` class, and returns it.

    Raises what `Registry.register` raises.
    """
    global _registry
    with _lock:
        _registry = registry
        while _waiting:
            cls, description = _waiting[0]
            registry.register(cls.__name__, cls, description)
            del _waiting[0]
    return registry


def default_registry() -> Registry:
    """The registry behind `Distributed`: that of `use_registry`, else one with default settings."""
    with _lock:
        return _registry or use_registry(Registry())


def distributable(cls: T) -> T:
    """Registers a class under its name, described by the first line of its docstring.

    At once where there is a default registry, otherwise as soon as there is one: importing a module touches no network.
    """
    description = (cls.__doc__ or "").strip().partition("\n")[0][:200]
    with _lock:
        if _registry is None:
            _waiting.append((cls, description))
        else:
            _registry.register(cls.__name__, cls, description)
    return cls


class _Distributed:
    """`Distributed.User` is `default_registry().find("User")`: any provider's, each in turn."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"no service has a name like {name!r}")
        return default_registry().find(name)

    def __repr__(self) -> str:
        return f"<Distributed, by {_registry!r}>"


def _forked() -> None:
    global _registry, _lock
    _registry, _lock = None, threading.RLock()


Distributed = _Distributed()
os.register_at_fork(after_in_child=_forked)
