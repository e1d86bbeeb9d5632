"""Puts the demonstration on: opens everything in order, runs the steps, closes in reverse."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeward_contract.schema import JsonValue
from edgeward_fleet.cli.push import push_release
from edgeward_fleet.demo.broker import chosen_link, start_broker
from edgeward_fleet.demo.cables import Cables
from edgeward_fleet.demo.devices import start_devices
from edgeward_fleet.demo.errors import DemoFailed
from edgeward_fleet.demo.ledger import Ledger
from edgeward_fleet.demo.narrator import Narrator
from edgeward_fleet.demo.patients import Wards, read_patients
from edgeward_fleet.demo.processes import Household
from edgeward_fleet.demo.reckoning import Check, percentile_us
from edgeward_fleet.demo.scenario import STEPS
from edgeward_fleet.demo.staff import ADMIN, APPROVER, OPERATOR, Staff, open_fleet
from edgeward_fleet.demo.stage import MODEL, Stage, model_folder
from edgeward_fleet.errors import FleetError
from edgeward_fleet.packing.folder import read_release

VERSIONS = (1, 2, 3, 4)
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the person at the terminal asked for. `headless`: end by itself when the last step is done."""

    devices: int
    headless: bool
    keep: bool
    link: str
    models: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What the demonstration came to."""

    checks: tuple[Check, ...]
    seconds: float
    devices: int
    questions: int
    p50_us: int
    p99_us: int
    folder: Path | None

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)

    def document(self) -> dict[str, JsonValue]:
        return {
            "ok": self.ok,
            "seconds": round(self.seconds, 1),
            "devices": self.devices,
            "questions": self.questions,
            "durable_answer_us": {"p50": self.p50_us, "p99": self.p99_us},
            "checks": [check.document() for check in self.checks],
            "folder": str(self.folder) if self.folder else None,
        }


def put_on(wishes: Wishes, narrator: Narrator, stay: Callable[[], None]) -> Result:
    """Run the whole demonstration; `stay` is called before everything is taken down, unless it is headless.

    Raises:
        DemoFailed: something did not happen that had to happen.
        CommandError: the fleet refused something.
    """
    models = model_folder(wishes.models)
    with ExitStack() as stack:
        folder = stack.enter_context(place(keep=wishes.keep))
        stage = _set(stack, folder.path, models, wishes, narrator)
        checks = [check for step in STEPS for check in step(stage)]
        folder.keep |= not all(check.ok for check in checks)
        result = _result(stage, checks, folder.path if folder.keep else None)
        narrator.finish(checks)
        _tell(narrator, result)
        if not wishes.headless:
            _invite(narrator, stage.staff)
            stage.open_wards()
            stay()
        return result


def _set(stack: ExitStack, folder: Path, models: Path, wishes: Wishes, narrator: Narrator) -> Stage:
    patients = read_patients(models / "patients.csv")
    ledger = stack.enter_context(Ledger(folder / "ledger.csv"))
    cables = stack.enter_context(Cables())
    household = stack.enter_context(Household(folder))
    narrator.chapter(f"A fleet, {wishes.devices} devices and {len(patients)} patients, in {folder}")
    link = chosen_link(wishes.link, narrator)
    options: tuple[str, ...] = ()
    if link == "mqtt":
        broker = start_broker(folder, household)
        narrator.say(f"a broker of its own listens at port {broker.port}; devices come over mqtt")
        options = broker.options
    staff = open_fleet(folder, household, stack, *options)
    narrator.say(
        f"the fleet is at {staff.url}; {ADMIN} (admin), {OPERATOR} (operator), {APPROVER} (approver) work there"
    )
    for version in VERSIONS:
        push_release(staff.operator, read_release(models / "releases" / str(version)), lambda _: None)
    narrator.say(f"{MODEL} versions 1 to {VERSIONS[-1]} are registered")
    devices = start_devices(wishes.devices, folder, link, staff.operator, cables, household)
    narrator.say("enrolled and running: " + ", ".join(device.name for device in devices))
    wards = Wards([device.name for device in devices], patients)
    stage = Stage(staff=staff, devices=devices, wards=wards, ledger=ledger, household=household, narrator=narrator)
    stack.callback(stage.close_wards)
    return stage


def _result(stage: Stage, checks: list[Check], folder: Path | None) -> Result:
    entries = stage.ledger.entries()
    return Result(
        checks=tuple(checks),
        seconds=stage.narrator.elapsed_s,
        devices=len(stage.devices),
        questions=len(entries),
        p50_us=percentile_us(entries, 50),
        p99_us=percentile_us(entries, 99),
        folder=folder,
    )


def _tell(narrator: Narrator, result: Result) -> None:
    wrong = sum(not check.ok for check in result.checks)
    narrator.chapter(
        f"All {len(result.checks)} counts are what they must be"
        if result.ok
        else f"{wrong} of {len(result.checks)} counts are not what they must be"
    )
    narrator.say(
        f"{result.questions} questions; an answer whose record was on disk took {result.p50_us / 1000:.1f} ms at p50, "
        f"{result.p99_us / 1000:.1f} ms at p99"
    )
    if result.folder is not None:
        narrator.say(f"kept: {result.folder}")


def _invite(narrator: Narrator, staff: Staff) -> None:
    narrator.chapter("Everything goes on until Ctrl-C. Look around on the dashboard, or in another terminal:")
    narrator.say(
        f"{staff.url} as {ADMIN}, with the password in {staff.password_file} (the certificate is the fleet's own)"
    )
    narrator.say(
        f"edgeward login --url {staff.url} --ca-fingerprint {staff.fingerprint} "
        f"--username {ADMIN} --password-file {staff.password_file}"
    )
    narrator.say("edgeward device list; edgeward rollout list; edgeward audit list")


@dataclass(slots=True)
class _Folder:
    path: Path
    keep: bool


@contextmanager
def place(*, keep: bool) -> Iterator[_Folder]:
    """A folder that goes with the demonstration, unless somebody wants it or something went wrong in it."""
    folder = _Folder(Path(tempfile.mkdtemp(prefix="edgeward-demo-")), keep)
    try:
        yield folder
    except FleetError as error:
        folder.keep = True
        error.hint = f"{error.hint} Its folder with every log is kept: {folder.path}"
        raise
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise DemoFailed(
            f"{folder.path.parent}: expected room for the demonstration, got: {error.strerror}",
            hint="Make room there, or name a folder on another disk: TMPDIR=/path edgeward demo",
        ) from error
    finally:
        if not folder.keep:
            shutil.rmtree(folder.path, ignore_errors=True)
