"""Print the lowest version of each dependency that pyproject.toml allows, as constraints for pip: `make minimum`."""

import re
import tomllib
from collections.abc import Iterator

from tests.processes import ROOT


def constraints() -> Iterator[str]:
    """Yield `name==version` for each dependency of users; the tools of development may be as new as they like."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    stores = [*extras["postgresql"], *extras["redis"], *extras["etcd"], *extras["zookeeper"]]
    for requirement in [*project["dependencies"], *extras["metrics"], *extras["celery"], *stores]:
        bound = re.fullmatch(r"([\w.-]+)(?:\[\w+\])?>=([\w.]+)", requirement)
        assert bound, f"{requirement!r} in pyproject.toml has no lower bound of the form name>=version"
        yield f"{bound[1]}=={bound[2]}"


if __name__ == "__main__":
    print("\n".join(constraints()))
