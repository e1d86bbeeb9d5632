"""A rollout as values: what was asked for (`RolloutSpec`), and what the fleet knows of it (`Rollout`).

Approval binds to the digest of the spec's canonical bytes, so the spec is a document of its own and never changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, NewType

from edgeward_contract.artifact import DeviceId, ModelName, ReleaseRef, Sha256, device_id, sha256_of
from edgeward_contract.schema import ContractError, Fields, JsonValue, canonical_json, parse_json
from edgeward_fleet.clock import rfc3339
from edgeward_fleet.rollouts.machine import PhaseStep, RolloutState

RolloutId = NewType("RolloutId", str)
MAX_PHASES: Final = 20
_WEEK_S: Final = 7 * 86_400


class OnFailure(StrEnum):
    """What a failed phase leads to."""

    ROLLBACK = "rollback"
    PAUSE = "pause"
    ABORT = "abort"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Which devices: every enrolled one, unless sites or devices are named; with both, a device must match both."""

    sites: tuple[str, ...] = ()
    devices: tuple[DeviceId, ...] = ()

    @classmethod
    def read(cls, fields: Fields) -> Target:
        _known_keys(fields, {"sites", "devices"})
        devices = tuple(device_id(each, fields.at("devices")) for each in fields.texts("devices"))
        return cls(sites=tuple(sorted(set(fields.texts("sites")))), devices=tuple(sorted(set(devices))))

    def matches(self, device: DeviceId, site: str) -> bool:
        return (not self.sites or site in self.sites) and (not self.devices or device in self.devices)

    def document(self) -> dict[str, JsonValue]:
        return {"sites": list(self.sites), "devices": list(self.devices)}

    def __str__(self) -> str:
        parts = [
            f"{key} {', '.join(names)}" for key, names in (("sites", self.sites), ("devices", self.devices)) if names
        ]
        return "; ".join(parts) or "all enrolled devices"


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseSpec:
    """One step of the widening circle. `percent` or `devices` count from the first phase on (cumulative)."""

    name: str
    percent: int | None = None
    devices: int | None = None
    soak_s: int = 30
    timeout_s: int = 3600

    @classmethod
    def read(cls, fields: Fields) -> PhaseSpec:
        _known_keys(fields, {"name", "percent", "devices", "soak_s", "timeout_s"})
        if fields.has("percent") == fields.has("devices"):
            raise ContractError(fields.path, "expected either percent or devices, got " + _either(fields))
        return cls(
            name=fields.text("name", max_length=64),
            percent=fields.integer("percent", minimum=1, maximum=100) if fields.has("percent") else None,
            devices=fields.integer("devices", minimum=1) if fields.has("devices") else None,
            soak_s=fields.integer("soak_s", default=30, minimum=0, maximum=_WEEK_S),
            timeout_s=fields.integer("timeout_s", default=3600, minimum=1, maximum=10 * _WEEK_S),
        )

    def document(self) -> dict[str, JsonValue]:
        size: dict[str, JsonValue] = {"percent": self.percent} if self.devices is None else {"devices": self.devices}
        return {"name": self.name, **size, "soak_s": self.soak_s, "timeout_s": self.timeout_s}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gates:
    """What a phase must show. Percent of its counted devices; errors in percent of the requests they answered.

    `min_errors` keeps one error in three requests from stopping a rollout; with `max_error_percent` 0 it is moot.
    """

    max_failed_percent: float = 0.0
    min_success_percent: float = 100.0
    max_error_percent: float = 2.0
    min_errors: int = 5

    @classmethod
    def read(cls, fields: Fields) -> Gates:
        _known_keys(fields, set(cls.__slots__))
        return cls(
            max_failed_percent=_percent(fields, "max_failed_percent", 0.0),
            min_success_percent=_percent(fields, "min_success_percent", 100.0),
            max_error_percent=_percent(fields, "max_error_percent", 2.0),
            min_errors=fields.integer("min_errors", default=5, minimum=1),
        )

    def document(self) -> dict[str, JsonValue]:
        return {
            "max_failed_percent": self.max_failed_percent,
            "min_success_percent": self.min_success_percent,
            "max_error_percent": self.max_error_percent,
            "min_errors": self.min_errors,
        }


DEFAULT_PHASES: Final = (
    PhaseSpec(name="canary", percent=20),
    PhaseSpec(name="everyone", percent=100),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutSpec:
    """What its author asks for. `back_timeout_s` is how long a roll-back waits for proof before it says who is missing.

    `supersedes` names an unfinished rollout of the same model that ends when this one is approved.
    """

    release: ReleaseRef
    name: str = ""
    target: Target = field(default_factory=Target)
    phases: tuple[PhaseSpec, ...] = DEFAULT_PHASES
    gates: Gates = field(default_factory=Gates)
    on_failure: OnFailure = OnFailure.ROLLBACK
    start_at: datetime | None = None
    back_timeout_s: int = 3600
    supersedes: RolloutId | None = None

    @classmethod
    def parse(cls, data: bytes) -> RolloutSpec:
        """Raises ContractError, which names the key; an unknown key is refused, for it may be a typing error."""
        return cls.read(parse_json(data))

    @classmethod
    def read(cls, fields: Fields) -> RolloutSpec:
        _known_keys(fields, set(cls.__slots__))
        return cls(
            release=ReleaseRef.parse(fields.text("release")),
            name=fields.text("name", default="", max_length=100),
            target=Target.read(fields.object("target")) if fields.has("target") else Target(),
            phases=_read_phases(fields) if fields.has("phases") else DEFAULT_PHASES,
            gates=Gates.read(fields.object("gates")) if fields.has("gates") else Gates(),
            on_failure=fields.choice("on_failure", OnFailure, default=OnFailure.ROLLBACK),
            start_at=_read_moment(fields, "start_at") if fields.has("start_at") else None,
            back_timeout_s=fields.integer("back_timeout_s", default=3600, minimum=1, maximum=10 * _WEEK_S),
            supersedes=RolloutId(fields.text("supersedes", max_length=32)) if fields.has("supersedes") else None,
        )

    def document(self) -> dict[str, JsonValue]:
        return {
            "release": str(self.release),
            "name": self.name,
            "target": self.target.document(),
            "phases": [phase.document() for phase in self.phases],
            "gates": self.gates.document(),
            "on_failure": self.on_failure.value,
            "start_at": rfc3339(self.start_at) if self.start_at else None,
            "back_timeout_s": self.back_timeout_s,
            "supersedes": self.supersedes,
        }

    def canonical(self) -> bytes:
        return canonical_json(self.document())

    def sha256(self) -> Sha256:
        """What an approver approves."""
        return sha256_of(self.canonical())


class Standing(StrEnum):
    """Where a device stands in a rollout, as far as its reports prove it."""

    WAITING = "WAITING"  # not offered yet
    UNKNOWN = "UNKNOWN"  # offered; no report answers the offer
    WORKING = "WORKING"  # its report says that it is at it
    SUCCEEDED = "SUCCEEDED"  # its report says that the release is committed and live
    ALREADY = "ALREADY"  # it ran the release before; nothing was changed
    FAILED = "FAILED"  # it reported a failure of this deployment; a later report does not undo that
    LEFT = "LEFT"  # revoked, or given another release by a later rollout


class Back(StrEnum):
    """Where a device stands in a roll-back or in the withdrawal of an offer."""

    NONE = "NONE"  # nothing to take back
    ASKED = "ASKED"  # its former release is desired again; no proof yet
    PROVEN = "PROVEN"  # its report says that the former release is live and committed
    NEVER_TOOK = "NEVER_TOOK"  # it never fetched the offer, and now cannot any more
    LEFT = "LEFT"  # revoked, or given another release by a later rollout


@dataclass(frozen=True, slots=True, kw_only=True)
class Former:
    """The release that a device is given back."""

    release: ReleaseRef
    sha256: Sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutDevice:
    """One device of a rollout. `former` is frozen when the device is offered the release (None: it had no model).

    Joiners that came after their phase was selected are offered the release but not `counted`: a denominator is frozen.
    `requests` and `errors` are of the release since the last resume; `earlier_…` is what the device's own counters
    showed then. For those that began anew, as after a reboot, it is less than nothing: what was counted before stays.
    `heard_at` is when the newest report of the device came: looked up with it, and no change of the rollout.
    """

    device: DeviceId
    site: str
    phase: int
    counted: bool = True
    standing: Standing = Standing.WAITING
    reason: str = ""
    detail: str = ""
    deployment: str | None = None
    generation: int = 0  # of the desired state that made the offer
    former: Former | None = None
    back: Back = Back.NONE
    back_deployment: str | None = None
    back_generation: int = 0
    requests: int = 0
    errors: int = 0
    earlier_requests: int = 0
    earlier_errors: int = 0
    heard_at: datetime | None = field(default=None, compare=False)

    @property
    def offered(self) -> bool:
        return self.deployment is not None

    @property
    def is_back(self) -> bool:
        return self.back in (Back.PROVEN, Back.NEVER_TOOK)

    @property
    def holds_offer(self) -> bool:
        """Offered the release, and neither gone nor known to have the former one again."""
        gone = self.standing is Standing.LEFT or self.back is Back.LEFT
        return self.offered and not gone and not self.is_back


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """A rollout with everything that a decision needs."""

    id: RolloutId
    spec: RolloutSpec
    release_sha256: Sha256
    state: RolloutState
    created_at: datetime
    since: datetime  # when `state` began
    phase_since: datetime  # when the phase was opened, or resumed; timeout_s counts from here
    step_since: datetime
    phase: int = 0
    step: PhaseStep = PhaseStep.SELECTING
    reason: str = ""
    devices: tuple[RolloutDevice, ...] = ()

    @property
    def model(self) -> ModelName:
        return self.spec.release.name

    @property
    def open_phase(self) -> PhaseSpec:
        return self.spec.phases[self.phase]

    @property
    def is_last_phase(self) -> bool:
        return self.phase == len(self.spec.phases) - 1

    def of_phase(self, phase: int) -> tuple[RolloutDevice, ...]:
        return tuple(device for device in self.devices if device.phase == phase)


def _read_phases(fields: Fields) -> tuple[PhaseSpec, ...]:
    phases = tuple(PhaseSpec.read(each) for each in fields.objects("phases", max_items=MAX_PHASES))
    names = [phase.name for phase in phases]
    if not names or len(set(names)) != len(names):
        raise ContractError(fields.at("phases"), f"expected at least one phase, each name once, got {names}")
    percents = [phase.percent for phase in phases if phase.percent is not None]
    counts = [phase.devices for phase in phases if phase.devices is not None]
    for sizes in (percents, counts):
        if sizes != sorted(sizes):
            raise ContractError(
                fields.at("phases"), f"expected sizes that grow (each includes those before), got {sizes}"
            )
    return phases


def _known_keys(fields: Fields, known: set[str]) -> None:
    unknown = sorted(set(fields.names) - known)
    if unknown:
        raise ContractError(fields.at(unknown[0]), f"expected one of {', '.join(sorted(known))}")


def _read_moment(fields: Fields, key: str) -> datetime:
    value = fields.text(key, max_length=40)
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise ContractError(fields.at(key), f"expected a time such as 2026-11-23T22:00:00Z, got {value!r}") from None
    if moment.tzinfo is None:
        raise ContractError(fields.at(key), f"expected a time with its zone (Z for UTC), got {value!r}")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ContractError(fields.at(key), f"expected a time in the years 1 to 9999 of UTC, got {value!r}") from None


def _percent(fields: Fields, key: str, default: float) -> float:
    value = fields.number(key, default=default, minimum=0.0)
    if value > 100:
        raise ContractError(fields.at(key), f"expected at most 100, got {value:g}")
    return value


def _either(fields: Fields) -> str:
    return "both" if fields.has("percent") else "neither"


def reasons_of(devices: tuple[RolloutDevice, ...]) -> Mapping[str, int]:
    """How often each reason of failure occurs, most frequent first."""
    failed = [device.reason or "no reason given" for device in devices if device.standing is Standing.FAILED]
    return dict(sorted(((each, failed.count(each)) for each in set(failed)), key=lambda item: (-item[1], item[0])))
