"""`Proxy`, which stands for an object in another process."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from discovery.errors import BadTime
from discovery.remote.address import Address

__all__ = ["Caller", "Proxy", "address_of", "within"]


class Caller(Protocol):
    """What a proxy needs of its client."""

    def call(
        self,
        address: Address,
        method: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        within: float | None = None,
    ) -> Any:
        """Call a method of the object at an address, within so many seconds, and return or raise what it does."""
        ...


class Proxy:
    """Call the public methods of an object in another process as if it were here. For any thread.

    Two proxies are equal when they stand for the same object. The idea is DRb's.
    """

    __slots__ = ("_address", "_client", "_within")

    def __init__(self, client: Caller, address: Address) -> None:
        self._client, self._address = client, address
        self._within: float | None = None

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(f"only public methods can be called from afar, not {name!r}")
        return lambda *args, **kwargs: self._client.call(self._address, name, args, kwargs, within=self._within)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._client.call(self._address, "__call__", args, kwargs, within=self._within)

    def __repr__(self) -> str:
        return f"<Proxy {self._address}>"

    def __eq__(self, other: object) -> bool:
        return self._address == other._address if isinstance(other, Proxy) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._address)


def address_of(proxy: Proxy) -> Address:
    """Return the address of the object that a proxy stands for."""
    return proxy._address


P = TypeVar("P", bound=Proxy)


def within(proxy: P, seconds: float) -> P:
    """Return a proxy for the same object whose calls raise `CallTimeout` when they take longer than so many seconds.

    Whether such a call was executed is not known then.
    """
    if not seconds > 0:
        raise BadTime(f"a call takes more than 0 seconds, so it cannot be done within {seconds!r}")
    limited = copy.copy(proxy)
    limited._within = seconds
    return limited
