"""What can be set about a fleet. The command line fills it in; tests make their own."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from edgeward_contract.mqtt.broker import BrokerAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class Argon2Cost:
    """RFC 9106 section 4, second recommended option. Tests take less, nobody else."""

    time_cost: int = 3
    memory_kib: int = 64 * 1024
    parallelism: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Sizes in bytes, times as they say. `database_url` None means SQLite in the data folder."""

    data_dir: Path
    host: str = "127.0.0.1"
    admin_port: int = 8443
    device_port: int = 8444
    enrolment_port: int = 8445
    public_host: str = "localhost"  # the name by which devices and people reach this fleet
    database_url: str | None = None
    storage_url: str | None = None  # artifacts, as fsspec understands it; None means a folder of the data folder
    ready_file: Path | None = None
    mqtt_broker: BrokerAddress | None = None  # None: devices come over HTTPS alone
    mqtt_public_url: str | None = None  # where devices reach that broker; None means under this fleet's own name

    device_certificate_life: timedelta = timedelta(days=30)
    server_certificate_life: timedelta = timedelta(days=90)
    enrolment_token_life: timedelta = timedelta(hours=24)
    login_life: timedelta = timedelta(hours=12)
    late_after: timedelta = timedelta(minutes=3)  # a poll is parked for 55 s: three missed ones
    offline_after: timedelta = timedelta(minutes=15)

    max_body_bytes: int = 2 << 20  # a batch of records is at most 1 MiB
    max_artifact_bytes: int = 2 << 30
    enrolments_per_minute: int = 20  # from one address
    logins_per_minute: int = 10  # for one account, and from one address
    ticker_interval_s: float = 1.0  # between two looks at the rollouts
    argon2: Argon2Cost = field(default_factory=Argon2Cost)

    @property
    def database_file(self) -> Path | None:
        """None when the database is elsewhere."""
        return None if self.database_url else self.data_dir / "fleet.db"

    @property
    def sqlalchemy_url(self) -> str:
        return self.database_url or f"sqlite:///{self.database_file}"

    @property
    def artifacts_url(self) -> str:
        return self.storage_url or (self.data_dir / "artifacts").absolute().as_uri()

    @property
    def admin_url(self) -> str:
        return self._url(self.admin_port)

    @property
    def device_url(self) -> str:
        return self._url(self.device_port)

    @property
    def enrolment_url(self) -> str:
        return self._url(self.enrolment_port)

    @property
    def mqtt_url(self) -> str | None:
        """What a device is told at its enrolment."""
        if self.mqtt_broker is None or self.mqtt_public_url is not None:
            return self.mqtt_public_url
        return str(replace(self.mqtt_broker, host=self.public_host))

    def _url(self, port: int) -> str:
        host = f"[{self.public_host}]" if ":" in self.public_host else self.public_host
        return f"https://{host}:{port}"
