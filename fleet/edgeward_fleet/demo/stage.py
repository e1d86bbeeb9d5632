"""Everything that stands ready before the first step: people, devices, patients, and a ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edgeward_contract.schema import Fields
from edgeward_fleet.demo.bedside import Bedside
from edgeward_fleet.demo.devices import Device
from edgeward_fleet.demo.errors import DemoFailed
from edgeward_fleet.demo.ledger import Ledger
from edgeward_fleet.demo.narrator import Narrator
from edgeward_fleet.demo.patients import Wards
from edgeward_fleet.demo.processes import Household
from edgeward_fleet.demo.reckoning import Kept
from edgeward_fleet.demo.staff import Staff

MODEL: Final = "wdbc-risk"
_PER_SECOND: Final = 15.0  # at each device, as long as all together stay below the next number
_ALL_PER_SECOND: Final = 100.0
_PAGE: Final = 1000


@dataclass(slots=True, kw_only=True)
class Stage:
    """What the steps work with. `bedsides` is empty while nobody asks."""

    staff: Staff
    devices: Sequence[Device]
    wards: Wards
    ledger: Ledger
    household: Household
    narrator: Narrator
    bedsides: list[Bedside] = field(default_factory=list)

    def open_wards(self) -> None:
        """Let every bedside application begin to ask."""
        per_second = min(_PER_SECOND, _ALL_PER_SECOND / len(self.devices))
        for device in self.devices:
            bedside = Bedside(
                device=device.name,
                address=device.address,
                model=MODEL,
                wards=self.wards,
                ledger=self.ledger,
                per_second=per_second,
            )
            bedside.start()
            self.bedsides.append(bedside)
        self.narrator.counts = self._counts

    def close_wards(self) -> None:
        """No more questions; those under way are answered first."""
        while self.bedsides:
            self.bedsides.pop().stop()

    def kept_count(self, device: str | None = None) -> int:
        """How many inference records the fleet has, of one device or of all."""
        found = self.staff.operator.get("/records/count", {"kind": "inference", "device": device})
        return found.integer("count")

    def kept(self) -> list[Kept]:
        """Every inference record that the fleet has."""
        pages = self.staff.operator.pages("/records", {"kind": "inference"}, size=_PAGE, key="records")
        return [Kept.read(record) for record in pages]

    def rollout(self, rollout_id: str) -> Fields:
        return self.staff.operator.get(f"/rollouts/{rollout_id}")

    def _counts(self) -> str:
        entries = self.ledger.entries()
        failed = sum(not entry.answered for entry in entries)
        return f"{len(entries)} questions, {failed} failed"


def model_folder(models: Path | None) -> Path:
    """The folder of the reference model: in `models`, in this checkout or in the working directory."""
    checkout = Path(__file__).resolve().parents[3]
    for base in (models,) if models else (checkout / "models", Path("models").resolve()):
        if (base / MODEL / "releases").is_dir():
            return base / MODEL
    raise DemoFailed(
        f"expected the reference model {MODEL}, found none" + (f" in {models}" if models else ""),
        hint="Run the demonstration in a checkout of Edgeward, or name its models folder with --models DIR.",
    )
