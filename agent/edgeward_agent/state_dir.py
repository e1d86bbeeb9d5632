"""Every path of the state folder, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class StateDir:
    """The folder that makes this machine this device."""

    root: Path

    @property
    def identity(self) -> Path:
        return self.root / "identity"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def agent_pid(self) -> Path:
        """Locked while an agent runs."""
        return self.run / "agent.pid"

    @property
    def agent_socket(self) -> Path:
        return self.run / "agent.sock"

    @property
    def serving_pid(self) -> Path:
        return self.run / "serving.pid"

    @property
    def control_socket(self) -> Path:
        return self.run / "control.sock"

    @property
    def capture_socket(self) -> Path:
        return self.run / "capture.sock"

    @property
    def boot(self) -> Path:
        """What the serving process loads when it starts."""
        return self.root / "boot.json"

    @property
    def graphs(self) -> Path:
        """Graphs as the runtime optimised them for this device."""
        return self.root / "graphs"

    @property
    def outbox(self) -> Path:
        return self.root / "outbox.db"

    def inside(self, path: str) -> Path:
        """A path of the configuration: relative ones lie in the folder."""
        return self.root / path

    def make(self) -> None:
        """Only its owner may read what is in it: a key, models and results. Raises OSError.

        Others may pass through to a socket that is for them, but see nothing on the way.
        """
        self.root.mkdir(mode=0o711, parents=True, exist_ok=True)
        for folder in (self.run, self.root / "releases", self.root / "chunks", self.graphs):
            folder.mkdir(mode=0o700, exist_ok=True)
