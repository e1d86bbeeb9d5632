"""Who may ask this device: what `edgeward-agent doctor` says of each address, in words. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from edgeward_agent.addresses import host_and_port, is_loopback
from edgeward_agent.config import ServingConfig

_FEW: Final = 1
"""Users who can log in. One is the person whose machine it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One address and who may use it. `problem` is what a careful admin would change; empty when nothing."""

    address: str
    who: str
    problem: str = ""


def ways(config: ServingConfig, *, users: int) -> tuple[Way, ...]:
    """Every way to ask a device that is configured so.

    Args:
        users: people who can log in to the machine; 0 is not known.
    """
    found = [_tcp(address, config, users) for address in (config.http, config.grpc) if address]
    found += [_unix(path, config) for path in (config.unix, config.frames) if path]
    return tuple(found)


def _tcp(address: str, config: ServingConfig, users: int) -> Way:
    loopback = is_loopback(host_and_port(address)[0])
    near = "programs on this machine" if loopback else "everybody who reaches this machine"
    if config.token_file:
        problem = "" if loopback else "the token goes over the network as it is"
        return Way(address=address, who=f"{near} with the token", problem=problem)
    if not loopback:
        return Way(address=address, who=near, problem="other machines may ask without a token")
    problem = f"{users} users can log in, and each of them may ask" if users > _FEW else ""
    return Way(address=address, who=near, problem=problem)


def _unix(path: str, config: ServingConfig) -> Way:
    group = f"group {config.unix_group}" if config.unix_group else "its group"
    who = {"0600": "the agent's user", "0660": f"the agent's user and {group}", "0666": "every user of this machine"}
    return Way(address=f"unix:{path}", who=who[config.unix_mode])
