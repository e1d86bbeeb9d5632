"""The command against a real fleet: what people do with it, in their order, and what they are told when it is wrong."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgeward_contract.desired import DesiredState
from edgeward_contract.manifest import Manifest
from edgeward_contract.reported import LiveModel, ReportedModel, ReportedState, UpdateState, UpdateStatus
from edgeward_contract.schema import Fields, parse_json
from edgeward_fleet.accounts.model import Role
from edgeward_fleet.cli.app import invoke
from edgeward_fleet.cli.profile import read_profile
from support.fleet import PASSWORD, EnrolledDevice, Fleet, in_thread, make_settings, running_fleet
from support.models import wdbc_release
from support.waiting import until


@dataclass(frozen=True, slots=True)
class Told:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Fields:
        return parse_json(self.out.encode())


@dataclass(slots=True)
class Person:
    """Runs `edgeward` as somebody."""

    capsys: pytest.CaptureFixture[str]

    def runs(self, *arguments: str) -> Told:
        self.capsys.readouterr()
        code = invoke(arguments)
        said = self.capsys.readouterr()
        assert "Traceback" not in said.err
        return Told(code, said.out, said.err)

    def gets(self, *arguments: str) -> Fields:
        told = self.runs(*arguments, "--json")
        assert told.code == 0, told.err
        return told.document


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running_fleet(tmp_path_factory.mktemp("fleet")) as running:
        yield running


@pytest.fixture
def person(fleet: Fleet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Person:
    """Nobody is logged in; the fleet is known."""
    monkeypatch.setenv("EDGEWARD_PROFILE", str(tmp_path / "profile.json"))
    monkeypatch.setenv("EDGEWARD_URL", fleet.ready.admin_url)
    monkeypatch.setenv("EDGEWARD_CA", str(fleet.ca_file))
    return Person(capsys)


@pytest.fixture
def acting(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> Acting:
    return Acting(fleet, monkeypatch)


@dataclass(slots=True)
class Acting:
    """Changes whose token the command carries."""

    fleet: Fleet
    monkeypatch: pytest.MonkeyPatch

    def __call__(self, role: Role) -> None:
        self.monkeypatch.setenv("EDGEWARD_TOKEN", self.fleet.tokens[role])


@pytest.fixture
def password_file(tmp_path: Path) -> str:
    (tmp_path / "password").write_text(PASSWORD + "\n")
    return str(tmp_path / "password")


@pytest.fixture(scope="module")
def devices(fleet: Fleet) -> list[EnrolledDevice]:
    return [fleet.enrol(f"bed-{number}", site) for number, site in enumerate(("north", "north", "south"), start=1)]


@pytest.fixture
def pushed(person: Person, acting: Acting) -> None:
    acting(Role.OPERATOR)
    assert person.runs("model", "push", str(wdbc_release(1))).code == 0


def test_from_the_one_time_link_to_a_log_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], password_file: str
) -> None:
    profile = tmp_path / "profile.json"
    monkeypatch.setenv("EDGEWARD_PROFILE", str(profile))
    person = Person(capsys)
    with in_thread(make_settings(tmp_path)) as ready:
        assert ready.setup_url is not None
        setup = ("setup", ready.setup_url, "--username", "ada", "--password-file", password_file)
        with monkeypatch.context() as patch:
            patch.setenv("EDGEWARD_PROFILE", "/dev/null/profile.json")
            unkept = person.runs(*setup, "--ca-fingerprint", ready.ca_fingerprint)
        assert (unkept.code, "/dev/null" in unkept.err) == (1, True)  # and the link is as good as it was
        refused = person.runs(*setup)
        assert (refused.code, "found one of a CA of its own" in refused.err) == (4, True)
        wrong = person.runs(*setup, "--ca-fingerprint", "sha256:" + "0" * 64)
        assert (wrong.code, "expected the CA sha256:0000" in wrong.err) == (4, True)
        assert not profile.exists()
        made = person.runs(*setup, "--ca-fingerprint", ready.ca_fingerprint)
        assert made.code == 0, made.err
        assert made.out.startswith(f"Logged in at {ready.admin_url} as ada (admin), until ")
        assert stat.S_IMODE(profile.stat().st_mode) == 0o600
        assert person.gets("whoami").text("role") == "admin"
        used = person.runs(*setup)
        assert (used.code, used.err.splitlines()[0]) == (
            4,
            "error: expected the valid set-up link, got one that was used or replaced",
        )
        assert person.runs("logout").out == "Logged out.\n"
        assert read_profile(profile).token == ""
        assert person.runs("whoami").code == 4
        again = person.runs("login", "--username", "ada", "--password-file", password_file)
        assert again.code == 0, again.err  # address and CA are remembered
    gone = person.runs("whoami")
    assert (gone.code, "expected a fleet to answer" in gone.err) == (3, True)


def test_a_wrong_password_is_not_allowed(person: Person, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("something else entirely\n")
    told = person.runs("login", "--username", "admin", "--password-file", str(tmp_path / "wrong"))
    assert told.code == 4
    assert told.err.startswith("error: ")


def test_without_the_fleets_ca_nothing_is_said_to_it(
    person: Person, acting: Acting, monkeypatch: pytest.MonkeyPatch
) -> None:
    acting(Role.ADMIN)
    monkeypatch.delenv("EDGEWARD_CA")
    told = person.runs("model", "list")
    assert told.code == 4
    assert "expected a certificate that we trust, found: " in told.err
    assert "--ca-fingerprint" in told.err


def test_a_release_is_registered_once(person: Person, acting: Acting) -> None:
    acting(Role.OPERATOR)
    first = person.gets("model", "push", str(wdbc_release(2)))
    again = person.gets("model", "push", str(wdbc_release(2)))
    assert (first.boolean("created"), again.boolean("created")) == (True, False)
    assert first.text("sha256") == again.text("sha256")
    listed = person.gets("model", "list").objects("items")
    assert [item.object("latest").text("release") for item in listed] == ["wdbc-risk@2"]
    shown = person.gets("model", "show", "wdbc-risk@2")
    assert Manifest.parse((wdbc_release(2) / "manifest.json").read_bytes()).sha256() == shown.text("sha256")
    assert "wdbc-risk@2" in person.runs("model", "list", "wdbc-risk").out
    assert "features" in person.runs("model", "show", "wdbc-risk@2").out


def test_the_same_version_with_other_content_is_refused(
    person: Person, acting: Acting, pushed: None, tmp_path: Path
) -> None:
    manifest = parse_json((wdbc_release(1) / "manifest.json").read_bytes()).members()
    for name in ("model.onnx", "golden.npz"):
        (tmp_path / name).write_bytes((wdbc_release(1) / name).read_bytes())
    changed = Manifest.parse(json.dumps({**manifest, "summary": "another"}).encode())
    (tmp_path / "manifest.json").write_bytes(changed.canonical())
    told = person.runs("model", "push", str(tmp_path))
    assert told.code == 1
    assert "wdbc-risk@1" in told.err


def test_a_viewer_may_look_and_no_more(person: Person, acting: Acting) -> None:
    acting(Role.VIEWER)
    assert person.runs("model", "list").code == 0
    told = person.runs("device", "token", "--site", "north")
    assert (told.code, told.err.splitlines()[0]) == (
        4,
        "error: expected the role operator or higher, viewer has viewer here",
    )


def test_a_token_comes_with_the_whole_command(person: Person, acting: Acting, fleet: Fleet) -> None:
    acting(Role.OPERATOR)
    told = person.runs("device", "token", "--site", "west", "--device-id", "bed-9")
    command = told.out.splitlines()[-1]
    assert command.startswith(f"edgeward-agent enrol --fleet {fleet.ready.enrolment_url} --token ")
    assert command.endswith(f"--ca-fingerprint {fleet.ready.ca_fingerprint}")


def test_devices_are_listed_shown_and_shut_out(person: Person, acting: Acting, fleet: Fleet) -> None:
    fleet.enrol("bed-lost", "attic")
    acting(Role.ADMIN)
    assert [item.text("device_id") for item in person.gets("device", "list", "--site", "attic").objects("items")] == [
        "bed-lost"
    ]
    assert "bed-lost" in person.runs("device", "list").out
    assert person.gets("device", "show", "bed-lost").text("site") == "attic"
    assert person.runs("device", "revoke", "bed-lost", "--yes", "--reason", "stolen").out == "bed-lost is revoked.\n"
    assert person.gets("device", "show", "bed-lost").text("state") == "revoked"
    entries = person.gets("audit", "list", "--limit", "1").objects("items")
    assert [entry.text("subject") for entry in entries] == ["bed-lost"]
    assert person.runs("device", "show", "nobody").code == 1


def test_a_rollout_to_nobody_is_refused(person: Person, acting: Acting, pushed: None) -> None:
    told = person.runs("rollout", "create", "--release", "wdbc-risk@1", "--site", "nowhere")
    assert told.code == 1
    assert "matches no device" in told.err


def test_a_rollout_from_asking_to_success(
    person: Person, acting: Acting, pushed: None, fleet: Fleet, devices: list[EnrolledDevice]
) -> None:
    asked = ("rollout", "create", "--release", "wdbc-risk@1", "--phases", "30%,100%", "--soak", "1s", "--site")
    made = person.gets(*asked, "north", "--site", "south")
    rollout = made.text("id")
    assert [phase.text("name") for phase in made.objects("phases")] == ["canary", "everyone"]
    assert person.runs("rollout", "watch", rollout, "--timeout", "1s").code == 3
    alone = person.runs("rollout", "approve", rollout)
    assert alone.code == 4
    acting(Role.APPROVER)
    wrong = person.runs("rollout", "approve", rollout, "--spec", "0" * 64)
    assert wrong.code == 1
    assert person.runs("rollout", "approve", rollout).code == 0
    commit_until_finished(person, fleet, devices, rollout)
    watched = person.runs("rollout", "watch", rollout, "--timeout", "20s")
    assert watched.code == 0, watched.err
    assert "SUCCEEDED" in watched.out.splitlines()[-1]
    shown = person.runs("rollout", "show", rollout).out
    assert all(word in shown for word in ("canary", "passed", "bed-1", "asked for by operator, approved by approver"))


def test_a_rollout_is_paused_resumed_and_aborted(person: Person, acting: Acting, pushed: None, fleet: Fleet) -> None:
    fleet.enrol("bed-4", "east")
    assert person.runs("model", "push", str(wdbc_release(2))).code == 0
    rollout = person.gets("rollout", "create", "--release", "wdbc-risk@2", "--device", "bed-4").text("id")
    acting(Role.APPROVER)
    assert person.runs("rollout", "approve", rollout).code == 0
    until(lambda: person.gets("rollout", "show", rollout).text("state") == "PROGRESSING", "the rollout to start")
    assert person.gets("rollout", "pause", rollout, "--reason", "lunch").text("state") == "PAUSED"
    assert person.gets("rollout", "resume", rollout).text("state") == "PROGRESSING"
    assert person.runs("rollout", "abort", rollout, "--reason", "second thoughts").code == 0
    until(lambda: person.gets("rollout", "show", rollout).text("state") == "ABORTED", "the rollout to end")
    listed = person.gets("rollout", "list").objects("items")
    assert rollout in [item.text("id") for item in listed]
    again = person.runs("rollout", "approve", rollout)
    assert (again.code, "ABORTED" in again.err) == (1, True), again.err


def test_accounts_are_made_changed_and_given_tokens(
    person: Person, acting: Acting, password_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    acting(Role.ADMIN)
    made = person.gets("account", "create", "grace", "--role", "viewer", "--password-file", password_file)
    assert made.text("role") == "viewer"
    assert person.runs("account", "change", "grace", "--role", "operator").out == "grace is changed.\n"
    assert "grace" in person.runs("account", "list").out
    token = person.gets("account", "token", "create", "ci", "--role", "viewer", "--days", "1")
    assert token.text("token_id") in person.runs("account", "token", "list").out
    assert person.runs("account", "token", "revoke", token.text("token_id")).code == 0
    assert token.text("token_id") not in person.runs("account", "token", "list").out
    assert person.runs("account", "change", "grace", "--disabled").code == 0
    monkeypatch.delenv("EDGEWARD_TOKEN")
    assert person.runs("login", "--username", "grace", "--password-file", password_file).code == 4


def commit_until_finished(person: Person, fleet: Fleet, devices: list[EnrolledDevice], rollout: str) -> None:
    """Do what agents do: take what is desired of each device and report it committed, until nothing more is asked."""
    deadline, sequence = time.monotonic() + 20, 0
    while not person.gets("rollout", "show", rollout).boolean("finished"):
        assert time.monotonic() < deadline, person.gets("rollout", "show", rollout).members()
        for number, device in enumerate(devices):
            answer = fleet.device_client(device).get("/device/v1/desired?after=0&wait=0")
            if answer.status_code == 200:
                sequence += 1
                report = committed(DesiredState.parse(answer.content), number, sequence)
                assert fleet.device_client(device).post("/device/v1/reported", content=report).status_code == 204


def committed(desired: DesiredState, number: int, sequence: int) -> bytes:
    models = {
        name: ReportedModel(
            live=LiveModel(release=model.release, sha256=model.sha256, slot="current"),
            update=UpdateStatus(deployment=model.deployment, release=model.release, state=UpdateState.COMMITTED),
        )
        for name, model in desired.models.items()
    }
    state = ReportedState(
        generation=desired.generation, boot=f"boot-{number}", sequence=sequence, agent_version="test", models=models
    )
    return state.canonical()
