"""A new certificate before the old one ends; the old pair is kept until the new one has connected."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edgeward_agent.clock import Clock
from edgeward_agent.errors import IdentityError, LinkError, LinkLost, LinkRefused
from edgeward_agent.identity import keys, tls
from edgeward_agent.identity.keys import Identity
from edgeward_agent.link.backoff import delay_s
from edgeward_agent.link.https import hello
from edgeward_agent.link.wire import Call, Wire
from edgeward_agent.log import fields
from edgeward_contract.schema import ContractError, canonical_json, parse_json
from edgeward_contract.topics import CERTIFICATE

log = logging.getLogger(__name__)

_AT: Final = 2 / 3  # of the lifetime
_SPREAD: Final = 0.1  # of the lifetime, both ways, so that a fleet enrolled in one day does not renew in one hour
_LONGEST_NAP_S: Final = 3600.0  # the wall clock may jump while we sleep
_REST_S: Final = 3600.0  # a new certificate is left alone, whatever the clock says
_LONGEST_REST_S: Final = 86_400.0
_REST_SHARE: Final = 1 / 4  # of the lifetime: a short one must not end meanwhile
_TOLERATED_S: Final = 2 * 86_400.0  # fleets date a certificate back by an hour, and people confuse time zones
_RETRY_BASE_S: Final = 60.0
_RETRY_CAP_S: Final = 3600.0
_DAY_S: Final = 86_400
_MAX_ANSWER_BYTES: Final = 64 * 1024


def renew_at_s(not_before_s: float, not_after_s: float, draw: float) -> float:
    """When to renew, in Unix time: at 2/3 of the lifetime ± 10 %. `draw` is uniform in [0, 1]."""
    lifetime_s = not_after_s - not_before_s
    return not_before_s + lifetime_s * (_AT + _SPREAD * (2 * draw - 1))


def rest_s(lifetime_s: float, early: int) -> float:
    """How long a new certificate is left alone. `early` of them in a row were due as soon as they were signed."""
    return min(_REST_S * 2.0 ** min(early, 10), _LONGEST_REST_S, lifetime_s * _REST_SHARE)


class Renewal:
    """Keeps the certificate young. `identity` is always the one on disk."""

    def __init__(
        self,
        identity: Identity,
        wire: Wire,
        *,
        clock: Clock,
        timeout_s: float,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.identity = identity
        self._wire = wire
        self._clock = clock
        self._timeout_s = timeout_s
        self._draw = draw
        self._renewed_at_s: float | None = None  # by the monotonic clock

    @property
    def clock_ahead_s(self) -> float:
        """By how much the clock is ahead of the fleet's, which signed the newest certificate; 0 as far as is known."""
        if self._renewed_at_s is None:
            return 0.0
        since_s = self._clock.monotonic() - self._renewed_at_s
        ahead_s = self._clock.wall() - since_s - self._life_s()[0]
        return ahead_s if ahead_s > _TOLERATED_S else 0.0

    async def run(self) -> None:
        """Renew when it is time, for ever. What goes wrong is logged and tried again."""
        early = 0
        while True:
            await self._wait_until_due()
            await self._renew_at_last()
            begins_s, ends_s = self._life_s()
            early = early + 1 if renew_at_s(begins_s, ends_s, 0.0) <= self._clock.wall() else 0
            await self._leave_alone(rest_s(ends_s - begins_s, early))

    async def renew(self) -> Identity:
        """Get a certificate for a new key, connect with it, and only then make it the identity.

        Raises:
            LinkLost, LinkRefused: as the link does.
            IdentityDamaged: what came is not a certificate of the new key.
        """
        old, key = self.identity, keys.new_key()
        certificate_pem, ca_pem = await self._ask(keys.signing_request(key, old.facts.device_id).decode())
        keys.check_certificate(certificate_pem, key, ca_pem)
        staged = keys.stage(old.folder, key=key, certificate_pem=certificate_pem, ca_pem=ca_pem, facts=old.facts)
        await self._connect(staged)
        self.identity = keys.install(old.folder)
        self._renewed_at_s = self._clock.monotonic()
        self._wire.use(tls.mutual(self.identity))
        return self.identity

    def _life_s(self) -> tuple[float, float]:
        """Beginning and end of the certificate, in Unix time."""
        certificate = self.identity.certificate
        return certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()

    async def _wait_until_due(self) -> None:
        due_s = renew_at_s(*self._life_s(), self._draw())
        while (left_s := due_s - self._clock.wall()) > 0:
            await self._clock.sleep(min(left_s, _LONGEST_NAP_S))

    async def _leave_alone(self, wait_s: float) -> None:
        until_s = self._clock.monotonic() + wait_s
        while (left_s := until_s - self._clock.monotonic()) > 0:
            await self._clock.sleep(left_s)

    async def _renew_at_last(self) -> None:
        failures = 0
        while (failure := await self._failure()) is not None:
            failures += 1
            wish_s = failure.retry_after_s if isinstance(failure, LinkLost) else None
            wait_s = delay_s(failures, self._draw(), retry_after_s=wish_s, base_s=_RETRY_BASE_S, cap_s=_RETRY_CAP_S)
            await self._clock.sleep(wait_s)

    async def _failure(self) -> Exception | None:
        """Why it was not renewed; None: it was."""
        now_s = self._clock.wall()
        try:
            renewed = await self.renew()
        except (LinkError, IdentityError) as error:
            expired = keys.expiry_line(self.identity, now_s)
            log.warning("%s", expired or f"the certificate was not renewed: {error}", extra=fields(error=error))
            return error
        except OSError as error:
            log.warning("the certificate was not renewed: the disk said no", extra=fields(error=error))
            return error
        log.info("certificate renewed", extra=fields(days=renewed.days_left(now_s)))
        if days := int(self.clock_ahead_s // _DAY_S):
            log.warning("the clock is %d days ahead of the fleet's, by the new certificate; set it", days)
        return None

    async def _ask(self, csr_pem: str) -> tuple[bytes, bytes]:
        body = canonical_json({"csr_pem": csr_pem})
        answer = await self._wire.request(
            Call(method="POST", path=CERTIFICATE, body=body, limit_bytes=_MAX_ANSWER_BYTES)
        )
        try:
            document = parse_json(answer.body)
            certificate = document.text("certificate_pem", max_length=_MAX_ANSWER_BYTES)
            return certificate.encode(), document.text("ca_pem", max_length=_MAX_ANSWER_BYTES).encode()
        except ContractError as error:
            raise LinkRefused(f"fleet at {self._wire.where}: certificate: {error}") from None

    async def _connect(self, staged: Path) -> None:
        """Ask for something that needs no answer, with the new pair alone."""
        context = tls.mutual_of(staged / keys.CA, staged / keys.CERTIFICATE, staged / keys.KEY)
        trial = Wire(self.identity.facts.device_url, context, timeout_s=self._timeout_s)
        try:
            await trial.request(hello())
        finally:
            trial.close()
