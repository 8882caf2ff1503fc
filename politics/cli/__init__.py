"""The `politics` command line: thin typer commands that parse, call and print."""

import typer

app = typer.Typer(name="politics", no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")


def main() -> None:
    """Run the command line (the console script `politics`)."""
    app()
