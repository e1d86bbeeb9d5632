"""Requests of the Open Inference Protocol with binary tensors, made once before the clock runs. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlsplit

from edgeward_agent.bench.cases import Feeds
from edgeward_agent.bench.errors import CannotMeasure
from edgeward_agent.wire import tensors
from edgeward_contract.manifest import Datatype
from edgeward_contract.schema import JsonValue

_PATIENCE_US: Final = 60_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a server answers: `unix` is the path of a socket, else host and port. `prefix` goes before /v2."""

    host: str = "localhost"
    port: int = 0
    unix: str = ""
    tls: bool = False
    prefix: str = ""

    @property
    def authority(self) -> str:
        """For the Host header."""
        named = f"[{self.host}]" if ":" in self.host else self.host
        return named if self.unix or self.port in (80, 443) else f"{named}:{self.port}"

    def __str__(self) -> str:
        return f"unix:{self.unix}" if self.unix else f"http{'s' * self.tls}://{self.authority}{self.prefix}"


def parse_place(url: str) -> Place:
    """`http://HOST:PORT`, `https://HOST/PREFIX`, `unix:/PATH`. Raises CannotMeasure, which repeats no secret."""
    if url.startswith("unix:") and len(url) > len("unix:"):
        return Place(unix=url.removeprefix("unix:").removeprefix("//"))
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise CannotMeasure(
            f"--url: expected http://HOST:PORT, https://HOST/PREFIX or unix:PATH, got {_shown(url)!r}",
            "Give the address before /v2, such as http://127.0.0.1:8000 for Triton.",
        )
    if "@" in parts.netloc or parts.query:
        found = "a user" if "@" in parts.netloc else "a query"
        raise CannotMeasure(
            f"--url: expected an address alone, got {found} in that of {_shown(url)}",
            "Send what lets you in as a header: --header 'Authorization: Bearer …'.",
        )
    tls = parts.scheme == "https"
    prefix = parts.path.rstrip("/").removesuffix("/v2")
    return Place(host=parts.hostname, port=port or (443 if tls else 80), tls=tls, prefix=prefix)


def _shown(url: str) -> str:
    """Without what may be a password or a token."""
    before, at, place = url.rpartition("@")
    return f"{'…' if before else ''}{at}{re.split('[?#]', place)[0]}"


def model_path(model: str) -> str:
    return f"/v2/models/{quote(model, safe='')}"


def infer_request(
    place: Place,
    model: str,
    feeds: Feeds,
    headers: Mapping[str, str],
    *,
    patient: bool = False,
    bits: Collection[str] = (),
) -> bytes:
    """One whole HTTP request: header, JSON, and the tensors as bytes. Asks for binary outputs.

    Args:
        patient: ask for a deadline far away: a server that refuses what would be late cannot be measured being late.
        bits: inputs that are BF16, as its bits.
    """
    described, data = _described(feeds, bits)
    parameters: dict[str, JsonValue] = {"binary_data_output": True}
    if patient:
        parameters["timeout"] = _PATIENCE_US
    document = json.dumps({"inputs": described, "parameters": parameters}).encode()
    body = b"".join((document, *data))
    fields = {
        "Host": place.authority,
        "Content-Type": "application/octet-stream",
        "Content-Length": str(len(body)),
        "Inference-Header-Content-Length": str(len(document)),
        **headers,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {place.prefix}{model_path(model)}/infer HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body


def _described(feeds: Feeds, bits: Collection[str]) -> tuple[Sequence[JsonValue], list[bytes]]:
    described: list[JsonValue] = []
    data: list[bytes] = []
    for name, array in feeds.items():
        raw = bytes(tensors.to_bytes(array))
        parameters: dict[str, JsonValue] = {"binary_data_size": len(raw)}
        datatype = Datatype.BF16 if name in bits else tensors.DATATYPE[array.dtype.newbyteorder("<")]
        described.append(
            {"name": name, "datatype": datatype.value, "shape": list(array.shape), "parameters": parameters}
        )
        data.append(raw)
    return described, data
