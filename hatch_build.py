"""What a package index shows of the project: a README whose links work there, and where the project is found.

The address of the project is known to whoever publishes it. So it comes from the environment of the build, as the URL
under which the files can be read:

    POLITICS_URL=https://example.org/politics/tree/main python -m hatchling build

Without it the package is the same, and the README names the files instead of linking them.
"""

import os
import re
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface


def linked(readme: str, base: str) -> str:
    """Return the README with links to files under `base`, or with their text alone if that is empty. No picture."""
    text = re.sub(r"!\[[^]]*\]\([^)]*\)\n*", "", readme)
    return re.sub(r"\[([^]]*)\]\((?!\w+:|#)([^)]*)\)", rf"[\1]({base}/\2)" if base else r"\1 (\2)", text)


class CustomMetadataHook(MetadataHookInterface):
    """Adds to the metadata what pyproject.toml calls dynamic."""

    def update(self, metadata: dict[str, object]) -> None:
        """Set the README and the URLs."""
        base = os.environ.get("POLITICS_URL", "").rstrip("/")
        readme = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": linked(readme, base)}
        pages = {"Homepage": "", "Documentation": "/docs/cli.md", "Changelog": "/CHANGELOG.md"}
        metadata["urls"] = {name: base + path for name, path in pages.items()} if base else {}
