"""Commands exist without the extra that they need; this is how they say so.

The base install carries every package of the distribution and only numpy (see docs/adr/0002), so a command may be on
the PATH while a library that it needs is not there.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType


def load(module: str, *, extra: str) -> ModuleType:
    """Import `module`; when a library is missing, say in one line which extra brings it and exit with 2."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("edgeward_"):
            raise
        print(f"error: {error.name} is not installed\n  pip install 'edgeward[{extra}]'", file=sys.stderr)
        sys.exit(2)
