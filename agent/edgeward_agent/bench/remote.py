"""What a server of the Open Inference Protocol v2 says of a model, before it is measured."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping
from http import HTTPStatus

from edgeward_agent.bench.connection import connect
from edgeward_agent.bench.errors import CannotMeasure, ServerLost
from edgeward_agent.bench.wire import Place, model_path
from edgeward_contract.manifest import TensorSpec
from edgeward_contract.schema import ContractError, parse_json


def inputs_of(place: Place, model: str, headers: Mapping[str, str], timeout_s: float) -> tuple[TensorSpec, ...]:
    """The inputs of a model on a server.

    Raises:
        ServerLost: nobody answers there.
        CannotMeasure: the server has no such model, or speaks another protocol.
    """
    path = place.prefix + model_path(model)
    status, content = _get(place, path, headers, timeout_s)
    if status in (HTTPStatus.NOT_FOUND, HTTPStatus.BAD_REQUEST):
        raise CannotMeasure(
            f"{place}: expected a model '{model}', got status {status}{_said(content)}",
            "Give the name that the server knows it by, as MODEL or with --name; see GET /v2/models/NAME.",
        )
    if status != HTTPStatus.OK:
        raise ServerLost(
            f"{place}: expected the metadata of '{model}', got status {status}{_said(content)}",
            "Check that the model is ready there; --header 'Authorization: Bearer …' sends a token.",
        )
    try:
        return tuple(TensorSpec.read(each) for each in parse_json(content).objects("inputs"))
    except ContractError as error:
        raise CannotMeasure(
            f"{place}: expected an answer of the Open Inference Protocol v2, got: {error}",
            "Give the address before /v2: http://127.0.0.1:8000 for Triton, http://127.0.0.1:8500 for edgeward-agent.",
        ) from None


def _get(place: Place, path: str, headers: Mapping[str, str], timeout_s: float) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("localhost")
    try:
        connection.sock = connect(place, timeout_s)
        connection.sock.settimeout(timeout_s)
        connection.request("GET", path, headers={"Host": place.authority, **headers})
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException, ssl.SSLError) as error:
        words = (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()
        raise ServerLost(
            f"{place}: expected a server of the Open Inference Protocol v2, got: {words}",
            "Check the address and that the server runs: curl ADDRESS/v2/health/ready.",
        ) from None
    finally:
        connection.close()


def _said(content: bytes) -> str:
    try:
        return f": {parse_json(content).text('error', max_length=10_000)[:200]}"
    except ContractError:
        return ""
