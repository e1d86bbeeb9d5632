"""What the serving process loads at start, by itself: the control process may be down, and patients do not wait."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

import msgspec

from edgeward_agent.errors import ModelError
from edgeward_agent.serving.registry import Registry
from edgeward_agent.serving.release import load_release
from edgeward_contract.artifact import ModelName, Sha256

_log: Final = logging.getLogger(__name__)


class BootModel(msgspec.Struct, frozen=True):
    """A committed release: its folder and what must be in it."""

    name: str
    version: int
    sha256: str
    path: str


class BootList(msgspec.Struct, frozen=True):
    """boot.json, as the control process writes it."""

    models: list[BootModel]


def read_boot(path: Path) -> list[BootModel]:
    """What to load; nothing when the file is missing (a new device) or damaged (the control process loads again)."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=BootList).models
    except FileNotFoundError:
        return []
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        _log.error("%s: expected the list of committed models, got: %s", path, error)
        return []


def boot(registry: Registry, path: Path) -> None:
    """Load what was committed. A release that does not load is reported, and the others answer."""
    for each in read_boot(path):
        try:
            name, sha256 = ModelName(each.name), Sha256(each.sha256)
            version = load_release(name, sha256, each.version, Path(each.path), registry.loading)
        except ModelError as error:
            _log.error("not served: %s", error)
            registry.expect(ModelName(each.name))
        else:
            registry.adopt(version)
