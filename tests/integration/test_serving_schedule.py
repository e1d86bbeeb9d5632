"""Deadlines, priorities and joined runs, asked of the real serving process."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from edgeward_agent.client import Client, ServerFailed
from edgeward_agent.serving.cores import usable_cores
from edgeward_agent.serving_control import ServingControl
from edgeward_contract.artifact import ModelName
from edgeward_contract.manifest import Budget
from edgeward_contract.serving_options import Batching, ServingOptions
from support.serving import (
    Device,
    Reply,
    ask,
    device,
    findings_model,
    manifest_for,
    slow_lookup_model,
    slow_model,
    wait_until,
    write_release,
)

SLOW = "/v2/models/slow/infer"
BUDGET = Budget(latency_us=60_000)


@contextmanager
def serving_slow(tmp_path: Path, *extra: str, budget: Budget = BUDGET) -> Iterator[Device]:
    """A device whose only model takes about ten ms for 24 rows; it has learned so."""
    model = slow_model(tmp_path / "slow" / "model.onnx")
    with device(tmp_path / "d") as made:
        made.commit(write_release(model.parent, manifest_for(model, "slow", budget=budget)))
        made.start(*extra)
        for _ in range(4):
            assert rows(made, timeout=0).status == 200
        yield made


def rows(made: Device, count: int = 24, **parameters: int) -> Reply:
    """Ask for `count` rows, as raw bytes would be hard to label: shapes in a header, zeros behind it."""
    header = (
        b'{"inputs":[{"name":"in","datatype":"FP32","shape":[%d,512],"parameters":{"binary_data_size":%d}}],'
        b'"parameters":{"binary_data_output":true%s}}'
    ) % (count, count * 2048, "".join(f',"{k}":{v}' for k, v in parameters.items()).encode())
    headers = {"Inference-Header-Content-Length": str(len(header))}
    return ask(made.port, SLOW, header + bytes(count * 2048), headers=headers)


def outcomes(made: Device) -> dict[str, int]:
    traffic = asyncio.run(ServingControl(made.control_path).state()).models[ModelName("slow")].traffic
    return {"late": traffic.late, "refused": traffic.refused, "errors": traffic.errors}


def test_what_cannot_be_in_time_is_refused_at_once_and_counted(tmp_path: Path) -> None:
    with serving_slow(tmp_path) as made:
        refused = rows(made, timeout=1000)
        assert refused.status == 503
        assert "expected to answer before the deadline" in refused.error
        assert outcomes(made) == {"late": 0, "refused": 1, "errors": 0}
        assert rows(made, timeout=5_000_000).status == 200


def test_a_model_that_is_over_its_own_budget_answers_late_and_is_counted(tmp_path: Path) -> None:
    with serving_slow(tmp_path, budget=Budget(latency_us=10_000)) as made:
        assert [rows(made, 150).status for _ in range(3)] == [200] * 3
        assert outcomes(made)["late"] == 3


@pytest.mark.parametrize("how", ["timeout", "setting"])
def test_overload_is_an_answer_unless_nobody_set_a_deadline(tmp_path: Path, how: str) -> None:
    extra = ("--deadlines", "off") if how == "setting" else ()
    with serving_slow(tmp_path, *extra, budget=Budget(latency_us=25_000)) as made, ThreadPoolExecutor(16) as pool:
        if how == "timeout":
            statuses = [each.result().status for each in [pool.submit(rows, made) for _ in range(32)]]
            assert set(statuses) == {200, 503}
            assert outcomes(made)["refused"] == statuses.count(503)
        patient = {"timeout": 0} if how == "timeout" else {}
        answers = [each.result().status for each in [pool.submit(rows, made, **patient) for _ in range(32)]]
        assert answers == [200] * 32


def test_one_whose_deadline_passes_in_the_line_is_told_then_and_not_when_a_thread_is_free(tmp_path: Path) -> None:
    callers = usable_cores() + 2
    with serving_slow(tmp_path) as made, ThreadPoolExecutor(callers) as pool:
        # Nobody knows yet what so many rows take: the estimate is nothing, and the threads are all busy.
        long: list[Future[Reply]] = [pool.submit(rows, made, 400, timeout=0) for _ in range(callers)]
        wait_until(lambda: re.search(rb"edgeward_waiting_requests [1-9]", ask(made.port, "/metrics").body) is not None)
        told = threading.Event()
        expired: list[Reply] = []

        def knock() -> bool:
            reply = rows(made, 200, timeout=3000)
            if "or the end of the server" in (reply.error if reply.status == 503 else ""):
                expired.append(reply)
                told.set()
            return told.is_set() or all(each.done() for each in long)

        wait_until(knock)
        assert expired
        assert not all(each.done() for each in long)
        assert {each.result().status for each in long} == {200}


def test_who_waits_when_the_server_ends_gets_an_answer(tmp_path: Path) -> None:
    count = 100  # of a fifth of a second and more: more than can run until the end
    with serving_slow(tmp_path, "--deadlines", "off") as made, ThreadPoolExecutor(count) as pool:
        asked = [pool.submit(rows, made, 400) for _ in range(count)]
        wait_until(
            lambda: re.search(rb"edgeward_waiting_requests [1-9]\d", ask(made.port, "/metrics").body) is not None
        )
        assert made.process is not None
        made.process.terminate()
        statuses = [each.result().status for each in asked]
        assert set(statuses) == {200, 503}
        assert made.process.wait(10) == 0


def test_what_has_as_many_rows_as_it_finds_is_never_joined(tmp_path: Path) -> None:
    """Findings of one patient would be shared out evenly among all."""
    model = findings_model(tmp_path / "hits" / "model.onnx")
    options = ServingOptions(batching=Batching(max_rows=8, max_delay_us=20_000))
    patients = ([-1.0, -1.0, -1.0], [11.0, 21.0, -1.0], [12.0, -1.0, -1.0], [14.0, 24.0, 34.0])
    with device(tmp_path / "d") as made:
        made.commit(write_release(model.parent, manifest_for(model, "hits", serving=options)))
        made.start("--deadlines", "off")

        def wrong(number: int) -> int:
            sent = patients[number % len(patients)]
            with Client(f"unix:{made.unix_path}") as client:
                answers = [
                    client.infer("hits", {"in": np.array([sent], np.float32)})["hits"].tolist() for _ in range(50)
                ]
            return sum(answer != [each for each in sent if each > 10] for answer in answers)

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(wrong, range(8))) == 0
        assert "requests are not joined" in made.log.read_text()


def test_joined_requests_get_their_own_rows_and_one_that_fails_harms_no_other(tmp_path: Path) -> None:
    model = slow_lookup_model(tmp_path / "slow" / "model.onnx")
    options = ServingOptions(batching=Batching(max_rows=64, max_delay_us=2000))
    with device(tmp_path / "d") as made:
        made.commit(write_release(model.parent, manifest_for(model, "slow", serving=options)))
        made.start("--deadlines", "off")

        def infer(number: int) -> list[float] | str:
            index = np.full(4, 9 if number % 7 == 3 else number % 3)
            with Client(f"unix:{made.unix_path}") as client:
                try:
                    answer = client.infer("slow", {"in": np.ones((4, 512), np.float32), "index": index})
                except ServerFailed as error:
                    return str(error)
                return [float(each) for each in answer["item"]]

        with ThreadPoolExecutor(16) as pool:
            found = list(pool.map(infer, range(64)))
    for number, result in enumerate(found):
        if number % 7 == 3:
            assert isinstance(result, str)
            assert "out of data bounds" in result
        else:
            assert result == [1.0 + number % 3] * 4
