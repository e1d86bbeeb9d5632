"""Any order of devices' moods, reports that come twice or late, time, commands and restarts of the fleet.

What must hold whatever happens: nobody outside the opened phases is offered the release, a final state stays, a rollout
that says it is rolled back left every device on its former release, and without a failure it succeeds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

from edgeward_contract.reported import ReportedState
from edgeward_contract.schema import JsonValue
from edgeward_contract.traffic import Traffic
from edgeward_fleet.errors import Conflict
from edgeward_fleet.rollouts.machine import FINAL, TRANSITIONS, RolloutEvent, RolloutState
from edgeward_fleet.rollouts.model import Back, Rollout, RolloutId, Standing
from support.rehearsal import AUTHOR, MODEL, Behaviour, Rehearsal, SimulatedDevice, rehearsal

T = TypeVar("T")
SITES = ("north", "south")
NUMBERS = st.integers(0, 5)
_PHASES: list[JsonValue] = [
    {"name": "canary", "devices": 1, "soak_s": 30, "timeout_s": 600},
    {"name": "some", "percent": 50, "soak_s": 30, "timeout_s": 600},
    {"name": "everyone", "percent": 100, "soak_s": 30, "timeout_s": 600},
]


class RolloutOfVersion2(RuleBasedStateMachine):
    """Six devices at two sites that run version 1, and one rollout of version 2."""

    sent = Bundle("sent")

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        folder = Path(self.stack.enter_context(TemporaryDirectory()))
        self.fleet: Rehearsal = self.stack.enter_context(rehearsal(folder))
        self.devices: list[SimulatedDevice] = []
        self.rollout_id = RolloutId("")
        self.ended: RolloutState | None = None
        self.had_trouble = False

    def teardown(self) -> None:
        self.stack.close()

    @initialize(on_failure=st.sampled_from(["rollback", "pause", "abort"]))
    def begin(self, on_failure: str) -> None:
        async def prepare() -> None:
            for site in SITES:
                self.devices += self.fleet.enrol(*(f"{site}-{number}" for number in range(3)), site=site)
            await self.fleet.register(1)
            await self.fleet.register(2)
            await self.fleet.start("risk@1", phases=[{"name": "all", "percent": 100}])
            await self.fleet.settle(self.devices)
            phases: JsonValue = _PHASES
            self.rollout_id = await self.fleet.start("risk@2", phases=phases, on_failure=on_failure, back_timeout_s=900)

        asyncio.run(prepare())

    @rule(number=NUMBERS, behaviour=st.sampled_from(list(Behaviour)))
    def change_mood(self, number: int, behaviour: Behaviour) -> None:
        self.devices[number].behaviour = behaviour
        self.had_trouble |= behaviour is not Behaviour.TAKES

    @rule(number=NUMBERS, errors=st.integers(0, 50))
    def answer_requests(self, number: int, errors: int) -> None:
        before = self.devices[number].traffic
        self.devices[number].traffic = Traffic(requests=before.requests + 100, errors=before.errors + errors)
        self.had_trouble |= errors > 0

    @rule(target=sent, number=NUMBERS)
    def turn(self, number: int) -> tuple[int, ReportedState]:
        device = self.devices[number]
        self.run(device.turn())
        return number, device.as_of(device.sequence)

    @rule(seconds=st.sampled_from([1.0, 31.0]))
    def everybody_turns(self, seconds: float) -> None:
        self.run(self.fleet.tick(after_s=seconds))
        for device in self.devices:
            self.run(device.turn())

    @rule(report=consumes(sent))
    def deliver_a_report_again(self, report: tuple[int, ReportedState]) -> None:
        number, state = report
        self.run(self.devices[number].link.report(state))

    @rule(number=NUMBERS)
    def restart_a_device(self, number: int) -> None:
        device = self.devices[number]
        device.boot, device.sequence = f"{device.boot}x", 0

    @rule(seconds=st.sampled_from([0.0, 1.0, 31.0, 599.0, 601.0, 901.0]))
    def tick(self, seconds: float) -> None:
        self.run(self.fleet.tick(after_s=seconds))
        self.had_trouble |= seconds > 60

    @rule()
    def restart_the_fleet(self) -> None:
        self.fleet.rollouts = self.fleet.new_rollouts()

    @rule(
        event=st.sampled_from(
            [RolloutEvent.PAUSE, RolloutEvent.RESUME, RolloutEvent.ABORT, *[RolloutEvent.ROLL_BACK] * 2],
        )
    )
    def command(self, event: RolloutEvent) -> None:
        self.had_trouble = True
        try:
            self.run(self.fleet.rollouts.command(AUTHOR, self.rollout_id, event, ""))
        except Conflict:
            return
        self.ended = None  # a person may roll back what is over

    @precondition(lambda self: not self.had_trouble)
    @rule()
    def without_trouble_it_succeeds(self) -> None:
        self.run(self.fleet.settle(self.devices))
        assert self.rollout.state is RolloutState.SUCCEEDED
        assert all(device.live is not None and device.live[0].version == 2 for device in self.devices)

    @rule()
    def when_all_come_home_a_roll_back_ends(self) -> None:
        if RolloutEvent.ALL_PROVEN_BACK not in {event for state, event in TRANSITIONS if state is self.rollout.state}:
            return
        for device in self.devices:
            device.behaviour = Behaviour.TAKES
            device.try_again()
        self.run(self.fleet.settle(self.devices))
        assert self.rollout.state is RolloutState.ROLLED_BACK
        assert all(device.live is not None and device.live[0].version == 1 for device in self.devices)

    @invariant()
    def what_must_hold_holds(self) -> None:
        if self.devices:
            rollout = self.rollout
            self.check_that_only_opened_phases_are_offered(rollout)
            self.check_that_generations_only_grow()
            self.check_that_what_is_said_to_be_back_is_back(rollout)
            self.check_that_a_final_state_stays(rollout.state)
            self.check_that_silence_never_makes_a_success(rollout)

    def check_that_only_opened_phases_are_offered(self, rollout: Rollout) -> None:
        for device in rollout.devices:
            assert device.phase <= rollout.phase or not device.offered
        offered = {device.device for device in rollout.devices if device.offered}
        for simulated in self.devices:
            versions = [state.models[MODEL].release.version for state in simulated.fetched if MODEL in state.models]
            assert 2 not in versions or simulated.id in offered

    def check_that_generations_only_grow(self) -> None:
        for device in self.devices:
            generations = [state.generation for state in device.fetched]
            assert generations == sorted(set(generations))

    def check_that_what_is_said_to_be_back_is_back(self, rollout: Rollout) -> None:
        by_id = {simulated.id: simulated for simulated in self.devices}
        for device in rollout.devices:
            if device.back in (Back.PROVEN, Back.NEVER_TOOK):
                live = by_id[device.device].live
                assert live is not None
                assert live[0].version == 1
        if rollout.state is RolloutState.ROLLED_BACK:
            assert all(device.back is not Back.ASKED for device in rollout.devices)

    def check_that_a_final_state_stays(self, state: RolloutState) -> None:
        assert self.ended in (None, state)
        self.ended = state if state in FINAL else None

    def check_that_silence_never_makes_a_success(self, rollout: Rollout) -> None:
        if rollout.state is RolloutState.SUCCEEDED:
            assert all(device.standing is Standing.SUCCEEDED for device in rollout.devices)

    @property
    def rollout(self) -> Rollout:
        return self.run(self.fleet.show(self.rollout_id))

    def run(self, work: Coroutine[None, None, T]) -> T:
        return asyncio.run(work)


TestRolloutOfVersion2 = RolloutOfVersion2.TestCase
TestRolloutOfVersion2.settings = settings(max_examples=settings().max_examples // 2, stateful_step_count=30)
