"""Few requests of devices are worked on at once, and nobody on a slow line keeps others out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from starlette.types import Message, Receive, Scope, Send

from edgeward_fleet.api.turnstile import OF_ONE, Turnstile
from support.waiting import eventually

_SCOPE: Scope = {"type": "http", "path": "/work"}
LIMIT = 2 << 20


class _App:
    """Reads the body, works until it is told to end, then answers."""

    def __init__(self) -> None:
        self.working = self.most = self.answered = 0
        self.bodies: list[bytes] = []
        self.go_on = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.bodies.append(body)
        self.working += 1
        self.most = max(self.most, self.working)
        await self.go_on.wait()
        self.working -= 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        self.answered += 1


def _body(pieces: Iterable[bytes]) -> Receive:
    messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    left = iter([*messages, {"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Message:
        return next(left)

    return receive


async def _nowhere(_message: Message) -> None: ...


def test_few_are_worked_on_at_once_and_all_are_answered() -> None:
    async def main() -> None:
        app = _App()
        turnstile = Turnstile(app, at_once=3, limit_bytes=LIMIT, free=())
        async with asyncio.TaskGroup() as tasks:
            for number in range(20):
                tasks.create_task(turnstile(_of(b"%d" % number), _body([b"a", b"%d" % number]), _nowhere))
            await eventually(lambda: app.working == 3, "three at work")
            app.go_on.set()
        assert (app.most, app.answered) == (3, 20)
        assert sorted(app.bodies) == sorted(b"a%d" % number for number in range(20))

    asyncio.run(main())


def test_a_request_that_comes_slowly_and_an_answer_that_is_taken_slowly_hold_no_turn() -> None:
    async def main() -> None:
        app, stuck = _App(), asyncio.Event()
        app.go_on.set()

        async def slow_body() -> Message:
            await stuck.wait()
            return {"type": "http.request", "body": b"", "more_body": False}

        async def slow_reader(_message: Message) -> None:
            await stuck.wait()

        turnstile = Turnstile(app, at_once=1, limit_bytes=LIMIT, free=())
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(turnstile(_SCOPE, slow_body, _nowhere))
            tasks.create_task(turnstile(_SCOPE, _body([]), slow_reader))
            tasks.create_task(turnstile(_SCOPE, _body([]), _nowhere))
            await eventually(lambda: app.answered == 1, "the quick one to be answered")
            stuck.set()
        assert app.answered == 3

    asyncio.run(main())


def test_whoever_sends_nearly_all_that_is_allowed_and_stops_holds_no_turn() -> None:
    """As many as there are turns, and no device would be answered for as long as they keep their connections."""

    async def main() -> None:
        app, stuck = _App(), asyncio.Event()
        app.go_on.set()
        sent = iter([b"x" * (LIMIT - 1)])

        async def nearly_all() -> Message:
            piece = next(sent, None)
            if piece is None:
                await stuck.wait()
            return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

        turnstile = Turnstile(app, at_once=1, limit_bytes=LIMIT, free=())
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(turnstile(_SCOPE, nearly_all, _nowhere))
            tasks.create_task(turnstile(_SCOPE, _body([]), _nowhere))
            await eventually(lambda: app.answered == 1, "the other one to be answered")
            stuck.set()
        assert app.answered == 2

    asyncio.run(main())


def _of(certificate: bytes) -> Scope:
    return {**_SCOPE, "method": "POST", "extensions": {"tls": {"client_certificate_der": certificate}}}


def test_a_device_that_begins_requests_and_ends_none_fills_no_memory_and_keeps_nobody_out() -> None:
    """A revoked one, too: 10,000 connections with 2 MiB each would end the fleet."""

    async def main() -> None:
        app, stuck = _App(), asyncio.Event()
        app.go_on.set()

        async def never_ends() -> Message:
            await stuck.wait()
            return {"type": "http.request", "body": b"", "more_body": False}

        heard: list[Message] = []

        async def send(message: Message) -> None:
            heard.append(message)

        turnstile = Turnstile(app, at_once=16, limit_bytes=LIMIT, free=())
        async with asyncio.TaskGroup() as tasks:
            for _ in range(OF_ONE):
                tasks.create_task(turnstile(_of(b"thief"), never_ends, _nowhere))
            await asyncio.sleep(0)
            await turnstile(_of(b"thief"), _body([]), send)
            await turnstile(_of(b"honest"), _body([]), _nowhere)
            stuck.set()
        await turnstile(_of(b"thief"), _body([]), _nowhere)
        assert (heard[0]["status"], app.answered) == (429, OF_ONE + 2)
        assert (b"connection", b"close") in heard[0]["headers"]

    asyncio.run(main())


def test_what_is_too_large_already_is_handed_on_to_be_refused() -> None:
    async def main() -> None:
        async def refuses(_scope: Scope, receive: Receive, send: Send) -> None:
            assert len((await receive())["body"]) > LIMIT
            await send({"type": "http.response.start", "status": 413, "headers": []})

        pieces = iter([{"type": "http.request", "body": b"x" * (LIMIT + 1), "more_body": True}])

        async def receive() -> Message:
            return next(pieces)  # the rest is never asked for

        heard: list[Message] = []

        async def send(message: Message) -> None:
            heard.append(message)

        await Turnstile(refuses, at_once=1, limit_bytes=LIMIT, free=())(_SCOPE, receive, send)
        assert [each["status"] for each in heard] == [413]

    asyncio.run(main())


def test_who_fails_or_leaves_gives_the_turn_back_and_a_parked_poll_needs_none() -> None:
    async def main() -> None:
        async def broken(scope: Scope, receive: Receive, send: Send) -> None:
            raise ValueError(scope["path"])

        turnstile = Turnstile(broken, at_once=1, limit_bytes=LIMIT, free={"/poll"})
        for path in ("/work", "/work", "/poll"):
            try:
                await turnstile({"type": "http", "path": path}, _body([]), _nowhere)
            except ValueError as error:
                assert str(error) == path
        app = _App()
        turnstile = Turnstile(app, at_once=1, limit_bytes=LIMIT, free={"/poll"})
        first, left, polling = (
            asyncio.create_task(turnstile({"type": "http", "path": path}, _body([]), _nowhere))
            for path in ("/work", "/work", "/poll")
        )
        await eventually(lambda: app.working == 2, "one at work and the poll")
        left.cancel()
        app.go_on.set()
        await asyncio.gather(first, polling)
        await turnstile(_SCOPE, _body([b"x" * LIMIT]), _nowhere)
        assert (app.answered, len(app.bodies[-1])) == (3, LIMIT)

    asyncio.run(main())
