"""Record a run of `politics demo` as docs/demo.svg, the picture in the README.

    .venv/bin/python docs/record_demo.py

The picture loads nothing: the web font that rich names is replaced by the fonts of the reader's machine.
"""

import io
import re
from pathlib import Path

from politics.cli import app
from politics.cli.common import out, styled

WIDTH = 108  # columns; the longest line of the demo fits


def main() -> None:
    """Run the demo, and write what it printed."""
    out.record, out.width, out.file = True, WIDTH, io.StringIO()
    out.print(styled(("$ politics demo", "bold")))
    app(["demo"], standalone_mode=False)
    svg = out.export_svg(title="politics demo", font_aspect_ratio=0.61, unique_id="demo")
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    svg = svg.replace("font-family: Fira Code, monospace", "font-family: ui-monospace, Menlo, Consolas, monospace")
    svg = re.sub(r"[ \t]+$|^\s*<!--.*?-->\n", "", svg, flags=re.MULTILINE)
    Path(__file__).with_name("demo.svg").write_text(svg)


if __name__ == "__main__":
    main()
