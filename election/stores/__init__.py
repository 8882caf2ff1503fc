"""The stores: `open_register(url)`, and one adapter per file."""

from urllib.parse import parse_qsl, urlsplit

from election.errors import BadStoreURL
from election.register import Register

__all__ = ["open_register"]

EXAMPLES = "memcached://10.0.0.5:11211, sqlite:////var/lib/politics.db or memory://"


def open_register(url: str) -> Register:
    """Return the register behind a URL; nothing is connected yet.

    URLs are `memcached://host[:port][,host[:port]…]`, `sqlite:///path` (relative, `sqlite:////absolute` or with `~`)
    and `memory://` (this process only). memcached has one option, after `?`: `timeout`, the seconds that one answer
    may take (0.5).

    Raises:
        BadStoreURL: the URL is none of these; the message names it.
    """
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
    except (ValueError, TypeError, AttributeError) as exc:
        raise BadStoreURL(f"{url!r} is no store URL: {exc}; try {EXAMPLES}") from exc
    # The adapters are imported here so that you need, and pay for, only the one that you use.
    try:
        if parts.scheme == "memcached":
            from election.stores.memcached import connect

            timeout = float(options.pop("timeout", "0.5"))
            register = connect(parts.netloc, timeout)
        elif parts.scheme == "sqlite":
            from election.stores.sqlite import SQLiteRegister

            register = SQLiteRegister(parts.netloc + parts.path.removeprefix("/"))
        elif parts.scheme == "memory":
            from election.stores.memory import shared

            register = shared(parts.netloc)
        else:
            raise ValueError(f"nothing is known of {parts.scheme + '://' if parts.scheme else 'such an address'}")
        if options:
            raise ValueError(f"unknown option {', '.join(options)}")
    except ValueError as exc:
        raise BadStoreURL(f"{url!r} is no store URL: {exc}; try {EXAMPLES}") from exc
    return register
