"""The stores: `open_register(url)`, and one adapter per file."""

import importlib
import re
from urllib.parse import parse_qsl, urlsplit

from election.errors import BadStoreURL
from election.register import Register

__all__ = ["open_register"]

EXAMPLES = "memcached://10.0.0.5:11211, postgresql://user@10.0.0.5/database, redis://10.0.0.5/0, etcd://a,b,c, "
EXAMPLES += "zookeeper://a,b,c, sqlite:////var/lib/politics.db or memory://"
UNESCAPED = "write what is no letter or digit in a password as % and its number: %3A %2F %40 %3F %23 for : / @ ? #"
ADAPTERS = {
    "memcached": "memcached",
    "memcacheds": "memcached",
    "quorum+memcached": "quorum",
    "sqlite": "sqlite",
    "memory": "memory",
    "postgresql": "postgresql",
    "postgres": "postgresql",
    "redis": "redis",
    "rediss": "redis",
    "redis+unix": "redis",
    "etcd": "etcd",
    "etcds": "etcd",
    "zookeeper": "zookeeper",
}
"""Each scheme, and the module whose `connect(parts, options)` makes the register.

It takes from `options` what it knows. It raises ValueError for what makes no sense, ImportError without its library.
"""
EXTRAS = {each: each for each in ("postgresql", "redis", "etcd", "zookeeper")}
"""Each module that needs a library which not everyone has, and the extra that installs it."""


def open_register(url: str) -> Register:
    """Return the register behind a URL; nothing is connected yet.

    | URL | |
    |---|---|
    | `memcached://host[:port][,…]` | several servers share the names; `user:password@` before them; `///path.sock` |
    | `memcacheds://…` | the same with TLS; options `ca`, `cert`, `key` |
    | `quorum+memcached://a,b,c` | one register out of 3, 5, 7 or 9 memcacheds, of which a minority may fail |
    | `postgresql://user:password@host/database` | with all options of libpq |
    | `redis://user:password@host:port/db` | `rediss://…` with TLS, `redis+unix:///path?db=0` |
    | `etcd://a,b,c[/prefix]`, `etcds://…` | `user:password@` before them; options `ca`, `cert`, `key` |
    | `zookeeper://a,b,c[/prefix]` | the same |
    | `sqlite:///path` | relative; `sqlite:////absolute` or with `~` |
    | `memory://` | this process only |

    All but the last two have the option `timeout`, after `?`: the seconds that one answer may take (by default 0.5 or
    1). docs/stores.md has the rest.

    Raises:
        BadStoreURL: the URL is none of these, or its library is missing. The message names it, without its password.
    """
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
    except (ValueError, TypeError, AttributeError) as exc:
        raise _bad(url, exc) from None
    module = ADAPTERS.get(parts.scheme, "")
    try:
        if not module:
            raise ValueError(f"nothing is known of {parts.scheme + '://' if parts.scheme else 'such an address'}")
        # Imported here so that you need, and pay for, only the one that you use.
        register: Register = importlib.import_module(f"election.stores.{module}").connect(parts, options)
        if options:
            raise ValueError(f"unknown option {', '.join(options)}")
    except ValueError as exc:
        raise _bad(url, exc) from None
    except ImportError as exc:
        if module not in EXTRAS:
            raise
        extra = EXTRAS[module]
        raise BadStoreURL(f"{redacted(url)!r} needs a library: pip install 'politics[{extra}]' ({exc})") from exc
    return register


# Up to the last @: a password may have any of the characters that end it in a well-formed URL.
_PASSWORDS = re.compile(r"(://[^/?@:]*:)(.*)(?=@)|((?<=[?&])\w*password=)[^&]*")


def _bad(url: object, exc: Exception) -> BadStoreURL:
    """Return an error that says what is wrong, and has no part of a password: `exc` may quote one."""
    found = _PASSWORDS.search(url) if isinstance(url, str) else None
    whole = found is None or not found[2] or (re.fullmatch(r"[!-~]+", found[2]) and not set("/?#@:[]") & set(found[2]))
    text = exc if whole else UNESCAPED
    return BadStoreURL(f"{redacted(url)!r} is no store URL: {text}; try {EXAMPLES}")


def redacted(url: object) -> object:
    """Return `url` as it may be shown: without its password."""
    return _PASSWORDS.sub(r"\1\3***", url) if isinstance(url, str) else url
