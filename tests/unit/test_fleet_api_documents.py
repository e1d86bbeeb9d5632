"""What the description of the API says of a document is what the contract reads and writes."""

from __future__ import annotations

import json
from collections.abc import Iterable

import jsonschema_rs
import pytest

from edgeward_contract.artifact import ReleaseRef, Sha256, model_name
from edgeward_contract.desired import DesiredModel, DesiredState
from edgeward_contract.record import Acknowledgement, Batch, Record, RecordClass, Verdict, VerdictStatus
from edgeward_contract.reported import LiveModel, ReportedModel, ReportedState, UpdateState, UpdateStatus
from edgeward_fleet.api import documents
from edgeward_fleet.rollouts.model import Gates, PhaseSpec, RolloutSpec, Target

RISK = ReleaseRef(model_name("risk", ""), 2)
DIGEST = Sha256("0" * 64)
RECORD = Record(
    epoch="e",
    sequence=1,
    record_class=RecordClass.RESULT,
    kind="inference",
    boot="b",
    boot_us=1,
    wall_us=2,
    clock_trusted=True,
    body={"y": [1.5]},
)
MODEL = ReportedModel(
    live=LiveModel(release=RISK, sha256=DIGEST, slot="current"),
    update=UpdateStatus(deployment="d-1", release=RISK, state=UpdateState.COMMITTED),
)
VERDICTS = (Verdict(epoch="e", sequence=1, status=VerdictStatus.ACCEPTED),)
WRITTEN = [
    (documents.BATCH, Batch(batch_id="b-1", records=(RECORD,))),
    (documents.ACKNOWLEDGEMENT, Acknowledgement(batch_id="b-1", verdicts=VERDICTS)),
    (
        documents.DESIRED_STATE,
        DesiredState(generation=3, models={RISK.name: DesiredModel(release=RISK, sha256=DIGEST, deployment="d-1")}),
    ),
    (
        documents.REPORTED_STATE,
        ReportedState(generation=3, boot="b", sequence=1, agent_version="1", models={RISK.name: MODEL}),
    ),
]


@pytest.mark.parametrize(("schema", "document"), WRITTEN, ids=lambda each: type(each).__name__)
def test_what_is_written_is_as_described_and_of_nothing_more(
    schema: documents.Schema, document: Batch | Acknowledgement | DesiredState | ReportedState
) -> None:
    written = json.loads(document.canonical())
    jsonschema_rs.validator_for(schema).validate(written)
    assert names(schema) == set(written)


def test_a_rollout_takes_the_keys_that_are_described() -> None:
    spec = documents.ROLLOUT_SPEC
    assert names(spec) == set(RolloutSpec.__slots__)
    assert names(spec, "gates") == set(Gates.__slots__)
    assert names(spec, "target") == set(Target.__slots__)
    assert names(spec, "phases", "items") == set(PhaseSpec.__slots__)


def names(schema: documents.Schema, *path: str) -> set[str]:
    """The keys of the object at `path`; `items` steps into a list."""
    found: object = schema
    for step in path:
        found = present(member(found, step) if step == "items" else member(member(found, "properties"), step))
    keys = member(found, "properties")
    assert isinstance(keys, Iterable)
    return set(keys)


def present(schema: object) -> object:
    """The schema of a value that is there, where it may be null as well."""
    assert isinstance(schema, dict)
    return schema["anyOf"][0] if "anyOf" in schema else schema


def member(value: object, key: str) -> object:
    assert isinstance(value, dict)
    return value[key]
