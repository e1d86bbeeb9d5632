"""A bedside application: asks the device beside it about one patient after another, as hospital software would.

Plain HTTP with the standard library, the Open Inference Protocol in JSON. Each request asks for durable capture, so
that an answer means: the result is on the device's disk.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Mapping
from typing import Final

from edgeward_contract.schema import ContractError, parse_json
from edgeward_fleet.demo.ledger import Entry, Ledger
from edgeward_fleet.demo.patients import FEATURES, Patient, Wards

_TIMEOUT_S: Final = 10.0
_HEADERS: Final = {"Content-Type": "application/json"}


class Bedside(threading.Thread):
    """Asks `device` at `address` (HOST:PORT) `per_second` times a second until it is told to stop."""

    def __init__(
        self, *, device: str, address: str, model: str, wards: Wards, ledger: Ledger, per_second: float
    ) -> None:
        super().__init__(name=f"bedside-{device}", daemon=True)
        self._device = device
        self._path = f"/v2/models/{model}/infer"
        self._wards = wards
        self._ledger = ledger
        self._interval_s = 1 / per_second
        self._stopping = threading.Event()
        self._connection = http.client.HTTPConnection(address, timeout=_TIMEOUT_S)

    def stop(self) -> None:
        """Finish the request under way and end."""
        self._stopping.set()
        self.join()

    def run(self) -> None:
        due_s = time.monotonic()
        while not self._stopping.wait(max(0.0, due_s - time.monotonic())):
            due_s = max(due_s + self._interval_s, time.monotonic() - self._interval_s)
            patient, turn = self._wards.next(self._device)
            self._ledger.add(self._ask(patient, f"{self._device}/{turn}/{patient.name}"))
        self._connection.close()

    def _ask(self, patient: Patient, request_id: str) -> Entry:
        asked_s = time.monotonic()
        try:
            self._connection.request("POST", self._path, _question(patient, request_id), _HEADERS)
            response = self._connection.getresponse()
            status, body = response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()  # the next request opens it anew
            status, body = 0, json.dumps({"error": f"{type(error).__name__}: {error}"}).encode()
        took_us = round((time.monotonic() - asked_s) * 1e6)
        version, risk, problem = _read(status, body, request_id)
        return Entry(
            device=self._device,
            request_id=request_id,
            patient=patient.name,
            status=status,
            version=version,
            risk=risk,
            asked_s=asked_s,
            took_us=took_us,
            problem=problem,
        )


def _question(patient: Patient, request_id: str) -> bytes:
    tensor = {"name": "features", "shape": [1, FEATURES], "datatype": "FP32", "data": patient.features}
    return json.dumps({"id": request_id, "parameters": {"capture": "durable"}, "inputs": [tensor]}).encode()


def _read(status: int, body: bytes, request_id: str) -> tuple[int, float | None, str]:
    """Version, risk, problem. An answer to another question would be the worst error of all: it is none."""
    try:
        answer = parse_json(body)
        if status != 200:
            return 0, None, answer.text("error", default="no reason given", max_length=len(body))
        if answer.text("id") != request_id:
            return 0, None, f"expected the answer to {request_id}, got that to {answer.text('id')}"
        outputs = {each.text("name"): each.raw("data") for each in answer.objects("outputs")}
        return int(answer.text("model_version")), _scalar(outputs), ""
    except (ContractError, ValueError) as error:
        return 0, None, f"expected an answer of the protocol, got: {error}"


def _scalar(outputs: Mapping[str, object]) -> float:
    match outputs.get("risk"):
        case [float() | int() as risk]:
            return float(risk)
        case other:
            raise ValueError(f"risk: expected one number, got {other!r}")
