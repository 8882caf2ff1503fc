"""Lead in a program of your own: in a coroutine, or with anything that has a start and a stop."""

from politics.leading.awaited import AsyncTerm, lead, work_while_leading
from politics.leading.standing import Options, Standing
from politics.leading.started import WhileLeading, run_while_leading

__all__ = ["AsyncTerm", "Options", "Standing", "WhileLeading", "lead", "run_while_leading", "work_while_leading"]
