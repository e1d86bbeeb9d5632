"""Every operation of the fleet's three ports, asked what nobody would ask: schemathesis reads the OpenAPI documents.

No answer may be a server's error, or anything that the document does not promise; and whoever lacks the role, or the
certificate, is refused whatever the request looks like. `EDGEWARD_SOAK=1` asks for longer.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Final

import pytest
import requests
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.core.result import Ok

from edgeward_contract.schema import JsonValue
from edgeward_fleet.accounts.model import Role
from support.probing import CALLERS, DEVICE, REVOKED, STRANGER, AnyCase, Good, Stage, operations, stage
from support.roles import CERTIFIED, NEEDS, OPEN

EXAMPLES: Final = 300 if os.environ.get("EDGEWARD_SOAK") else 8
OTHERS_ASK_EVERY: Final = 1 if os.environ.get("EDGEWARD_SOAK") else 5  # the roles next to the line ask everything
# What may stand in the way before it is known who asks: the request cannot be read, or is of no operation.
UNREADABLE: Final = {400, 404, 405, 413, 422}

# Beyond 64 bits, beyond a double, half a surrogate pair, times that leave the calendar once they are in UTC, …
EDGES: Final[tuple[JsonValue, ...]] = (
    "",
    "\x00",
    "\ud800",
    "x" * 5000,
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59.999999-14:00",
    1 << 63,
    -(1 << 63) - 1,
    10**400,
    -1,
    1e308,
    None,
    [],
    {"": {}},
)

each_operation = pytest.mark.parametrize(("port", "label"), operations(), ids=lambda each: each.replace("/", "_"))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("fleet")) as found:
        yield found


def may(port: str, label: str, caller: str) -> bool:
    if port == "admin":
        needed = NEEDS[label]
        return needed is None or (caller in set(Role) and Role(caller).covers(needed))
    if port == "device":
        assert label in CERTIFIED
        return caller == DEVICE
    assert label in OPEN
    return True


def refusal(caller: str) -> int:
    """Who is known is told so; who is not is asked for a token."""
    return 403 if caller in {*Role, REVOKED} else 401


def least(port: str, label: str) -> str:
    """The caller with the least right that is enough."""
    return next(caller for caller in CALLERS[port] if may(port, label, caller))


def coverage(fleet: Stage, port: str, label: str) -> list[AnyCase]:
    """What schemathesis derives from the schema without chance: each boundary, each key left out, other methods.

    Half of the paths that could be a name of something become one.
    """
    schema = fleet.schemas[port]
    cases = schema.iter_coverage_cases(
        fleet.operation(port, label), generation_modes=list(GenerationMode), generation_config=schema.config.generation
    )
    return [aimed(fleet, port, label, case) if number % 2 else case for number, case in enumerate(cases)]


def aimed(fleet: Stage, port: str, label: str, case: AnyCase) -> AnyCase:
    known = fleet.aim(port, label)
    if set(known) == set(case.path_parameters) and case.meta is not None and case.meta.generation.mode.is_positive:
        case.path_parameters = known
    return case


def places(value: JsonValue) -> Iterator[tuple[str | int, ...]]:
    """The path of everything inside a document."""
    inside: list[tuple[str | int, JsonValue]] = []
    if isinstance(value, dict):
        inside = list(value.items())
    elif isinstance(value, list):
        inside = list(enumerate(value))
    for key, item in inside:
        yield (key,)
        yield from ((key, *rest) for rest in places(item))


def replaced(document: JsonValue, place: tuple[str | int, ...], value: JsonValue) -> JsonValue:
    """A copy with `value` at `place`."""
    if not place:
        return value
    key, *rest = place
    if isinstance(document, dict):
        return {**document, str(key): replaced(document[str(key)], tuple(rest), value)}
    assert isinstance(document, list)
    return [replaced(item, tuple(rest), value) if at == key else item for at, item in enumerate(document)]


def test_the_descriptions_tell_of_every_operation(fleet: Stage) -> None:
    described = {
        (port, found.ok().label)
        for port, schema in fleet.schemas.items()
        for found in schema.get_all_operations()
        if isinstance(found, Ok)
    }
    assert described == set(operations())


# The set-up is done before anything can be asked; test_fleet_core_api does it.
@pytest.mark.parametrize(("port", "label"), [each for each in operations() if each != ("admin", "POST /api/v1/setup")])
def test_a_good_request_is_granted(fleet: Stage, port: str, label: str) -> None:
    good = fleet.good(port, label)
    answer = fleet.ask(fleet.case(port, label, good), port, least(port, label), good.token)
    assert answer.status_code in (200, 201, 204), answer.text


@each_operation
def test_the_edges_of_the_description_are_answered_as_described(fleet: Stage, port: str, label: str) -> None:
    allowed = [caller for caller in CALLERS[port] if may(port, label, caller)]
    for number, case in enumerate(coverage(fleet, port, label)):
        for caller in allowed if number % OTHERS_ASK_EVERY == 0 else allowed[:1]:
            fleet.ask(case, port, caller)


@each_operation
def test_whoever_may_not_is_refused_whatever_is_asked(fleet: Stage, port: str, label: str) -> None:
    refused = [caller for caller in CALLERS[port] if not may(port, label, caller)]
    for number, case in enumerate(coverage(fleet, port, label)):
        for caller in refused if number % OTHERS_ASK_EVERY == 0 else refused[-1:]:
            answer = fleet.ask(case, port, caller)
            assert answer.status_code in {refusal(caller), *UNREADABLE}, (caller, case, answer.text)


@each_operation
def test_whoever_may_not_is_refused_what_others_are_granted(fleet: Stage, port: str, label: str) -> None:
    case = fleet.case(port, label, fleet.good(port, label))
    for caller in CALLERS[port]:
        if not may(port, label, caller):
            assert fleet.ask(case, port, caller).status_code == refusal(caller), caller


@each_operation
def test_a_value_that_no_database_holds_is_no_fault(fleet: Stage, port: str, label: str) -> None:
    good, caller = fleet.good(port, label), least(port, label)
    if isinstance(good.body, dict):
        for place in places(good.body):
            for value in EDGES:
                bad = Good(path=good.path, body=replaced(good.body, place, value), token=good.token)
                fleet.ask(fleet.case(port, label, bad), port, caller, good.token)
    case = fleet.case(port, label, good)
    for parameter in fleet.operation(port, label).query:
        for value in EDGES:
            case.query = {parameter.name: str(value).encode("utf-8", "replace").decode()}
            fleet.ask(case, port, caller, good.token)


@each_operation
def test_chance_finds_nothing_that_is_not_described(fleet: Stage, port: str, label: str) -> None:
    operation, caller = fleet.operation(port, label), least(port, label)
    cases = st.one_of([operation.as_strategy(generation_mode=mode) for mode in GenerationMode])

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases, is_aimed=st.booleans())
    def probe(case: AnyCase, is_aimed: bool) -> None:
        # A port that is told of too long a body answers and closes; who still writes may see the end, not the answer.
        assume(len(json.dumps(case.body, default=str)) < 60_000)
        fleet.ask(aimed(fleet, port, label, case) if is_aimed else case, port, caller)

    probe()


@pytest.mark.parametrize("label", sorted(CERTIFIED))
def test_a_device_port_is_closed_without_a_certificate(fleet: Stage, label: str) -> None:
    case = fleet.case("device", label, fleet.good("device", label))
    with pytest.raises(requests.exceptions.ConnectionError):
        fleet.ask(case, "device", STRANGER)
