"""One rollout as the people of the demonstration make it: asked for by one, approved by another, watched to its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from edgeward_contract.schema import Fields
from edgeward_fleet.cli.values import phases
from edgeward_fleet.cli.watch import BAD, GOOD
from edgeward_fleet.demo.errors import DemoFailed
from edgeward_fleet.demo.ledger import Entry
from edgeward_fleet.demo.stage import MODEL, Stage

_POLL_S: Final = 0.4
_SOAK_S: Final = 2
_PHASE_S: Final = 40  # and as much again for every ten devices, which share this machine's processors
_BACK: Final = {"ASKED": "asked to go back", "PROVEN": "proven back", "NEVER_TOOK": "never took it"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rolled:
    """How a rollout ended, and what the bedsides saw from its approval to its end."""

    final: Fields
    seen: tuple[Entry, ...]

    @property
    def state(self) -> str:
        return self.final.text("state")

    @property
    def devices(self) -> tuple[Fields, ...]:
        return self.final.objects("devices")

    @property
    def failed(self) -> list[Entry]:
        return [entry for entry in self.seen if not entry.answered]

    def answered_by(self, version: int) -> list[Entry]:
        return [entry for entry in self.seen if entry.answered and entry.version == version]


def canary(rollout: Fields) -> str:
    """The device that goes first."""
    return next(device.text("device") for device in rollout.objects("devices") if device.integer("phase") == 0)


def roll_out(stage: Stage, version: int, shares: str, before: Callable[[Fields], None] = lambda _: None) -> Rolled:
    """Roll out `version` in phases of `shares` and wait for the end; `before` may look at it before the approval.

    Raises:
        DemoFailed: nothing was decided in time, or a process ended.
    """
    phase_s = _PHASE_S + 4 * len(stage.devices)
    spec = phases((shares,), soak_s=_SOAK_S, timeout_s=phase_s)
    made = stage.staff.operator.post("/rollouts", {"release": f"{MODEL}@{version}", "phases": spec})
    before(made)
    since = len(stage.ledger)
    stage.staff.approver.post(f"/rollouts/{made.text('id')}/approve", {"spec_sha256": made.text("spec_sha256")})
    final = _followed(stage, made.text("id"), timeout_s=2 * phase_s)
    return Rolled(final=final, seen=stage.ledger.entries(since))


def _followed(stage: Stage, rollout_id: str, *, timeout_s: float) -> Fields:
    deadline = time.monotonic() + timeout_s
    told: dict[str, str] = {}
    while True:
        found = stage.rollout(rollout_id)
        for line in news(told, found):
            stage.narrator.say(line)
        if found.text("state") in GOOD | BAD:
            return found
        stage.household.check()
        if time.monotonic() >= deadline:
            raise DemoFailed(f"expected {found.text('release')} to be decided within {timeout_s:g} s, it is not")
        time.sleep(_POLL_S)


def news(told: dict[str, str], rollout: Fields) -> list[str]:
    """What is new since the last look, devices with the same news in one line; `told` remembers what was said."""
    said: dict[str, list[str]] = {}
    for who, what in (*_of_devices(rollout), *_of_rollout(rollout)):
        if what and told.get(who) != what:
            told[who] = what
            said.setdefault(what, []).append(who)
    return [f"{', '.join(names)}: {what}" for what, names in said.items()]


def _of_rollout(rollout: Fields) -> Iterator[tuple[str, str]]:
    step = rollout.text("step", default="").lower()
    yield "rollout", f"{rollout.text('state')} {rollout.text('phase_name')} {step}" if step else rollout.text("state")
    yield "reason", rollout.text("reason", default="")


def _of_devices(rollout: Fields) -> Iterator[tuple[str, str]]:
    for device in rollout.objects("devices"):
        back, standing = device.text("back"), device.text("standing")
        reason, detail = device.text("reason", default=""), device.text("detail", default="")
        if back in _BACK:
            words = _BACK[back]
        else:
            words = {"SUCCEEDED": "committed", "WORKING": reason, "FAILED": f"failed: {detail}"}.get(standing, "")
        yield device.text("device"), words
