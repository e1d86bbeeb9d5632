"""What a server of the Open Inference Protocol v2 says of a model, before it is measured."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from edgeward_agent.bench.connection import connect
from edgeward_agent.bench.errors import CannotMeasure, ServerLost
from edgeward_agent.bench.wire import Place, model_path
from edgeward_contract.manifest import TensorSpec
from edgeward_contract.schema import ContractError, parse_json
from edgeward_contract.visible import visible

_CHECK: Final = (
    "Check the address; give what comes before /v2, over HTTP: http://127.0.0.1:8000 for Triton, :8500 for"
    " edgeward-agent."
)


def inputs_of(place: Place, model: str, headers: Mapping[str, str], timeout_s: float) -> tuple[TensorSpec, ...]:
    """The inputs of a model on a server.

    Raises:
        ServerLost: nobody answers there.
        CannotMeasure: the server has no such model, or speaks another protocol.
    """
    status, content = _get(place, place.prefix + model_path(model), headers, timeout_s)
    if status == HTTPStatus.OK:
        return _inputs(place, content)
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN) or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise ServerLost(
            f"{place}: expected the metadata of '{model}', got status {status}{_said(content)}",
            "Check that the model is ready there; --header 'Authorization: Bearer …' sends a token.",
        )
    if not _speaks_v2(place, headers, timeout_s):
        raise _no_v2(place, f"status {status}{_said(content)} for {place.prefix}{model_path(model)}")
    raise CannotMeasure(
        f"{place}: expected a model '{model}', got status {status}{_said(content)}",
        "Give the name that the server knows it by, as MODEL or with --name; see GET /v2/models/NAME.",
    )


def _inputs(place: Place, content: bytes) -> tuple[TensorSpec, ...]:
    try:
        found = parse_json(content)
        if not found.has("inputs"):
            raise _no_v2(place, "JSON without the inputs of a model")
    except ContractError:
        raise _no_v2(place, f"an answer that is no JSON: {_begin(content)}") from None
    try:
        return tuple(TensorSpec.read(each) for each in found.objects("inputs"))
    except ContractError as error:
        raise CannotMeasure(
            f"{place}: expected inputs of types that can be made, got: {visible(str(error))}",
            "Bench a model whose tensors are of ordinary types, such as FP32 or INT64.",
        ) from None


def _speaks_v2(place: Place, headers: Mapping[str, str], timeout_s: float) -> bool:
    """Whether the server describes itself, or its health, as the protocol has it: a page of HTML is neither."""
    status, content = _get(place, f"{place.prefix}/v2", headers, timeout_s)
    if status == HTTPStatus.OK and _is_json(content):
        return True
    status, content = _get(place, f"{place.prefix}/v2/health/live", headers, timeout_s)
    return status == HTTPStatus.OK and (not content.strip() or _is_json(content))


def _is_json(content: bytes) -> bool:
    try:
        parse_json(content)
    except ContractError:
        return False
    return True


def _no_v2(place: Place, found: str) -> CannotMeasure:
    return CannotMeasure(f"{_wanted(place)}, got {found}", _CHECK)


def _wanted(place: Place) -> str:
    return f"expected a V2 server (Open Inference Protocol) at {place}"


def _get(place: Place, path: str, headers: Mapping[str, str], timeout_s: float) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("localhost")
    try:
        connection.sock = connect(place, timeout_s)
        connection.sock.settimeout(timeout_s)
        connection.request("GET", path, headers={"Host": place.authority, **headers})
        response = connection.getresponse()
        return response.status, response.read()
    except http.client.RemoteDisconnected:
        raise ServerLost(f"{_wanted(place)}, got: the connection was closed without an answer", _CHECK) from None
    except http.client.HTTPException as error:
        raise _no_v2(place, f"an answer that is no HTTP: {_begin(str(error).encode('latin-1', 'replace'))}") from None
    except (OSError, ssl.SSLError) as error:
        words = (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()
        raise ServerLost(
            f"{_wanted(place)}, got: {visible(words)}",
            "Check the address and that the server runs: curl ADDRESS/v2/health/ready.",
        ) from None
    finally:
        connection.close()


def _begin(content: bytes) -> str:
    """As much as shows what it is."""
    words = " ".join(content[:300].decode(errors="replace").split())
    return f"'{visible(words[:60])}'" if words else "nothing"


def _said(content: bytes) -> str:
    try:
        return f": {visible(parse_json(content).text('error', max_length=10_000)[:200])}"
    except ContractError:
        return ""
