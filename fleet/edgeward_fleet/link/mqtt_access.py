"""Who may do what at the broker: mosquitto's dynamic-security plugin, told by the fleet through its control topic.

To revoke is to take the role away first and to disconnect then, because with its certificate a device comes back in
whatever the plugin thinks of its name; without a role it can do nothing there.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from typing import Final

from edgeward_contract.artifact import DeviceId
from edgeward_contract.mqtt.broker import BrokerLost
from edgeward_contract.mqtt.connection import Connection
from edgeward_contract.schema import ContractError, Fields, JsonValue, canonical_json, parse_json
from edgeward_fleet.link.mqtt_roles import Command, Found, grant, revoke

CONTROL: Final = "$CONTROL/dynamic-security/v1"
RESPONSES: Final = f"{CONTROL}/response"
_PAGE: Final = 100  # a role has 700 bytes in a list
_BATCH: Final = 40  # commands in one message; the plugin rewrites its whole file for each command anyway
_TIMEOUT_S: Final = 60.0
_HARMLESS: Final = ("already exists", "not found")  # done before; a broker may crash between file and answer


class BrokerAccess:
    """The plugin of one broker, over one connection. Hand it what arrives on `RESPONSES`."""

    def __init__(self, connection: Connection) -> None:
        self._connection: Final = connection
        self._waiting: Final[dict[str, asyncio.Future[Fields]]] = {}

    async def reconcile(self, wanted: set[DeviceId]) -> tuple[int, int]:
        """Make the broker's roles those of the `wanted` devices; how many were added and taken away.

        Raises BrokerLost: the plugin does not answer, or not as mosquitto's does.
        """
        try:
            plan = (await self._found()).plan(wanted)
        except ContractError as error:
            raise BrokerLost(f"dynamic security: expected lists of clients and roles, got: {error}") from None
        await self._run([each for device in plan.revoke for each in revoke(device)])
        await self._run([each for device in plan.grant for each in grant(device)])
        return len(plan.grant), len(plan.revoke)

    async def grant(self, device: DeviceId) -> None:
        await self._run(grant(device))

    async def revoke(self, device: DeviceId) -> None:
        await self._run(revoke(device))

    def heard(self, payload: bytes) -> None:
        """A response of the plugin. One that cannot be read is as good as none."""
        try:
            responses = parse_json(payload).objects("responses")
        except ContractError:
            return
        for response in responses:
            waiting = self._waiting.get(str(response.raw("correlationData")))
            if waiting is not None and not waiting.done():
                waiting.set_result(response)

    async def _found(self) -> Found:
        """Raises ContractError."""
        found = Found()
        await self._list("listClients", "clients", found.add_client)
        await self._list("listRoles", "roles", found.add_role)
        return found

    async def _list(self, command: str, key: str, take: Callable[[Fields], None]) -> None:
        seen = 0
        while True:
            asked: Command = {"command": command, "verbose": True, "count": _PAGE, "offset": seen}
            (answer,) = await self._send([asked])
            page = answer.object("data").objects(key)
            for each in page:
                take(each)
            seen += len(page)
            if len(page) < _PAGE:
                return

    async def _run(self, commands: Sequence[Command]) -> None:
        """Raises BrokerLost when the plugin does not do as it was told."""
        for first in range(0, len(commands), _BATCH):
            for answer in await self._send(commands[first : first + _BATCH]):
                problem = str(answer.raw("error") or "")
                if problem and not any(words in problem.lower() for words in _HARMLESS):
                    raise BrokerLost(f"dynamic security: {answer.raw('command')}: expected success, got: {problem}")

    async def _send(self, commands: Sequence[Command]) -> list[Fields]:
        loop = asyncio.get_running_loop()
        expected: dict[str, asyncio.Future[Fields]] = {secrets.token_hex(8): loop.create_future() for _ in commands}
        self._waiting.update(expected)
        tagged: list[JsonValue] = [
            {**each, "correlationData": tag} for each, tag in zip(commands, expected, strict=True)
        ]
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await self._connection.publish(CONTROL, canonical_json({"commands": tagged}))
                answers = asyncio.gather(*expected.values())
                await asyncio.wait((answers, self._connection.ended), return_when=asyncio.FIRST_COMPLETED)
                if not answers.done():
                    answers.cancel()
                    raise self._connection.ended.result()
                return answers.result()
        except TimeoutError:
            raise BrokerLost("dynamic security: expected an answer, got none; is the plugin loaded?") from None
        finally:
            for tag in expected:
                del self._waiting[tag]
