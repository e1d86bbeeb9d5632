"""The documents of the contract: what is written can be read, and what is wrong is named by its path."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeward_contract.artifact import ArtifactRef, ModelName, ReleaseRef, Sha256, model_name, new_model_name, sha256_of
from edgeward_contract.chunks import ChunkIndex, Encoding, StoredChunk, present_bytes, raw_index
from edgeward_contract.desired import MAX_DESIRED_BYTES, DesiredModel, DesiredState
from edgeward_contract.manifest import Datatype, GoldenSet, Manifest, TensorSpec, Tolerance
from edgeward_contract.record import Acknowledgement, Batch, Record, RecordClass, Verdict, VerdictStatus
from edgeward_contract.reported import (
    RESTING,
    DeviceHealth,
    LiveModel,
    ReportedModel,
    ReportedState,
    UpdateState,
    UpdateStatus,
)
from edgeward_contract.schema import ContractError, JsonValue, canonical_json, parse_json
from edgeward_contract.serving_options import PROVIDERS, Batching, ServingOptions
from edgeward_contract.traffic import Traffic

DIGEST = sha256_of(b"")
NAMES = st.from_regex(r"[a-z0-9]([a-z0-9_-]{0,20}[a-z0-9])?", fullmatch=True).map(ModelName)
DIGESTS = st.binary(max_size=8).map(sha256_of)
COUNTS = st.integers(0, 2**63 - 1)
SHORT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
RELEASES = st.builds(ReleaseRef, NAMES, st.integers(1, 10**9))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | SHORT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(SHORT, inner, max_size=4),
    max_leaves=12,
)


def manifest() -> Manifest:
    return Manifest(
        name=ModelName("wdbc-risk"),
        version=2,
        summary="risk",
        intended_use="demonstration",
        file=ArtifactRef(sha256=DIGEST, size_bytes=0),
        golden=GoldenSet(
            file=ArtifactRef(sha256=DIGEST, size_bytes=0),
            cases=3,
            tolerances={"risk": Tolerance(atol=1e-6, rtol=1e-5)},
        ),
        inputs=(TensorSpec(name="x", datatype=Datatype.FP32, shape=(-1, 2), labels=("a", "b"), units=("mm", "")),),
        outputs=(TensorSpec(name="risk", datatype=Datatype.FP32, shape=(-1, 1)),),
    )


def test_a_manifest_survives_the_wire_and_its_digest_is_of_its_bytes() -> None:
    data = manifest().canonical()
    assert Manifest.parse(data) == manifest()
    assert manifest().sha256() == sha256_of(data)


def test_an_unknown_key_is_ignored_but_a_newer_schema_is_refused() -> None:
    document = json.loads(manifest().canonical())
    assert Manifest.parse(json.dumps({**document, "colour": "blue"}).encode()) == manifest()
    with pytest.raises(ContractError, match="schema: expected at most 1, got 2: update this side first"):
        Manifest.parse(json.dumps({**document, "schema": 2}).encode())


DIMENSIONS = st.dictionaries(SHORT, st.integers(1, 2**31), max_size=3)
SERVING = st.builds(
    ServingOptions,
    threads=st.integers(1, 64),
    providers=st.lists(st.sampled_from([*PROVIDERS, "something_newer"]), unique=True, max_size=3).map(tuple),
    dimensions=DIMENSIONS,
    denotations=DIMENSIONS,
    shrink_arena=st.booleans(),
    batching=st.none() | st.builds(Batching, max_rows=st.integers(2, 4096), max_delay_us=st.integers(0, 1_000_000)),
)


@given(SERVING)
def test_how_to_serve_survives_the_wire_and_the_usual_leaves_no_trace(options: ServingOptions) -> None:
    first = replace(
        manifest(), serving=options, outputs=(TensorSpec(name="risk", datatype=Datatype.FP32, shape=(-1,)),)
    )
    data = first.canonical()
    assert Manifest.parse(data) == first
    assert (b'"serving"' in data) == (options != ServingOptions())


def test_a_manifest_without_the_section_has_the_digest_that_it_always_had() -> None:
    assert manifest().sha256() == "5b1f1d2ad47457ea9c67a8bae879492872f191bc960d3c8a0ed07fac18a690c4"
    document = {**json.loads(manifest().canonical()), "serving": {"threads": 1, "providers": []}}
    assert Manifest.parse(json.dumps(document).encode()) == manifest()


Change = Callable[[dict[str, JsonValue]], object]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.pop("name"), "name: expected a value, got nothing"),
        (lambda d: d.update(name="../etc"), "name: expected a name of a-z"),
        (lambda d: d.update(name="a..b"), "name: expected a name of a-z"),
        (lambda d: d.update(version=0), "version: expected 1 to"),
        (lambda d: d.update(version=True), "version: expected a whole number, got True"),
        (lambda d: d.update(version=1.0), "version: expected a whole number, got 1.0"),
        (lambda d: d.update(file=[]), "file: expected an object, got a list"),
        (lambda d: d["file"].update(sha256="abc"), "file.sha256: expected 64 lower-case"),
        (lambda d: d.update(inputs=[]), "inputs: expected at least one tensor"),
        (lambda d: d["inputs"][0].update(datatype="FLOAT"), r"inputs\[0\].datatype: expected one of BOOL"),
        (lambda d: d["inputs"][0].update(shape=[-2]), r"inputs\[0\].shape\[0\]: expected a whole number ≥ -1"),
        (lambda d: d["inputs"][0].update(labels=["a"]), r"inputs\[0\].labels: expected one for each of the last axis"),
        (lambda d: d["golden"].update(tolerances={}), "golden.tolerances: expected one for each output"),
        (lambda d: d["golden"]["tolerances"]["risk"].update(atol=-1), "tolerances.risk.atol: expected at least 0"),
        (lambda d: d["capture"].update(mode="sometimes"), "capture.mode: expected one of off, async, durable"),
        (lambda d: d.update(serving={"threads": 0}), "serving.threads: expected 1 to 64, got 0"),
        (lambda d: d.update(serving={"providers": ["GPU"]}), r"serving.providers\[0\]: expected names such as acl"),
        (lambda d: d.update(serving={"providers": ["cpu", "cpu"]}), r"serving.providers\[1\]: .* each once, got 'cpu'"),
        (lambda d: d.update(serving={"dimensions": {"n": 0}}), "serving.dimensions.n: expected 1 to"),
        (
            lambda d: d.update(serving={"denotations": {str(n): 1 for n in range(17)}}),
            "serving.denotations: expected at most 16 dimensions, got 17",
        ),
        (lambda d: d.update(serving={"batching": {"max_rows": 1}}), "serving.batching.max_rows: expected 2 to 4096"),
        (
            lambda d: d.update(serving={"batching": {"max_rows": 2}}, outputs=[{**d["outputs"][0], "shape": [1]}]),
            r"serving.batching: expected a free first axis in every tensor, got risk \[1\]",
        ),
    ],
)
def test_a_wrong_manifest_is_refused_with_its_place(change: Change, words: str) -> None:
    document: dict[str, JsonValue] = json.loads(manifest().canonical())
    change(document)
    with pytest.raises(ContractError, match=words):
        Manifest.parse(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "expected JSON"),
        (b"[]", "expected an object, got a list"),
        (b"\xff{}", "expected UTF-8"),
        (b'{"a":1,"a":2}', "a: expected each key once"),
        (b'{"a":NaN}', "expected JSON numbers, got NaN"),
        (b'{"a":-Infinity}', "expected JSON numbers, got -Infinity"),
        (b'{"a":' + b"[" * 40 + b"]" * 40 + b"}", "expected at most 32 levels"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "expected at most 32 levels"),
        (b" " * (1 << 20) + b"{}", "expected at most 1048576 bytes"),
        (b'{"a": ["\\ud800"]}', r"expected whole characters, got half a surrogate pair: \\ud800"),
        (b'{"\\udfff": 1}', r"half a surrogate pair: \\udfff"),
        (b'{"\\ud800": 1, "\\ud800": 2}', r"half a surrogate pair: \\ud800"),
        (b'{"%b": 1, "%b": 2}' % (b"k" * 9000, b"k" * 9000), "^k{60}: expected each key once"),
        (b'{"a": {"b": -1e999}}', "expected numbers that fit a double"),
        (b'{"a": {"b": -' + b"9" * 310 + b"}}", "expected numbers that fit a double"),
        (b'{"a": ' + b"9" * 5000 + b"}", "expected JSON, got: Exceeds the limit"),
    ],
)
def test_what_is_not_a_document_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(ContractError, match=words):
        parse_json(data)


def test_text_with_a_nul_is_refused_by_its_place() -> None:
    """PostgreSQL cannot hold it: a record with one was tried for ever, and all behind it waited."""
    with pytest.raises(ContractError, match=r"kind: expected text without NUL, got 'a\\x00'"):
        parse_json(b'{"kind": "a\\u0000"}').text("kind")


def test_a_whole_surrogate_pair_is_one_character() -> None:
    assert parse_json(b'{"a": "\\ud83d\\ude00"}').text("a") == "\U0001f600"


@given(st.dictionaries(SHORT, JSON, max_size=5))
def test_canonical_bytes_do_not_depend_on_the_order_of_keys(document: dict[str, JsonValue]) -> None:
    data = canonical_json(document)
    assert canonical_json(dict(reversed(document.items()))) == data
    assert canonical_json(json.loads(data)) == data


@pytest.mark.parametrize(
    "text", ["", "wdbc", "wdbc@", "wdbc@0", "wdbc@-1", "wdbc@1.0", "wdbc@²", "WDBC@1", "a@" + "9" * 30]
)
def test_a_release_that_is_not_name_at_version_is_refused(text: str) -> None:
    with pytest.raises(ContractError):
        ReleaseRef.parse(text)


@given(RELEASES)
def test_a_release_is_written_as_it_is_read(release: ReleaseRef) -> None:
    assert ReleaseRef.parse(str(release)) == release


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "-a", "a-", "A", "a" * 65, "a\n", "ä", "a..b"])
def test_a_name_that_could_climb_out_of_a_folder_or_a_topic_is_refused(name: str) -> None:
    with pytest.raises(ContractError):
        model_name(name, "name")


def test_a_name_that_a_path_of_the_protocol_has_is_given_to_no_model() -> None:
    with pytest.raises(ContractError, match="name: expected another name than 'stats': /v2/models/stats is the stat"):
        new_model_name("stats", "name")
    assert model_name("stats", "name") == "stats"  # a device may be called so
    assert new_model_name("stats2", "name") == "stats2"


@st.composite
def desired_states(draw: st.DrawFn) -> DesiredState:
    releases = draw(st.lists(RELEASES, max_size=5, unique_by=lambda each: each.name))
    models = {
        each.name: DesiredModel(release=each, sha256=draw(DIGESTS), deployment=draw(st.text("abc0-", max_size=12)))
        for each in releases
    }
    return DesiredState(generation=draw(COUNTS), models=models)


@given(desired_states())
def test_desired_state_survives_the_wire(desired: DesiredState) -> None:
    assert DesiredState.parse(desired.canonical()) == desired


def test_desired_state_carries_no_array_and_refuses_to_outgrow_the_narrowest_carrier() -> None:
    def model(number: int) -> DesiredModel:
        return DesiredModel(release=ReleaseRef(ModelName(f"m{number}"), 1), sha256=DIGEST, deployment="d-1")

    few = DesiredState(generation=1, models={model(n).release.name: model(n) for n in range(10)})
    assert b"[" not in few.canonical()
    many = DesiredState(generation=1, models={model(n).release.name: model(n) for n in range(40)})
    with pytest.raises(ContractError, match=f"expected at most {MAX_DESIRED_BYTES} bytes in all"):
        many.canonical()


def test_desired_state_refuses_a_release_under_another_models_name() -> None:
    document = json.loads(DesiredState(generation=1).canonical())
    document["models"] = {"ecg": {"release": "wdbc@1", "sha256": DIGEST, "deployment": "d"}}
    with pytest.raises(ContractError, match="models.ecg.release: expected a release of ecg, got wdbc@1"):
        DesiredState.parse(json.dumps(document).encode())


@st.composite
def reported_states(draw: st.DrawFn) -> ReportedState:
    release = draw(RELEASES)
    traffic = draw(st.builds(Traffic, **dict.fromkeys(Traffic.__slots__, COUNTS)))
    live = LiveModel(release=release, sha256=draw(DIGESTS), slot="current", traffic=traffic, fallback=draw(SHORT))
    update = UpdateStatus(
        deployment="d-1", release=release, state=draw(st.sampled_from(UpdateState)), reason="x", detail=draw(SHORT)
    )
    model = ReportedModel(live=draw(st.none() | st.just(live)), update=draw(st.none() | st.just(update)))
    return ReportedState(
        generation=draw(COUNTS),
        boot="b",
        sequence=draw(COUNTS),
        agent_version="1",
        models={release.name: model},
        health=draw(st.builds(DeviceHealth, outbox_records=COUNTS, alarms=SHORT, serving_ready=st.booleans())),
    )


@given(reported_states())
def test_reported_state_survives_the_wire(reported: ReportedState) -> None:
    assert ReportedState.parse(reported.canonical()) == reported


def test_resting_states_are_the_starred_ones_of_the_design() -> None:
    starred = {"COMMITTED", "FAILED", "REJECTED", "CANCELLED", "SUPERSEDED", "ROLLED_BACK", "STRANDED"}
    assert {state.value for state in RESTING} == starred


def record(sequence: int = 1, **body: JsonValue) -> Record:
    return Record(
        epoch="e1",
        sequence=sequence,
        record_class=RecordClass.RESULT,
        kind="inference",
        boot="b",
        boot_us=5,
        wall_us=7,
        clock_trusted=True,
        body=body,
    )


@given(st.lists(st.dictionaries(SHORT, JSON, max_size=3), max_size=4))
def test_a_batch_survives_the_wire(bodies: list[dict[str, JsonValue]]) -> None:
    records = tuple(replace(record(n + 1), body=body) for n, body in enumerate(bodies))
    batch = Batch(batch_id="b-1", records=records)
    assert Batch.parse(batch.canonical()) == batch


def test_a_record_that_was_altered_on_the_way_is_named() -> None:
    batch = Batch(batch_id="b-1", records=(record(1, risk=0.25), record(2, risk=0.5)))
    altered = batch.canonical().replace(b'"risk":0.5', b'"risk":0.6')
    with pytest.raises(ContractError, match=r"records\[1\].sha256: expected the digest of the record"):
        Batch.parse(altered)


def test_a_conflict_is_seen_by_the_digest_and_a_duplicate_is_not_one() -> None:
    assert record(1, risk=0.25).sha256() == record(1, risk=0.25).sha256()
    assert record(1, risk=0.25).sha256() != record(1, risk=0.26).sha256()


@given(st.sampled_from(VerdictStatus), SHORT)
def test_an_acknowledgement_survives_the_wire(status: VerdictStatus, reason: str) -> None:
    verdict = Verdict(epoch="e", sequence=3, status=status, reason=reason)
    acknowledgement = Acknowledgement(batch_id="b", verdicts=(verdict,))
    assert Acknowledgement.parse(acknowledgement.canonical()) == acknowledgement


@given(st.binary(max_size=300), st.integers(1, 64))
def test_chunks_tile_the_artifact_and_survive_the_wire(data: bytes, chunk_bytes: int) -> None:
    index = raw_index(data, chunk_bytes=chunk_bytes)
    assert ChunkIndex.parse(index.canonical()) == index
    assert b"".join(data[c.offset : c.offset + c.size_bytes] for c in index.chunks) == data
    assert present_bytes(index, (c.sha256 for c in index.chunks)) == len(data)


def test_only_chunks_that_are_not_here_are_fetched_and_each_once() -> None:
    index = raw_index(b"aaaabbbbaaaacccc", chunk_bytes=4)
    assert [c.offset for c in index.missing(())] == [0, 4, 12]
    assert [c.offset for c in index.missing({sha256_of(b"bbbb")})] == [0, 12]


def test_an_index_with_a_gap_or_of_the_wrong_length_is_refused() -> None:
    document = json.loads(raw_index(b"aaaabbbb", chunk_bytes=4).canonical())
    gap = {**document, "chunks": document["chunks"][1:]}
    with pytest.raises(ContractError, match=r"chunks\[0\].offset: expected 0, got 4"):
        ChunkIndex.parse(json.dumps(gap).encode())
    short = {**document, "chunks": document["chunks"][:1]}
    with pytest.raises(ContractError, match="chunks: expected 8 bytes in all, got 4"):
        ChunkIndex.parse(json.dumps(short).encode())


def test_an_encoding_of_a_later_version_is_skipped_and_the_smallest_known_one_is_taken() -> None:
    document = json.loads(raw_index(b"aaaa").canonical())
    stored = document["chunks"][0]["stored"]
    stored.append({"encoding": "quantum", "sha256": DIGEST, "size_bytes": 1})
    stored.append({"encoding": "zstd", "sha256": DIGEST, "size_bytes": 2})
    (chunk,) = ChunkIndex.parse(json.dumps(document).encode()).chunks
    assert chunk.best({Encoding.RAW}).encoding is Encoding.RAW
    assert chunk.best(set(Encoding)) == StoredChunk(encoding=Encoding.ZSTD, sha256=Sha256(DIGEST), size_bytes=2)
    with pytest.raises(ContractError, match="stored: expected one of"):
        chunk.best(())
