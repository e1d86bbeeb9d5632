"""Which way to the fleet the configuration asks for, put together."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Final

from edgeward_agent.config import LinkConfig
from edgeward_agent.errors import ConfigError, LinkRefused
from edgeward_agent.identity import tls
from edgeward_agent.identity.keys import Identity, IdentityFacts
from edgeward_agent.link.https import HttpsLink
from edgeward_agent.link.mqtt import MqttLink
from edgeward_agent.link.wire import Wire
from edgeward_agent.ports import Link
from edgeward_contract.desired import DesiredState
from edgeward_contract.mqtt.broker import BrokerAddress
from edgeward_contract.record import Acknowledgement, Batch
from edgeward_contract.reported import ReportedState

_TOO_LARGE: Final = 413


class NoBroker(ConfigError):
    """The configuration asks for a broker, and nobody has said which."""

    hint = 'Set link.mqtt_url, or enrol again now that the fleet has a broker; link.kind = "https" needs none.'


class NoMqtt(ConfigError):
    """The library is not installed."""

    hint = "pip install 'edgeward[mqtt]'"


def wanted_broker(config: LinkConfig, facts: IdentityFacts) -> BrokerAddress | None:
    """The broker that the device is to use; None for HTTPS. To be asked before anything is started.

    Raises:
        ConfigError: a broker is wanted, and its address or the library for it is missing.
    """
    if config.kind == "https":
        return None
    if find_spec("paho") is None:
        raise NoMqtt('link.kind: expected paho-mqtt for "mqtt", it is not installed')
    url = config.mqtt_url or facts.mqtt_url
    if not url:
        raise NoBroker('link.kind: expected the address of a broker for "mqtt", the fleet has told none')
    try:
        return BrokerAddress.parse(url)
    except ValueError as error:
        raise NoBroker(f"the broker that the fleet has told: {error}") from None


def open_link(config: LinkConfig, broker: BrokerAddress | None, wire: Wire, identity: Callable[[], Identity]) -> Link:
    """The link by way of `broker`, or without one. `identity` is asked at each connection: it is renewed."""
    https = HttpsLink(wire, park_s=config.wait_s)
    if broker is None:
        return https
    device = identity().facts.device_id
    mqtt = MqttLink(broker, device, lambda: tls.mutual(identity()), timeout_s=config.timeout_s)
    return LargeOverHttps(mqtt, https)


class LargeOverHttps:
    """A record may be larger than what a broker carries; it goes over HTTPS then, as releases come."""

    def __init__(self, link: Link, https: Link) -> None:
        self._link: Final = link
        self._https: Final = https

    @property
    def max_batch_bytes(self) -> int:
        return self._link.max_batch_bytes

    async def next_desired(self, after: int) -> DesiredState:
        return await self._link.next_desired(after)

    async def report(self, reported: ReportedState) -> None:
        await self._link.report(reported)

    async def deliver(self, batch: Batch) -> Acknowledgement:
        """A batch of several is refused as it is: halved, most of it fits."""
        try:
            return await self._link.deliver(batch)
        except LinkRefused as refused:
            if refused.status != _TOO_LARGE or len(batch.records) > 1:
                raise
        return await self._https.deliver(batch)

    async def aclose(self) -> None:
        await self._link.aclose()
        await self._https.aclose()
