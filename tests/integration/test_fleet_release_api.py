"""The registry over real TLS: what is pushed is checked, and a device gets what its desired state names."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from edgeward_contract.artifact import ModelName, ReleaseRef, Sha256, sha256_of
from edgeward_contract.chunks import CHUNK_BYTES, ChunkIndex, Encoding
from edgeward_contract.desired import DesiredState
from edgeward_contract.topics import chunk_index_path, chunk_path, desired_path, manifest_path
from edgeward_fleet.accounts.model import Role
from support.fleet import Fleet, running_fleet
from support.fleet_https import Pushed, detail, post_release, push, put_artifact, start_rollout
from support.rehearsal import MODEL, manifest
from support.waiting import until

LIMIT = 2_000_000


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running_fleet(tmp_path_factory.mktemp("fleet"), max_artifact_bytes=LIMIT) as running:
        yield running


@pytest.fixture(scope="module")
def pushed(fleet: Fleet) -> Pushed:
    return push(fleet, 1)


@pytest.fixture(scope="module")
def device(fleet: Fleet, pushed: Pushed) -> httpx.Client:
    """A device that should run version 1."""
    enrolled = fleet.enrol("bed-1")
    start_rollout(fleet, str(pushed.manifest.release), target={"devices": ["bed-1"]})
    client = fleet.device_client(enrolled)
    assert client.get(desired_path(0, 10)).status_code == 200
    return client


def test_a_release_is_shown_with_its_manifest(fleet: Fleet, pushed: Pushed) -> None:
    shown = fleet.client(Role.VIEWER).get("/releases/risk/1").json()
    assert (shown["release"], shown["sha256"], shown["created_by"]) == ("risk@1", pushed.sha256, "operator")
    assert shown["manifest"]["file"]["size_bytes"] == 600_000
    models = fleet.client(Role.VIEWER).get("/models").json()
    assert [(each["name"], each["latest"]["version"]) for each in models["items"]][:1] == [("risk", 1)]
    releases = fleet.client(Role.VIEWER).get("/models/risk").json()["items"]
    assert [each["version"] for each in releases][-1] == 1


def test_the_file_comes_back_as_it_was(fleet: Fleet, pushed: Pushed) -> None:
    answer = fleet.client(Role.VIEWER).get(f"/artifacts/{pushed.manifest.file.sha256}")
    assert answer.content == pushed.data
    assert answer.headers["etag"] == f'"{pushed.manifest.file.sha256}"'


def test_pushing_again_changes_nothing(fleet: Fleet, pushed: Pushed) -> None:
    assert put_artifact(fleet, pushed.data).status_code == 200
    assert post_release(fleet, pushed.manifest.canonical()).status_code == 200


def test_a_version_names_one_content_for_ever(fleet: Fleet, pushed: Pushed) -> None:
    other = manifest(1, pushed.data, pushed.golden + b"!")
    assert put_artifact(fleet, pushed.golden + b"!").status_code == 201
    answer = post_release(fleet, other.canonical())
    assert answer.status_code == 409
    assert f"risk@1 is registered with sha256 {pushed.sha256[:12]}…" in detail(answer)
    assert "give the new content a new version" in answer.json()["hint"]


def test_a_body_that_is_not_what_its_name_says_is_refused(fleet: Fleet) -> None:
    wrong = sha256_of(b"something else")
    answer = put_artifact(fleet, b"data", wrong)
    assert answer.status_code == 422
    assert f"expected sha256 {wrong[:12]}…" in detail(answer)
    assert fleet.client(Role.VIEWER).get(f"/artifacts/{wrong}").status_code == 404


def test_a_name_that_is_no_digest_is_refused(fleet: Fleet) -> None:
    assert put_artifact(fleet, b"data", "model.onnx").status_code == 422


def test_a_file_above_the_limit_is_refused(fleet: Fleet) -> None:
    answer = put_artifact(fleet, b"x" * (LIMIT + 1))
    assert answer.status_code == 413
    assert f"expected at most {LIMIT} bytes" in detail(answer)


def test_an_upload_that_breaks_off_leaves_nothing(fleet: Fleet) -> None:
    data = b"y" * 1_500_000

    def half() -> Iterator[bytes]:
        yield data[:700_000]
        raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        fleet.client(Role.OPERATOR).put(f"/artifacts/{sha256_of(data)}", content=half())
    uploads = fleet.folder / "fleet" / "uploads"
    until(lambda: not list(uploads.iterdir()), "the spooled half to go")
    assert fleet.client(Role.VIEWER).get(f"/artifacts/{sha256_of(data)}").status_code == 404


def test_a_release_without_its_files_is_refused(fleet: Fleet) -> None:
    answer = post_release(fleet, manifest(7, b"never pushed", b"nor this").canonical())
    assert answer.status_code == 422
    assert "it was not pushed" in detail(answer)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"manifest": "%%%"}, 400, "manifest: expected base64"),
        ({"manifest": "e30="}, 422, "manifest: schema: expected a value, got nothing"),
        ({}, 422, "manifest: expected a value, got nothing"),
    ],
)
def test_what_is_not_a_manifest_is_refused(fleet: Fleet, body: dict[str, str], status: int, words: str) -> None:
    answer = fleet.client(Role.OPERATOR).post("/releases", json=body)
    assert (answer.status_code, detail(answer)) == (status, words) or words in detail(answer)
    assert answer.status_code == status


def test_a_manifest_in_other_bytes_than_the_canonical_ones_is_refused(fleet: Fleet, pushed: Pushed) -> None:
    answer = post_release(fleet, pushed.manifest.canonical().replace(b",", b", ", 1))
    assert answer.status_code == 422
    assert "expected its canonical bytes" in detail(answer)


def test_who_may_only_look_cannot_push(fleet: Fleet, pushed: Pushed) -> None:
    assert put_artifact(fleet, b"data", role=Role.VIEWER).status_code == 403
    assert post_release(fleet, pushed.manifest.canonical(), role=Role.VIEWER).status_code == 403


def test_what_there_is_not_is_not_found(fleet: Fleet) -> None:
    for path in ("/models/nothing", "/releases/risk/99", "/releases/Not%20A%20Name/1", f"/artifacts/{'0' * 64}"):
        assert fleet.client(Role.VIEWER).get(path).status_code == 404, path


def test_pushes_stand_in_the_audit_log(fleet: Fleet, pushed: Pushed) -> None:
    entries = fleet.client(Role.VIEWER).get("/audit?limit=1000").json()["items"]
    done = {(entry["actor"], entry["action"], entry["subject"]) for entry in entries}
    assert ("operator", "artifact.push", pushed.manifest.file.sha256) in done
    assert ("operator", "release.create", "risk@1") in done


def test_a_device_fetches_a_whole_release(device: httpx.Client, pushed: Pushed) -> None:
    desired = DesiredState.parse(device.get(desired_path(0, 0)).content)
    wanted = desired.models[MODEL]
    assert (wanted.release, wanted.sha256) == (ReleaseRef(MODEL, 1), pushed.sha256)
    answer = device.get(manifest_path(wanted.sha256))
    assert answer.content == pushed.manifest.canonical()
    assert answer.headers["etag"] == f'"{wanted.sha256}"'
    for artifact, data in ((pushed.manifest.file, pushed.data), (pushed.manifest.golden.file, pushed.golden)):
        index = ChunkIndex.parse(device.get(chunk_index_path(artifact.sha256)).content)
        assert index.artifact == artifact
        parts = [device.get(chunk_path(chunk.best([Encoding.RAW]).sha256)).content for chunk in index.chunks]
        assert b"".join(parts) == data
        assert all(len(part) <= CHUNK_BYTES for part in parts)


def test_a_device_gets_nothing_that_its_desired_state_does_not_name(
    fleet: Fleet, device: httpx.Client, pushed: Pushed
) -> None:
    other = push(fleet, 2)
    chunk = sha256_of(other.data[:CHUNK_BYTES])
    stranger = fleet.device_client(fleet.enrol("bed-2"))
    for client, release in ((device, other), (stranger, pushed)):
        for path in (manifest_path(release.sha256), chunk_index_path(release.manifest.file.sha256)):
            answer = client.get(path)
            assert answer.status_code == 403, path
            assert "of a release that this device should run" in detail(answer)
    assert device.get(chunk_path(chunk)).status_code == 403
    assert device.get(chunk_path(Sha256("0" * 64))).status_code == 403


def test_a_parked_poll_is_answered_as_soon_as_something_is_wanted(fleet: Fleet, pushed: Pushed) -> None:
    client = fleet.device_client(fleet.enrol("bed-3", "west"))
    assert client.get(desired_path(0, 0)).status_code == 204
    with ThreadPoolExecutor(1) as thread:
        parked = thread.submit(client.get, desired_path(0, 50))
        start_rollout(fleet, "risk@1", target={"sites": ["west"]})
        desired = DesiredState.parse(parked.result(timeout=10).content)
    assert desired.models[MODEL].release.version == 1
    assert client.get(desired_path(desired.generation, 0)).status_code == 204


@pytest.mark.parametrize("query", ["after=-2&wait=0", "after=0&wait=56", "after=x&wait=0", f"after={1 << 60}&wait=0"])
def test_a_poll_that_asks_for_nonsense_is_refused(device: httpx.Client, query: str) -> None:
    assert device.get(f"/device/v1/desired?{query}").status_code == 422


def test_a_damaged_chunk_is_never_sent_and_a_push_mends_it(
    fleet: Fleet, device: httpx.Client, pushed: Pushed, tmp_path: Path
) -> None:
    digest = sha256_of(pushed.data[:CHUNK_BYTES])
    path = fleet.folder / "fleet" / "artifacts" / digest[:2] / digest
    path.write_bytes(b"rotten")
    answer = device.get(chunk_path(digest))
    if answer.status_code == 200:  # a fleet that has just read it still has it at hand
        assert answer.content == pushed.data[:CHUNK_BYTES]
    else:
        assert (answer.status_code, "expected a sound chunk" in detail(answer)) == (500, True)
    assert put_artifact(fleet, pushed.data).status_code == 200
    assert device.get(chunk_path(digest)).content == pushed.data[:CHUNK_BYTES]


def test_a_release_that_nothing_could_name_is_not_registered(fleet: Fleet, pushed: Pushed) -> None:
    made = manifest(10**18, pushed.data, pushed.golden)
    answer = post_release(fleet, made.canonical())
    assert (answer.status_code, "version: expected 1 to 999999999999999999" in answer.text) == (422, True)
    answer = post_release(fleet, dataclasses.replace(made, name=ModelName("stats"), version=1).canonical())
    assert (answer.status_code, "expected another name than 'stats'" in answer.text) == (422, True)
