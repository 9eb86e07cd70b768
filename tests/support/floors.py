"""The lowest versions that pyproject.toml allows, as constraints for pip: `python -m tests.support.floors > file`."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path


def floors() -> list[str]:
    """Return `name==version` for each dependency that an application gets, those of the extra `cron` included."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    found = [*project["dependencies"], *project["optional-dependencies"]["cron"]]
    return [re.sub(r"^([\w-]+)(?:\[\w+\])?>=([\w.]+).*$", r"\1==\2", each) for each in found]


if __name__ == "__main__":
    sys.stdout.write("\n".join([*floors(), ""]))
