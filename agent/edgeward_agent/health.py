"""What an admin sees of a device at a glance."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeward_agent.clock import Clock
from edgeward_agent.identity.renewal import Renewal
from edgeward_agent.not_kept import NotKept
from edgeward_agent.outbox.model import Stats
from edgeward_agent.outbox.store import Store
from edgeward_agent.reporter import Snapshot
from edgeward_agent.supervisor import Supervisor
from edgeward_agent.update.executor import Updater
from edgeward_contract.reported import DeviceHealth

_MAX_ALARMS: Final = 900  # characters; the contract's limit for a string


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """The parts of a running agent that have something to say."""

    root: Path
    renewal: Renewal
    store: Store
    supervisor: Supervisor
    updater: Updater
    not_kept: NotKept
    clock: Clock

    async def snapshot(self) -> Snapshot:
        """For the fleet."""
        return Snapshot(
            generation=self.updater.generation,
            models=self.updater.reported_models(),
            health=self._health(await self.store.stats()),
        )

    def _health(self, outbox: Stats) -> DeviceHealth:
        self.not_kept.look(self.updater.serving_state, refused=outbox.refused)
        return DeviceHealth(
            serving_ready=self.updater.ready,
            serving_restarts=self.supervisor.restarts,
            outbox_records=outbox.records,
            outbox_oldest_s=outbox.oldest_s,
            quarantined=outbox.quarantined,
            disk_free_bytes=disk_free_bytes(self.root),
            certificate_days_left=self.renewal.identity.days_left(self.clock.wall()),
            clock_trusted=clock_trusted(self.renewal, self.clock),
            results_not_kept=self.not_kept.total,
            alarms=_joined((*self.updater.alarms, *outbox.alarms, *self.not_kept.alarms)),
        )


def clock_trusted(renewal: Renewal, clock: Clock) -> bool:
    """A certificate is never from the future: a clock before its beginning is wrong. And one that was just signed is
    young: where it is old by the clock, that is wrong too.
    """
    return clock.wall() >= renewal.identity.certificate.not_valid_before_utc.timestamp() and not renewal.clock_ahead_s


def disk_free_bytes(folder: Path) -> int:
    """0 when the disk does not say."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0


def _joined(alarms: Iterable[str]) -> str:
    text = " ".join(alarms)
    return text if len(text) <= _MAX_ALARMS else text[:_MAX_ALARMS].rpartition(" ")[0]
