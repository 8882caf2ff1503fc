"""The `politics` command line: thin typer commands that parse, call and print."""

import sys

from discovery import DiscoveryError
from discovery.errors import BadAnnouncement, BadTime, BadURL
from election import BadPolicy, BadStoreURL, ElectionError
from politics.cli import demo, doctor, lock, resign, ring, run, services, status
from politics.cli.common import app, complain

__all__ = ["app", "demo", "doctor", "lock", "main", "resign", "ring", "run", "services", "status"]


def main() -> None:
    """Run the command line (the console script `politics`): exit 0 done, 1 failed, 2 wrong usage."""
    try:
        app()
    except (BadStoreURL, BadPolicy, BadAnnouncement, BadTime, BadURL) as exc:
        complain(exc)
        sys.exit(2)
    except (DiscoveryError, ElectionError) as exc:
        complain(exc)
        sys.exit(1)
