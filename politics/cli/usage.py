"""How commands look to people: the text of --help, plain and 80 columns wide, and a hint where `--` is missing."""

import re
from typing import Any

from typer.core import TyperCommand, TyperGroup

DASHES = "-- "
"""How the metavar of an argument begins that takes all the words after `--`."""
NEGATIVE = r"-((0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?|Infinity)"
"""A number in JSON that looks like an option."""


class Command(TyperCommand):
    """A command whose help names arguments and options as they are typed."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return ["[OPTIONS]", *(usage(param) for param in self.get_params(ctx) if is_argument(param))]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        write_options(self.get_params(ctx), formatter)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        passes_on = any(str(param.metavar).startswith(DASHES) for param in self.get_params(ctx))
        forgotten = passes_on and "--" not in args
        try:
            return super().parse_args(ctx, args)
        except Exception as exc:
            if forgotten and hasattr(exc, "option_name"):
                exc.message = f"{exc.message}. If this is an option of COMMAND, write -- before COMMAND."  # type: ignore[attr-defined]
            raise


class NumbersAreArguments(Command):
    """A command to which `-3` is an argument and no option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words of the command. A blank before a number hides its sign, and means nothing in JSON."""
        return super().parse_args(ctx, [f" {word}" if re.fullmatch(NEGATIVE, word) else word for word in args])


class Group(TyperGroup):
    """A group of commands that are listed with their whole first sentences."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        write_options(self.get_params(ctx), formatter)
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.help) for name, command in self.commands.items()])


def write_options(params: list[Any], formatter: Any) -> None:
    """Write two lists: the arguments, and the options."""
    for title, wanted in (("Arguments", True), ("Options", False)):
        rows = [(label(param), explanation(param)) for param in params if is_argument(param) is wanted]
        if rows:
            with formatter.section(title):
                formatter.write_dl(rows)


def is_argument(param: Any) -> bool:
    """Return whether it is an argument and not an option."""
    return bool(param.param_type_name == "argument")


def usage(argument: Any) -> str:
    """Return an argument as the line "Usage" has it: `NAME`, `-- COMMAND...` or `[GROUP...]`."""
    text = f"{argument.metavar}{'...' if argument.nargs == -1 else ''}"
    return text if argument.required else f"[{text}]"


def label(param: Any) -> str:
    """Return the name of an argument, or an option as it is typed."""
    if is_argument(param):
        return str(param.metavar).removeprefix(DASHES)
    names = ", ".join([*sorted(param.opts, key=len), *param.secondary_opts])
    return names if param.is_flag else f"{names} {param.metavar or param.name.upper()}"


def explanation(param: Any) -> str:
    """Return the help of a parameter, with its default and the variable that may hold its value."""
    told, default = getattr(param, "show_default", False), getattr(param.default, "value", param.default)
    if isinstance(told, str):
        default = told
    elif not told or default is None or getattr(param, "is_flag", False):
        default = ""
    elif isinstance(default, float):
        default = f"{default:g}"
    shown = f" [default: {default}]" if default != "" else ""
    return f"{param.help}{shown}{f' [${param.envvar}]' if param.envvar else ''}"


def help_of(docstring: str) -> str:
    """Return a docstring as help: each paragraph is one line, to be wrapped to the terminal; an example stays whole."""
    paragraphs = [" ".join(text.split()) for text in docstring.split("\n\n")]
    return "\n\n".join(
        f"\b\n{text}".replace(": ", ":\n  ", 1) if text.startswith("Example: ") else text for text in paragraphs
    )
