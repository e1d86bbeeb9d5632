"""What of a model is on the device: the slots `current`, `candidate` and `previous`. Pure values."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgeward_contract.artifact import Sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A release whose folder is complete on this disk."""

    version: int
    sha256: Sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """`current` is what boots, `candidate` what is on trial, `previous` what can come back without a download."""

    current: Installed | None = None
    candidate: Installed | None = None
    previous: Installed | None = None

    def with_candidate(self, candidate: Installed) -> Slots:
        return replace(self, candidate=candidate)

    def committed(self) -> Slots:
        """Candidate becomes current, current becomes previous. Without a candidate nothing changes."""
        if self.candidate is None or self.candidate == self.current:
            return replace(self, candidate=None)
        return Slots(current=self.candidate, previous=self.current)

    def rolled_back(self) -> Slots:
        return replace(self, candidate=None)

    def kept(self) -> frozenset[Sha256]:
        """The releases that no clean-up may touch."""
        return frozenset(each.sha256 for each in (self.current, self.candidate, self.previous) if each)

    def name_of(self, sha256: Sha256) -> str:
        """`current`, `candidate`, `previous`, or `none` for a release in no slot."""
        for name, installed in (("candidate", self.candidate), ("current", self.current), ("previous", self.previous)):
            if installed and installed.sha256 == sha256:
                return name
        return "none"
