"""The console script `politics`, and `python -m politics`."""

import sys


def main() -> None:
    """Run the command line. Ctrl-C ends it quietly with status 130, also while it is still being imported."""
    try:
        from politics.cli import main

        main()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
