"""Cells in a table of PostgreSQL 13 or later: leases that outlive every restart, and hints of changes."""

from urllib.parse import SplitResult

from election.stores.postgresql.register import PostgreSQLRegister
from election.stores.urls import pop_timeout

__all__ = ["PostgreSQLRegister", "connect"]


def connect(parts: SplitResult, options: dict[str, str]) -> PostgreSQLRegister:
    """Return the register for a URL as libpq reads it, with the option `timeout`, the seconds for each answer.

    Raises:
        ValueError: libpq cannot read it, or the timeout makes no sense.
    """
    timeout = pop_timeout(options, 1)
    options.clear()  # libpq knows the others, or says that it does not
    query = "&".join(each for each in parts.query.split("&") if not each.startswith("timeout="))
    fragment = f"#{parts.fragment}" if parts.fragment else ""
    return PostgreSQLRegister(f"postgresql://{parts.netloc}{parts.path}?{query}{fragment}", timeout)
