"""Whether `election` and `discovery` are ours: a program may have a module of its own of one of these names."""

import importlib.util
import sys
from pathlib import Path

HERE = Path(__file__).parents[1]
"""The folder in which the three packages are installed beside each other."""
ROOMS = {"election": "stores", "discovery": "beacon"}
"""Our other two packages, each with something that is in it."""


def check_neighbours() -> None:
    """Return if `import election` and `import discovery` give what is installed with `politics`. Imports neither.

    Raises:
        ImportError: another module has that name; the message says which file it is and what to do.
    """
    for name, room in ROOMS.items():
        spec = None if name in sys.modules else importlib.util.find_spec(name)
        origin = spec.origin if spec else getattr(sys.modules.get(name), "__file__", None)
        ours = HERE / name / "__init__.py"
        if origin is None:
            what = f"which is not installed beside it in {HERE}"
        elif Path(origin) != ours:
            what = f"but {origin} is imported in its place: rename that, or start the program from another folder"
        elif not (HERE / name / room).is_dir():
            what = f"but another distribution has been installed over it in {HERE}: use an environment without that one"
        else:
            continue
        raise ImportError(f"politics needs its own package {name!r}, {what}", name=name, path=origin)
