"""The client through shared memory: when it is used, what it does when it cannot be, and a server that dies."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from edgeward_agent.client import (
    AsyncClient,
    Client,
    InvalidRequest,
    ModelNotFound,
    NotRecorded,
    ServerFailed,
    Unavailable,
    Unreachable,
)
from edgeward_agent.serving_control import ServingControl
from edgeward_contract.artifact import ModelName
from edgeward_contract.manifest import CaptureMode
from support.serving import (
    FEATURES,
    Device,
    Release,
    Sink,
    cast_model,
    constant_release,
    device,
    failing_model,
    identity_model,
    manifest_for,
    nonzero_model,
    slow_model,
    wait_until,
    write_release,
)

TOY = ModelName("toy")
ZEROS = np.zeros((1, FEATURES), np.float32)


def _releases(folder: Path) -> list[Release]:
    models = {
        "floats": identity_model(folder / "floats" / "model.onnx", TensorProto.FLOAT, ["n", "m"]),
        "words": identity_model(folder / "words" / "model.onnx", TensorProto.STRING, ["n"]),
        "table": failing_model(folder / "table" / "model.onnx"),
        "where": nonzero_model(folder / "where" / "model.onnx"),
        "slow": slow_model(folder / "slow" / "model.onnx", 400),
    }
    made = [write_release(path.parent, manifest_for(path, name)) for name, path in models.items()]
    return [constant_release(folder, 1.0), *made]


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> list[Release]:
    return _releases(tmp_path_factory.mktemp("releases"))


@pytest.fixture
def served(tmp_path: Path, releases: list[Release]) -> Iterator[Device]:
    with device(tmp_path / "d", with_frames=True) as made:
        made.commit(*releases)
        made.start("--deadlines", "off")
        with Client(f"unix:{made.unix_path}") as asking:
            wait_until(asking.ready)
        yield made


def _client(made: Device, timeout_s: float = 20.0) -> Client:
    return Client(f"frames:{made.frames_path}", http=f"unix:{made.unix_path}", timeout_s=timeout_s)


def _warm(client: Client) -> None:
    """From the second question on there is a plan."""
    for plans in (0, 1):
        assert client.infer("toy", {"features": ZEROS})["score"].tolist() == [[1.0]]
        assert client.plans == plans


# -- what goes through shared memory


def test_an_answer_stays_what_it_was_when_the_next_comes(served: Device) -> None:
    with _client(served) as client:
        asked = [np.full((2, 3), value, np.float32) for value in range(6)]
        answers = [client.infer("floats", {"in": each})["out"] for each in asked]
        assert client.plans == 1
        for array, answer in zip(asked, answers, strict=True):
            assert np.array_equal(array, answer)
        answers[-1][:] = 7  # and it is the caller's own
        assert np.array_equal(client.infer("floats", {"in": asked[0]})["out"], asked[0])


def test_each_form_of_question_has_a_plan_and_the_oldest_goes(served: Device) -> None:
    with _client(served) as client:
        for _ in range(3):
            for rows in range(1, 13):
                array = np.arange(rows, dtype=np.float32).reshape(rows, 1)
                assert np.array_equal(client.infer("floats", {"in": array})["out"], array)
        assert client.plans == 8
        client.close()
        assert client.plans == 0
        assert client.infer("toy", {"features": ZEROS})["score"][0, 0] == 1


def test_what_the_wire_has_no_room_for_goes_over_http(served: Device) -> None:
    with _client(served) as client:
        for _ in range(3):
            assert client.infer("words", {"in": np.array(["ü", ""])})["out"].tolist() == ["ü", ""]
        assert client.plans == 0
        for _ in range(3):
            big_endian = np.array([[1.5]], ">f4")
            assert client.infer("floats", {"in": big_endian})["out"].tolist() == [[1.5]]
        assert client.plans == 0
        _warm(client)
        for request_id in ("bed 7 é", "x" * 300):
            answer = client.infer("toy", {"features": ZEROS}, request_id=request_id, priority=1)
            assert (answer.request_id, answer.version) == (request_id, "1")
        for more in ({"request_id": "\ud800"}, {"deadline_us": 1 << 64}):
            with pytest.raises(InvalidRequest):
                client.infer("toy", {"features": ZEROS}, **more)
        assert client.infer("toy", {"features": ZEROS}, priority=1000)["score"][0, 0] == 1


def test_an_output_that_outgrows_its_place_is_right_all_the_same(served: Device) -> None:
    with _client(served) as client:
        for count in (0, 0, 1, 5, 2, 6, 40, 3):
            array = np.zeros(50, np.float32)
            array[:count] = 1
            assert client.infer("where", {"in": array})["where"].tolist() == [list(range(count))]
        assert client.plans == 1


def test_errors_are_those_of_http(served: Device) -> None:
    with _client(served) as client:
        for index in (0, 1, 9, 2):
            if index == 9:
                with pytest.raises(ServerFailed, match="the model failed: .*out of data bounds"):
                    client.infer("table", {"index": np.array([index])})
            else:
                assert client.infer("table", {"index": np.array([index])})["item"][0] == index + 1
        assert client.plans == 1
        big = np.ones((64, 512), np.float32)
        for _ in range(2):
            client.infer("slow", {"in": big})
        with pytest.raises(Unavailable, match="deadline|in time|expected"):
            client.infer("slow", {"in": big}, deadline_us=1)
        for _ in range(2):
            with pytest.raises(NotRecorded, match="result not recorded"):
                client.infer("toy", {"features": ZEROS}, capture=CaptureMode.DURABLE)
        assert client.infer("toy", {"features": ZEROS})["score"][0, 0] == 1


def test_a_durable_record_has_the_id_of_its_question(served: Device) -> None:
    with Sink(served.capture_path) as sink, _client(served) as client:
        wait_until(lambda: _recorded(client))
        sink.frames.clear()
        for number in range(3):
            client.infer("toy", {"features": ZEROS}, capture=CaptureMode.DURABLE, request_id=f"bed-{number}")
        assert client.plans == 1
        assert ["bed-0" in str(sink.frames[0]), len(sink.frames)] == [True, 3]
        assert "bed-2" in str(sink.frames[2])


def _recorded(client: Client) -> bool:
    """Whether the server has found who takes its records."""
    with suppress(NotRecorded):
        client.infer("toy", {"features": ZEROS}, capture=CaptureMode.DURABLE)
        return True
    return False


# -- the model changes


def test_an_update_is_seen_in_the_next_answer(served: Device, tmp_path: Path) -> None:
    two = constant_release(tmp_path, 2.0, version=2)
    odd = tmp_path / "odd" / "model.onnx"
    three = write_release(odd.parent, manifest_for(cast_model(odd, TensorProto.INT32), "toy", 3))
    with _client(served) as client:
        _warm(client)
        for release in (two, three):
            asyncio.run(_activate(served, release))
            if release is two:
                answer = client.infer("toy", {"features": ZEROS})
                assert (answer.version, answer["score"].tolist(), client.plans) == ("2", [[2.0]], 1)
                with pytest.raises(ModelNotFound, match="version 9"):
                    client.infer("toy", {"features": ZEROS}, version=9)
        with pytest.raises(InvalidRequest, match="expected inputs"):
            client.infer("toy", {"features": ZEROS})
        for value in (1.5, 2.5, 3.5):
            assert client.infer("toy", {"in": np.array([value], np.float32)})["out"].tolist() == [int(value)]


async def _activate(made: Device, release: Release) -> None:
    control = ServingControl(made.control_path)
    await control.load(TOY, sha256=release.sha256, version=release.version, path=release.folder)
    await control.activate(TOY, release.sha256)


# -- the server dies


def test_a_server_that_was_killed_between_questions_is_not_noticed(served: Device) -> None:
    with _client(served) as client:
        _warm(client)
        kept = client.infer("toy", {"features": ZEROS})["score"]
        for _ in range(2):
            served.kill()
            served.start()
            assert client.infer("toy", {"features": ZEROS})["score"].tolist() == [[1.0]]
            assert client.plans == 1
        assert kept.tolist() == [[1.0]]  # memory outlives the server


def test_a_server_that_stays_dead_is_unreachable_in_time(served: Device) -> None:
    with _client(served, timeout_s=0.3) as client:
        _warm(client)
        served.kill()
        began = time.monotonic()
        with pytest.raises(Unreachable, match="expected an answer, got: timed out"):
            client.infer("toy", {"features": ZEROS})
        assert time.monotonic() - began < 5
        served.start()
        wait_until(client.ready)
        assert client.infer("toy", {"features": ZEROS})["score"].tolist() == [[1.0]]


@pytest.mark.parametrize("again", [True, False])
def test_a_server_that_is_killed_during_a_question_hangs_nobody(served: Device, again: bool) -> None:
    big = np.ones((256, 512), np.float32)
    with _client(served, timeout_s=30.0 if again else 5.0) as client, ThreadPoolExecutor(1) as pool:
        for _ in range(2):
            client.infer("slow", {"in": big})
        assert client.plans == 1
        before = _ticks(served)
        asked = pool.submit(client.infer, "slow", {"in": big})
        wait_until(lambda: _ticks(served) > before)
        served.kill()
        if again:
            served.start("--deadlines", "off")
            assert np.array_equal(asked.result(60)["out"], big)
        else:
            with pytest.raises(Unreachable):
                asked.result(60)


def _ticks(made: Device) -> int:
    """Processor time of the server: it grows while it computes, and nobody else asks it."""
    assert made.process is not None
    return int(Path(f"/proc/{made.process.pid}/stat").read_text().rpartition(")")[2].split()[11])


# -- no shared memory to be had


def test_without_the_socket_http_answers_and_it_is_said_once(
    served: Device, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = f"frames:{tmp_path / 'nowhere.sock'}"
    with caplog.at_level(logging.WARNING), Client(nowhere, http=f"unix:{served.unix_path}") as client:
        for _ in range(4):
            assert client.infer("toy", {"features": ZEROS})["score"][0, 0] == 1
        assert client.plans == 0
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "No such file" in caplog.text


# -- asyncio


def test_many_questions_at_once_have_plans_of_their_own(served: Device) -> None:
    async def main() -> None:
        address, http = f"frames:{served.frames_path}", f"http://127.0.0.1:{served.port}"
        async with AsyncClient(address, http=http, connections=4) as client:
            for _ in range(3):
                async with asyncio.TaskGroup() as tasks:
                    asked = {
                        value: tasks.create_task(client.infer("floats", {"in": np.full((1, 2), value, np.float32)}))
                        for value in range(50)
                    }
                assert [each.result()["out"][0, 1] for each in asked.values()] == list(asked)
            assert 1 <= client.plans <= 4
            big = np.ones((256, 512), np.float32)
            for _ in range(2):
                await client.infer("slow", {"in": big})
            given_up = asyncio.create_task(client.infer("slow", {"in": big}))
            await asyncio.sleep(0)
            given_up.cancel()
            with pytest.raises(asyncio.CancelledError):
                await given_up
            assert np.array_equal((await client.infer("slow", {"in": 2 * big}))["out"], 2 * big)
            served.kill()
            served.start()
            assert (await client.infer("floats", {"in": big}))["out"][0, 0] == 1

    asyncio.run(main())


def test_who_closes_while_questions_are_under_way_leaves_no_plan(served: Device) -> None:
    async def main() -> None:
        big = np.ones((64, 512), np.float32)
        client = AsyncClient(f"frames:{served.frames_path}", http=f"unix:{served.unix_path}", connections=1)
        for _ in range(2):
            await client.infer("slow", {"in": big})
        assert client.plans == 1
        asking, waiting = (asyncio.create_task(client.infer("slow", {"in": big * each})) for each in (2, 3))
        await asyncio.sleep(0)
        assert client.plans == 0  # it is in use
        await client.close()
        assert [(await each)["out"][0, 0] for each in (asking, waiting)] == [2, 3]
        assert client.plans == 0
        await client.infer("slow", {"in": big})  # and it may be used again
        assert client.plans == 1
        await client.close()

    asyncio.run(main())


def test_clients_of_many_threads_do_not_mix(served: Device) -> None:
    mixed: list[float] = []

    def ask(value: int) -> None:
        with _client(served) as client:
            for number in range(200):
                array = np.full((1, 4), value * 1000 + number, np.float32)
                if not np.array_equal(client.infer("floats", {"in": array})["out"], array):
                    mixed.append(array[0, 0])

    threads = [threading.Thread(target=ask, args=(value,)) for value in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert not mixed
