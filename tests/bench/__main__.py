"""Print the table of all benchmarks, or of those named on the command line."""

import importlib
import pkgutil
import sys

from rich.console import Console
from rich.progress import track
from rich.table import Table

import tests.bench

names = sys.argv[1:] or sorted(m.name for m in pkgutil.iter_modules(tests.bench.__path__) if m.name[0] != "_")
table = Table("what", "figure", "ratio", "aim", title="benchmarks", title_justify="left", box=None)
progress = Console(stderr=True)
for name in track(names, "measuring", console=progress, transient=True):
    for row in importlib.import_module(f"tests.bench.{name}").rows():
        progress.print(f"  {row[0]}: {row[1]}")
        table.add_row(*row)
Console(width=None if sys.stdout.isatty() else 160).print(table)
