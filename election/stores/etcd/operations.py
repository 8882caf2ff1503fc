"""etcd's operations, as the JSON of its gateway: bytes in base64, numbers of 64 bits in strings, zeros left out."""

from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Any

Json = dict[str, Any]


def revision(answer: Json) -> int:
    """Return the cluster's revision, after what was answered."""
    return int(answer["header"]["revision"])


def base64(value: str | bytes) -> str:
    """Return bytes, or a text in UTF-8, as the gateway wants them."""
    return b64encode(value.encode() if isinstance(value, str) else value).decode()


def compare(key: str, *, value: bytes | None = None, mod: int = 0) -> Json:
    """Compare a key's value, or the revision at which it was written; 0: it is not there."""
    if value is not None:
        return {"key": base64(key), "target": "VALUE", "result": "EQUAL", "value": base64(value)}
    return {"key": base64(key), "target": "MOD", "result": "EQUAL", "mod_revision": str(mod)}


def put(key: str, value: bytes) -> Json:
    """Write a key."""
    return {"request_put": {"key": base64(key), "value": base64(value)}}


def key_range(key: str, *, keys_only: bool = False, below: bool = False) -> Json:
    """Read a key, or all that begin with it; with or without the values."""
    return {"request_range": (all_below(key) if below else {"key": base64(key)}) | {"keys_only": keys_only}}


def all_below(prefix: str) -> Json:
    """Return the range of all keys that begin with `prefix`."""
    end = prefix.encode()
    return {"key": base64(prefix), "range_end": base64(end[:-1] + bytes([end[-1] + 1]))}


def transaction(compare: Sequence[Json], success: Sequence[Json], failure: Sequence[Json] = ()) -> Json:
    """Do a transaction within another one."""
    return {"request_txn": {"compare": list(compare), "success": list(success), "failure": list(failure)}}


def found(said: Json) -> tuple[bytes, int] | None:
    """Return the value and the `mod_revision` of the first key of a range; None if there is none."""
    for each in said.get("kvs", ()):
        return b64decode(each.get("value", "")), int(each["mod_revision"])
    return None
