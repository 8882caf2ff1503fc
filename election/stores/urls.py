"""What the addresses of several stores have in common."""

import math
import os


def address(text: str, default_port: int) -> tuple[str, int]:
    """Return host and port of `host[:port]`; an IPv6 address stands in brackets.

    Raises:
        ValueError: it is none.
    """
    host, colon, port = text.strip().rpartition(":") if not text.endswith("]") else (text, "", "")
    if not colon:
        host, port = text.strip(), str(default_port)
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{text!r} is not host:port")
    return host, int(port)


def pop_files(options: dict[str, str]) -> dict[str, str | None]:
    """Take away the options for TLS: `ca`, `cert` and `key`, each None if it is not given.

    Raises:
        ValueError: one of them is no file.
    """
    files = {name: options.pop(name, None) for name in ("ca", "cert", "key")}
    for name, path in files.items():
        if path and not os.path.isfile(path):
            raise ValueError(f"{name}={path} is no file")
    return files


def pop_timeout(options: dict[str, str], default: float) -> float:
    """Take the option `timeout` away, and return its seconds.

    Raises:
        ValueError: they make no sense.
    """
    text = options.pop("timeout", str(default))
    try:
        timeout = float(text)
    except ValueError:
        timeout = math.nan
    if not 0 < timeout <= 60:
        raise ValueError(f"timeout={text} is not a number of seconds between 0 and 60")
    return timeout
