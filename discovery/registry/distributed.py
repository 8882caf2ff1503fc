"""The short form: `Distributed.User("bob")` finds what `@distributable` registers. The idea is Distribunaut's."""

from __future__ import annotations

import threading
from typing import Any, TypeVar

from discovery.fork import ForkGuard
from discovery.registry.registry import Registry

T = TypeVar("T", bound=type)
_registry: Registry | None = None
_waiting: list[tuple[type, str]] = []
_lock = threading.Lock()


def use_registry(registry: Registry) -> Registry:
    """Make a registry the default one of this process, register every `distributable` class, and return it.

    Raises:
        ServiceTaken: another process offers a class of that name; see `Registry.register` for what else is raised.
    """
    global _registry
    with _lock:
        _registry = registry
    while True:
        with _lock:
            if not _waiting:
                return registry
            cls, description = _waiting.pop(0)
        try:
            registry.register(cls.__name__, cls, description)  # which listens, so without the lock
        except BaseException:
            with _lock:
                _waiting.insert(0, (cls, description))
            raise


def default_registry() -> Registry:
    """Return the registry behind `Distributed`: that of `use_registry`, else one with default settings."""
    global _registry
    with _lock:
        if _registry is not None:
            return _registry
        _registry = registry = Registry()
    return use_registry(registry)


def distributable(cls: T) -> T:
    """Register a class under its name, described by the first line of its docstring. Return the class.

    It is registered at once where there is a default registry, otherwise as soon as there is one: importing a module
    touches no network.
    """
    description = (cls.__doc__ or "").strip().partition("\n")[0][:200]
    with _lock:
        registry = _registry
        if registry is None:
            _waiting.append((cls, description))
    if registry is not None:
        registry.register(cls.__name__, cls, description)
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
    _registry, _lock = None, threading.Lock()


Distributed = _Distributed()
_guard = ForkGuard(_forked)
