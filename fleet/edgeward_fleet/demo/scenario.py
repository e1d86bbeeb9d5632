"""The steps of the demonstration, in order. Each says what it does, does it, and gives the checks that must hold."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from edgeward_contract.schema import Fields
from edgeward_fleet.demo.devices import Device
from edgeward_fleet.demo.errors import DemoFailed
from edgeward_fleet.demo.ledger import Entry
from edgeward_fleet.demo.processes import wait_until
from edgeward_fleet.demo.reckoning import Check, last_versions, reckon
from edgeward_fleet.demo.rolling import Rolled, canary, roll_out
from edgeward_fleet.demo.stage import Stage

_CUT_S: Final = 5.0
_QUIET_S: Final = 0.5
_HOME_S: Final = 45.0

Step = Callable[[Stage], Iterator[Check]]


def first_release(stage: Stage) -> Iterator[Check]:
    """Version 1 goes to every device; then the patients come."""
    stage.narrator.chapter("Version 1 goes to every device at once: there is nothing to lose yet")
    rolled = roll_out(stage, 1, "100%")
    yield Check.equal("version 1: the rollout", "SUCCEEDED", rolled.state)
    stage.open_wards()
    _wait_for_answers(stage, 1)
    stage.narrator.say("every bedside is answered by version 1")


def better_release(stage: Stage) -> Iterator[Check]:
    """Version 2 goes out in phases while patients are examined."""
    stage.narrator.chapter("Version 2 goes out in phases, while patients are examined")
    rolled = roll_out(stage, 2, "20%,100%")
    since = len(stage.ledger)
    _wait_for_answers(stage, 2, since=since)
    yield Check.equal("version 2: the rollout", "SUCCEEDED", rolled.state)
    yield Check.equal("version 2: devices that answer with it", len(stage.devices), _on(stage, 2))
    yield Check.equal("version 2: requests that failed in the swaps", 0, len(rolled.failed))


def outage(stage: Stage) -> Iterator[Check]:
    """One device loses its network; patients do not notice."""
    device = stage.devices[-1]
    stage.narrator.chapter(f"The network of {device.name} is cut for a while; its patients must not notice")
    device.cable.unplug()
    time.sleep(_QUIET_S)  # what was on the wire arrives or is lost; from here on the fleet must hear nothing
    before, since = stage.kept_count(device.name), len(stage.ledger)
    time.sleep(_CUT_S)
    during = [entry for entry in stage.ledger.entries(since) if entry.device == device.name]
    heard = stage.kept_count(device.name) - before
    stage.narrator.say(f"cut for {_CUT_S:g} s: {len(during)} patients examined, the fleet heard of {heard}")
    device.cable.plug()
    _wait_until_home(stage, device, during)
    stage.narrator.say("plugged in again: everything has arrived")
    yield Check.at_least("cut off: patients examined meanwhile", 20, sum(entry.answered for entry in during))
    yield Check.equal("cut off: requests that failed meanwhile", 0, sum(not entry.answered for entry in during))
    yield Check.equal("cut off: records that the fleet got meanwhile", 0, heard)


def wrong_release(stage: Stage) -> Iterator[Check]:
    """Version 3 is clinically wrong; the canary's golden check finds it."""
    stage.narrator.chapter("Version 3 has two columns swapped: the golden check on the canary must refuse it")
    rolled = roll_out(stage, 3, "20%,100%")
    offered = [device for device in rolled.devices if device.has("deployment")]
    refused = [device.text("reason") for device in offered]
    yield Check.equal("version 3: the rollout", "ROLLED_BACK", rolled.state)
    yield Check.equal("version 3: who was offered it", canary(rolled.final), ", ".join(_names(offered)))
    yield Check.equal("version 3: why the canary refused it", "golden_mismatch", ", ".join(refused))
    yield Check.equal("version 3: patients examined with it", 0, len(rolled.answered_by(3)))
    yield Check.equal("version 3: requests that failed", 0, len(rolled.failed))


def failing_release(stage: Stage) -> Iterator[Check]:
    """Version 4 fails on very large tumours. The canary sees none; the others do, and everybody goes back."""
    stage.narrator.chapter(
        "Version 4 fails on very large tumours: it passes the canary and must be taken back everywhere"
    )

    def refer(rollout: Fields) -> None:
        first = canary(rollout)
        count = stage.wards.refer(first, lambda patient: patient.large)
        stage.narrator.say(f"the canary is {first}; its {count} patients with very large tumours are seen elsewhere")

    rolled = roll_out(stage, 4, "20%,100%", before=refer)
    since = len(stage.ledger)
    _wait_for_answers(stage, 2, since=since)
    yield from _judged(stage, rolled)


def _judged(stage: Stage, rolled: Rolled) -> Iterator[Check]:
    first = canary(rolled.final)
    by_canary = [entry for entry in rolled.answered_by(4) if entry.device == first]
    large = {patient.name for each in stage.devices for patient in stage.wards.patients(each.name) if patient.large}
    others = [entry for entry in rolled.failed if entry.status != 500 or entry.patient not in large]
    stage.narrator.say(f"version 4 failed {len(rolled.failed)} times before it was gone")
    yield Check.equal("version 4: the rollout", "ROLLED_BACK", rolled.state)
    yield Check.at_least("version 4: patients that the canary examined with it", 20, len(by_canary))
    yield Check.at_least("version 4: errors and failed devices that the fleet decided on", 1, _evidence(rolled.final))
    yield Check.at_least("version 4: requests that it failed, as it is built to", 2, len(rolled.failed))
    yield Check.equal("version 4: requests that failed in any other way", 0, len(others))
    yield Check.equal("version 4: devices not proven to be back", 0, len(rolled.final.texts("not_proven_back")))
    yield Check.equal("version 4: devices that answer with version 2 again", len(stage.devices), _on(stage, 2))


def _evidence(rollout: Fields) -> int:
    """What the open phase had against the release: a device may give it back before the fleet has heard of errors."""
    evidence = [phase.object("evidence") for phase in rollout.objects("phases")]
    return sum(each.integer("errors") + each.integer("failed") for each in evidence)


def settle(stage: Stage) -> Iterator[Check]:
    """The last question is answered; now everything is counted."""
    stage.narrator.chapter("The bedsides stop; their ledger is held against the fleet")
    stage.close_wards()
    ledger = stage.ledger.entries()
    answered = [entry for entry in ledger if entry.answered]
    patients = {patient.name for each in stage.devices for patient in stage.wards.patients(each.name)}
    stage.narrator.say(f"{len(answered)} answers in the ledger, of {len(patients)} patients")
    wait_until(
        lambda: stage.kept_count() >= len(answered), stage.household, "every record to arrive", timeout_s=_HOME_S
    )
    outcome = reckon(ledger, stage.kept())
    foreign = [entry for entry in ledger if not entry.answered and entry.status != 500]
    yield Check.equal("requests that failed, other than by version 4", 0, len(foreign))
    yield Check.equal("patients examined", len(patients), len({entry.patient for entry in answered}))
    yield Check.equal("answers that the fleet has, with the same version and risk", len(answered), outcome.agreed)
    yield Check.equal("answers that the fleet has not", 0, outcome.lost)
    yield Check.equal("answers that the fleet has twice", 0, outcome.twice)
    yield Check.equal("records that nobody was given", 0, outcome.unasked)
    yield Check.equal("records that say something else", 0, outcome.different)
    yield from _outboxes(stage)


def _outboxes(stage: Stage) -> Iterator[Check]:
    with ThreadPoolExecutor(max_workers=2) as hands:
        found = [status.object("outbox") for status in hands.map(lambda each: each.status(), stage.devices)]
    for key, name in (("records", "still wait"), ("quarantined", "are in quarantine"), ("dropped", "were dropped")):
        yield Check.equal(f"results on the devices that {name}", 0, sum(each.integer(key) for each in found))


STEPS: Final[tuple[Step, ...]] = (
    first_release,
    better_release,
    outage,
    wrong_release,
    failing_release,
    settle,
)


def everywhere(names: Collection[str], version: int) -> Callable[[tuple[Entry, ...]], bool]:
    """Whether the last answer of every one of the devices `names` came from `version`."""
    wanted = set(names)
    return lambda entries: {name for name, last in last_versions(entries).items() if last == version} == wanted


def _on(stage: Stage, version: int) -> int:
    return sum(last == version for last in last_versions(stage.ledger.entries()).values())


def _names(devices: list[Fields]) -> list[str]:
    return [device.text("device") for device in devices]


def _wait_for_answers(stage: Stage, version: int, *, since: int = 0) -> None:
    names = [device.name for device in stage.devices]
    if not stage.ledger.wait_for(everywhere(names, version), since=since, timeout_s=15):
        raise DemoFailed(f"expected every device to answer with version {version}, not all did")


def _wait_until_home(stage: Stage, device: Device, during: list[Entry]) -> None:
    """Until the fleet has at least what the ledger had of `device` when it was plugged in."""
    wanted = sum(entry.answered for entry in stage.ledger.entries() if entry.device == device.name)
    wait_until(
        lambda: stage.kept_count(device.name) >= wanted,
        stage.household,
        f"the {len(during)} results of {device.name} to arrive",
        timeout_s=_HOME_S,
    )
