"""`Proxy`, which stands for an object in another process."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from discovery.remote.address import Address

__all__ = ["Caller", "Proxy", "address_of"]


class Caller(Protocol):
    """What a proxy needs of its client."""

    def call(
        self, address: Address, method: str, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call a method of the object at an address, and return or raise what it does."""
        ...


class Proxy:
    """Call the public methods of an object in another process as if it were here. For any thread.

    Two proxies are equal when they stand for the same object. The idea is DRb's.
    """

    __slots__ = ("_address", "_client")

    def __init__(self, client: Caller, address: Address) -> None:
        self._client, self._address = client, address

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(f"only public methods can be called from afar, not {name!r}")
        return lambda *args, **kwargs: self._client.call(self._address, name, args, kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._client.call(self._address, "__call__", args, kwargs)

    def __repr__(self) -> str:
        return f"<Proxy {self._address}>"

    def __eq__(self, other: object) -> bool:
        return self._address == other._address if isinstance(other, Proxy) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._address)


def address_of(proxy: Proxy) -> Address:
    """Return the address of the object that a proxy stands for."""
    return proxy._address
