"""The REST API as the command sees it: one connection, one place where its answers become our errors."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from itertools import islice
from types import TracebackType
from typing import Final

import httpx

from edgeward_contract.schema import ContractError, Fields, JsonValue, canonical_json, parse_json
from edgeward_contract.version import __version__
from edgeward_fleet.cli.errors import CommandFailed, NotAllowed, Undecided
from edgeward_fleet.cli.profile import Profile

API: Final = "/api/v1"
MAX_ANSWER_BYTES: Final = 64 << 20
PAGE: Final = 200  # the least that every list of the API allows
_TIMEOUT: Final = httpx.Timeout(30.0, connect=5.0)
_STORING: Final = httpx.Timeout(30.0, connect=5.0, read=900.0)  # a file is stored and flushed before the answer
_AGAIN: Final = frozenset({429, 500, 502, 503, 504})
_REPIN: Final = "Pin the fleet's CA: `edgeward login --url … --ca-fingerprint sha256:…` (the fleet prints it at start)."


class Client:
    """A fleet, reached as `profile` says. Every method raises CommandFailed, NotAllowed or Undecided, nothing else."""

    def __init__(self, profile: Profile) -> None:
        headers = {"User-Agent": f"edgeward/{__version__}"}
        if profile.token:
            headers["Authorization"] = f"Bearer {profile.token}"
        self.url = profile.url
        self._http = httpx.Client(
            base_url=profile.url + API,
            headers=headers,
            verify=trust(profile.ca_pem),
            trust_env=False,  # a proxy variable must not see a fleet's tokens by accident
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def get(self, path: str, query: Mapping[str, str | int | None] | None = None) -> Fields:
        given = {key: value for key, value in (query or {}).items() if value is not None}
        return _object(self._send("GET", path, query=given))

    def post(self, path: str, body: Mapping[str, JsonValue] | None = None) -> Fields:
        return _object(self._send("POST", path, content=canonical_json(body or {})))

    def patch(self, path: str, body: Mapping[str, JsonValue]) -> Fields:
        return _object(self._send("PATCH", path, content=canonical_json(body)))

    def delete(self, path: str) -> None:
        self._send("DELETE", path)

    def put(self, path: str, content: Iterator[bytes], *, size_bytes: int) -> None:
        """Send a body in pieces, so that an upload can be watched."""
        self._send("PUT", path, content=content, headers={"Content-Length": str(size_bytes)}, timeout=_STORING)

    def exists(self, path: str) -> Fields | None:
        """The object at `path`, or None when there is none."""
        response = self._request("GET", path)
        return None if response.status_code == 404 else _object(_checked(response))

    def items(self, path: str, *, limit: int | None = None, **parameters: str | None) -> list[Fields]:
        """The items of a list, or the first `limit` of them."""
        return list(islice(self.pages(path, parameters, size=min(PAGE, limit or PAGE)), limit))

    def pages(
        self, path: str, parameters: Mapping[str, str | None], *, size: int = PAGE, key: str = "items"
    ) -> Iterator[Fields]:
        """Every item of a list, fetched page by page as they are asked for; `key` is the list's own name."""
        query: dict[str, str | int | None] = {**parameters, "limit": size}
        while True:
            page = self.get(path, query)
            yield from page.objects(key)
            following = page.raw("next")
            if following is None:
                return
            query["after"] = str(following)

    def _send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        content: bytes | Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: httpx.Timeout = _TIMEOUT,
    ) -> httpx.Response:
        return _checked(self._request(method, path, query=query, content=content, headers=headers, timeout=timeout))

    def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        content: bytes | Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: httpx.Timeout = _TIMEOUT,
    ) -> httpx.Response:
        kind = "application/json" if isinstance(content, bytes) else "application/octet-stream"
        extra = {"Content-Type": kind, **(headers or {})} if content is not None else {}
        try:
            return self._http.request(method, path, params=query, content=content, headers=extra, timeout=timeout)
        except (httpx.RequestError, httpx.InvalidURL) as error:
            raise unreachable(self.url, error) from None


def trust(ca_pem: str) -> ssl.SSLContext:
    """TLS that believes `ca_pem` alone, or what the system believes when it is empty. Raises NotAllowed."""
    try:
        return ssl.create_default_context(cadata=ca_pem) if ca_pem else ssl.create_default_context()
    except ssl.SSLError:
        raise NotAllowed("expected a CA certificate in PEM form, found something else", hint=_REPIN) from None


def unreachable(url: str, error: Exception) -> Undecided | NotAllowed:
    """Tell a fleet that is down from one that is not the one we trust."""
    text = str(error) or type(error).__name__
    if "CERTIFICATE_VERIFY_FAILED" in text:
        reason = text.partition("verify failed:")[2].partition("(_ssl")[0].strip() or text
        return NotAllowed(f"{url}: expected a certificate that we trust, found: {reason}", hint=_way_out(reason))
    return Undecided(f"{url}: expected a fleet to answer, found: {text}")


def _way_out(reason: str) -> str:
    """A CA that is the right one already need not be pinned again."""
    if "mismatch" in reason:
        return "Use the address that the fleet printed at start; `edgeward-fleet serve --public-host` gives it another."
    if "expired" in reason or "not yet valid" in reason:
        return "Compare the clock of this machine with the fleet's."
    return _REPIN


def _checked(response: httpx.Response) -> httpx.Response:
    if response.is_success:
        return response
    status = response.status_code
    message, hint = _problem(response)
    if status in (401, 403):
        raise NotAllowed(message, hint=hint)
    if status in _AGAIN:
        raise Undecided(message, hint=hint)
    raise CommandFailed(message, hint=hint)


def _problem(response: httpx.Response) -> tuple[str, str | None]:
    """The fleet's own words (RFC 9457) where there are any."""
    try:
        fields = parse_json(response.content)
        detail = fields.text("detail", default=fields.text("title", default=""), max_length=10_000)
        hint = fields.text("hint", default="", max_length=10_000)
    except ContractError:
        detail = hint = ""
    where = f"{response.request.method} {response.request.url.path}"
    return detail or f"{where}: the fleet answered {response.status_code}", hint or None


def _object(response: httpx.Response) -> Fields:
    if response.status_code == 204 or not response.content:
        return Fields({}, "")
    try:
        return parse_json(response.content, limit_bytes=MAX_ANSWER_BYTES)
    except ContractError as error:
        raise CommandFailed(
            f"{response.request.url.path}: {error}", hint="Is this the admin address of an Edgeward fleet?"
        ) from None
