"""Run `politics` in this process: for tests that are not about processes, signals or terminals."""

import contextlib
import io
import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

from politics.cli import main


class Result(NamedTuple):
    """How a command ended, and what it printed."""

    status: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """All that it printed, as one line without the frames around messages."""
        return " ".join(re.sub("[│╭╮╰╯─]", " ", self.out + self.err).split())


def politics(*words: object, cwd: Path | None = None, **environment: str) -> Result:
    """Run a command with these words, in this folder and with these variables; all is as before when it ends."""
    argv, path, variables, folder = sys.argv, sys.path.copy(), os.environ.copy(), Path.cwd()
    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["politics", *map(str, words)]
    os.environ.update({"COLUMNS": "300"} | environment)
    try:
        os.chdir(cwd or folder)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = _status()
    finally:
        sys.argv, sys.path[:] = argv, path
        os.environ.clear()
        os.environ.update(variables)
        os.chdir(folder)
    return Result(status, out.getvalue(), err.getvalue())


def _status() -> int:
    try:
        main()
    except SystemExit as exc:
        return int(exc.code or 0)
    raise AssertionError("the command line ends with an exit status")
