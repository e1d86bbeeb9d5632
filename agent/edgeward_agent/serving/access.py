"""Who may ask over TCP: whoever shows the token, where the agent was given one. Pure, and for every front end.

A unix socket needs none: the owner and the mode of its file say who may connect.
"""

from __future__ import annotations

from hmac import compare_digest
from http import HTTPStatus
from typing import Final

from edgeward_agent.serving.refusal import Refusal

_FOR_ALL: Final = frozenset({b"/v2/health/live", b"/v2/health/ready"})
_SCHEME: Final = b"bearer"  # RFC 9110 11.1: the name of a scheme is the same in capitals


class TokenWanted(Refusal):
    """401: the caller did not show the token."""

    hint = "Give the client the token that the agent was configured with (serving.token_file), or use a unix socket."
    fields = b"WWW-Authenticate: Bearer\r\n"  # RFC 9110 15.5.2: a 401 says what is wanted

    def __init__(self) -> None:
        super().__init__(
            HTTPStatus.UNAUTHORIZED, "expected the header `Authorization: Bearer TOKEN`, got none or another"
        )


def is_probe(target: bytes) -> bool:
    """Whether a request is answered without the token: a supervisor has none, and learns no more than yes or no."""
    return target.partition(b"?")[0] in _FOR_ALL


def is_authorized(authorization: bytes | None, token: bytes) -> bool:
    """Whether a request may be answered.

    Args:
        authorization: value of its `Authorization` header (HTTP), or of the metadata key `authorization` (gRPC).
        token: what it must show; empty is that everybody may ask.
    """
    if not token:
        return True
    scheme, _, shown = (authorization or b"").partition(b" ")
    return compare_digest(shown.strip(), token) and scheme.lower() == _SCHEME


def refused(authorization: bytes | None, token: bytes) -> Refusal | None:
    """What to answer who may not ask; None who may. The words do not tell a missing token from a wrong one."""
    return None if is_authorized(authorization, token) else TokenWanted()
