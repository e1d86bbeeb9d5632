"""The updater against a world in which anything fails at any time, found by Hypothesis.

Rules: the fleet changes its mind, links and disks fail, the probe refuses, the serving process crashes, the agent is
killed, the power is cut in the middle of a step. The ports themselves check "store, then act" (see support.update).
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edgeward_agent.errors import LinkRefused
from edgeward_agent.ports import ProbeReason
from edgeward_agent.update.machine import BEFORE_ACTIVATION
from edgeward_agent.update.releases import ReleaseFolders
from edgeward_agent.update.slots import Slots
from edgeward_contract.artifact import Sha256, sha256_of
from edgeward_contract.reported import RESTING, UpdateState
from support.update import MODEL, PLENTY, Device, PowerCut, Release, Scissors, desired, lost, make_release, verdict

REFUSALS = [each for each in ProbeReason if each is not ProbeReason.OK]
FAULTS = [lost(), lost(retry_after_s=30.0), LinkRefused("no", status=403), OSError(5, "Input/output error")]


class UpdaterMachine(RuleBasedStateMachine):
    """One model, four releases, and a fleet that the device follows whatever happens in between."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="edgeward-update-"))
        self.device = Device(self.folder)
        self.releases: list[Release] = [self.device.source.add(make_release(n, size_bytes=600)) for n in range(1, 5)]
        self.generation = 0
        self.wanted: Release | None = None
        self.committed: set[int] = set()
        self.has_rotted = False

    @initialize()
    def first_release(self) -> None:
        self.offer(self.releases[0])
        self.device.settle()
        assert self.device.live() == self.releases[0].manifest.release
        self.committed = {1}

    @rule(number=st.integers(0, 3))
    def the_fleet_wants(self, number: int) -> None:
        self.offer(self.releases[number])

    @rule(number=st.integers(0, 3), reason=st.sampled_from(REFUSALS))
    def the_fleet_wants_what_the_probe_refuses(self, number: int, reason: ProbeReason) -> None:
        self.device.probe.verdicts[self.releases[number].sha256] = [verdict(reason)] * 9
        self.offer(self.releases[number])

    @rule(number=st.integers(0, 3))
    def the_fleet_wants_what_comes_damaged(self, number: int) -> None:
        self.device.source.corrupt = {sha256_of(self.releases[number].files[0][:400])}
        self.offer(self.releases[number])

    @rule(number=st.integers(0, 3))
    def the_fleet_wants_what_answers_badly(self, number: int) -> None:
        self.device.serving.bad = {self.releases[number].sha256}
        self.offer(self.releases[number])

    @rule(number=st.integers(0, 3), crash=st.booleans())
    def the_fleet_wants_what_does_not_load(self, number: int, crash: bool) -> None:
        serving = self.device.serving
        (serving.crashes_on_load if crash else serving.refused).add(self.releases[number].sha256)
        self.offer(self.releases[number])

    @rule()
    def the_fleet_wants_no_model(self) -> None:
        self.generation += 1
        self.wanted = None
        self.device.offer(desired(self.generation))

    @rule(generations_ago=st.integers(0, 3), number=st.integers(0, 3))
    def an_old_wish_arrives_late(self, generations_ago: int, number: int) -> None:
        late = max(0, self.device.updater.generation - generations_ago)
        self.device.offer(desired(late, ("late", self.releases[number])))

    @rule(steps=st.integers(1, 40))
    def time_passes(self, steps: int) -> None:
        for _ in range(steps):
            self.device.step()

    @rule()
    def the_device_works_until_it_can_no_more(self) -> None:
        for _ in range(70):
            self.device.step()

    @rule(faults=st.lists(st.sampled_from(FAULTS), min_size=1, max_size=3))
    def the_source_fails(self, faults: list[Exception]) -> None:
        self.device.source.faults = list(faults)

    @rule()
    def the_disk_is_full(self) -> None:
        self.device.free = 0

    @rule(times=st.integers(1, 5))
    def the_serving_process_is_away(self, times: int) -> None:
        self.device.serving.unavailable = times

    @rule()
    def the_serving_process_crashes(self) -> None:
        self.device.serving.boot()

    @rule()
    def the_disk_rots(self) -> None:
        self.has_rotted = True
        for sha256 in self.booting():
            model = self.folder / "releases" / sha256 / "model.onnx"
            model.write_bytes(model.read_bytes()[:100])

    @rule()
    def the_agent_is_killed(self) -> None:
        self.device.restart()

    @rule()
    def the_power_is_cut(self) -> None:
        self.device.power_cut()

    @rule(cut_at=st.integers(1, 40), power=st.booleans())
    def it_happens_in_the_middle_of_a_step(self, cut_at: int, power: bool) -> None:
        self.device.journal.scissors = self.device.scissors = Scissors(cut_at=cut_at)
        try:
            for _ in range(30):
                self.device.step()
        except PowerCut:
            pass
        self.device.scissors = Scissors()
        (Device.power_cut if power else Device.restart)(self.device)

    @precondition(lambda self: self.generation > 0)
    @rule()
    def all_is_well_again(self) -> None:
        """Whatever happened, the device ends where the fleet wants it, or says that it gave up and serves another."""
        device = self.device
        device.source.faults, device.source.corrupt = [], set()
        device.probe.verdicts, device.serving.bad = {}, set()
        device.serving.refused, device.serving.crashes_on_load = set(), set()
        device.serving.unavailable, device.free = 0, PLENTY
        self.ask_the_fleet()
        device.settle()
        device.settle()  # damage is found at a look at the serving process, and mended by one more deployment
        if self.wanted is None:
            self.check_the_end()
            return
        status = device.status()
        assert status is not None
        if status.state is UpdateState.COMMITTED or not self.has_rotted:  # else its alarm stays until it is asked again
            self.check_the_end()
        if status.state is not UpdateState.COMMITTED:
            assert status.state in (UpdateState.FAILED, UpdateState.ROLLED_BACK, UpdateState.STRANDED), status
            self.offer(self.wanted)  # a new deployment of the same release
            device.settle()
            self.check_the_end()
        assert device.live() == self.wanted.manifest.release

    def check_the_end(self) -> None:
        slots = self.device.journal.load().slots.get(MODEL, Slots())
        current = slots.current.version if slots.current else None
        live = self.device.live()
        assert (live.version if live else None) == current
        assert slots.candidate is None
        assert self.booting() == ([slots.current.sha256] if slots.current else [])
        assert not self.device.updater.alarms, self.device.updater.alarms
        kept = {*slots.kept(), *([self.wanted.sha256] if self.wanted else [])}
        assert {path.name for path in (self.folder / "releases").iterdir()} <= kept
        assert list((self.folder / "chunks").iterdir()) == []

    @invariant()
    def the_device_serves_what_it_knows(self) -> None:
        """The current release or the one on trial.

        Another one only while going back is refused, as it is to what has rotted, or if the power was cut between a
        commit and boot.json.
        """
        book = self.device.journal.load()
        slots, newest = book.slots.get(MODEL, Slots()), book.deployments.get(MODEL)
        live = self.device.serving.live.get(MODEL)
        if live is None or newest is None or slots == Slots():
            return  # nothing yet, or on its way off the device
        known = {*self.booting(), *(each.sha256 for each in (slots.current, slots.candidate) if each)}
        cannot_load = self.device.serving.refused | self.device.serving.crashes_on_load
        stuck = newest.state is UpdateState.STRANDED or cannot_load or self.rotten()
        assert live.sha256 in known or stuck, f"{live} is live, {slots} is known, {newest.state}"

    @invariant()
    def before_activation_nothing_has_changed_at_the_bedside(self) -> None:
        book = self.device.journal.load()
        slots, newest = book.slots.get(MODEL, Slots()), book.deployments.get(MODEL)
        if newest and newest.state in BEFORE_ACTIVATION:
            assert slots.candidate is None
            again = newest.installed == slots.current  # of which a file is not what it was
            assert not again or newest.state is UpdateState.OFFERED or self.has_rotted

    @invariant()
    def the_boot_file_names_complete_releases_alone(self) -> None:
        for sha256 in self.booting():
            assert sorted(path.name for path in (self.folder / "releases" / sha256).iterdir()) == [
                "golden.npz",
                "manifest.json",
                "model.onnx",
            ]

    @invariant()
    def slots_hold_complete_releases_alone(self) -> None:
        book = self.device.journal.load()
        for sha256 in book.slots.get(MODEL, Slots()).kept():
            assert (self.folder / "releases" / sha256 / "model.onnx").is_file()

    @invariant()
    def a_candidate_has_a_deployment_that_tries_it(self) -> None:
        book = self.device.journal.load()
        candidate, newest = book.slots.get(MODEL, Slots()).candidate, book.deployments.get(MODEL)
        if candidate is not None:
            assert newest is not None and newest.sha256 == candidate.sha256 and newest.state not in RESTING

    def offer(self, release: Release) -> None:
        self.generation += 1
        self.wanted = release
        self.device.offer(desired(self.generation, (f"d{self.generation}", release)))

    def ask_the_fleet(self) -> None:
        """What a killed agent had not stored yet it is told again, as by the next poll."""
        if self.device.updater.generation < self.generation:
            wanted = [(f"d{self.generation}", self.wanted)] if self.wanted else []
            self.device.offer(desired(self.generation, *wanted))

    def rotten(self) -> bool:
        """Whether what a boot starts is damaged, as it stays while the fleet wants another release."""
        return any(ReleaseFolders(self.folder).problem(sha256) for sha256 in self.booting())

    def booting(self) -> list[Sha256]:
        path = self.folder / "boot.json"
        return [Sha256(each["sha256"]) for each in json.loads(path.read_text())["models"]] if path.exists() else []

    def teardown(self) -> None:
        self.device.close()
        shutil.rmtree(self.folder)


UpdaterMachine.TestCase.settings = settings(stateful_step_count=60 if os.environ.get("EDGEWARD_SOAK") else 30)
TestUpdater = UpdaterMachine.TestCase
