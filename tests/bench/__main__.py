"""Print the table of all benchmarks, or of those named on the command line."""

import importlib
import operator
import pkgutil
import re
import sys

from rich.console import Console
from rich.progress import track
from rich.table import Table

import tests.bench

names = sys.argv[1:] or sorted(m.name for m in pkgutil.iter_modules(tests.bench.__path__) if m.name[0] != "_")


def verdict(figure: str, ratio: str, aim: str) -> str:
    """Return "missed" if the ratio is not what the aim says; only aims such as `<= 1.5` can be judged."""
    judged = re.fullmatch(r"(<=?|>=?) ([\d.]+)", aim)
    if figure.startswith("missing") or not judged:
        return ""
    met = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}[judged[1]]
    return "" if met(float(ratio), float(judged[2])) else "missed"


table = Table("what", "figure", "ratio", "aim", "", title="benchmarks", title_justify="left", box=None)
progress = Console(stderr=True)
for name in track(names, "measuring", console=progress, transient=True):
    for row in importlib.import_module(f"tests.bench.{name}").rows():
        progress.print(f"  {row[0]}: {row[1]}")
        table.add_row(*row, verdict(*row[1:]))
Console(width=None if sys.stdout.isatty() else 160).print(table)
