"""Who may do what on the three ports, written down by hand so that no test asks the code what it should do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from edgeward_fleet.accounts.model import Role

# What each route of the admin port needs; None lets anybody in. A new route needs a row here.
NEEDS: dict[str, Role | None] = {
    "POST /api/v1/setup": None,
    "GET /api/v1/health": None,
    "GET /api/v1/ca": None,
    "POST /api/v1/login": None,
    "GET /api/v1/me": Role.VIEWER,
    "POST /api/v1/me/password": Role.VIEWER,
    "POST /api/v1/logout": Role.VIEWER,
    "GET /api/v1/tokens": Role.VIEWER,
    "POST /api/v1/tokens": Role.VIEWER,
    "DELETE /api/v1/tokens/{token_id}": Role.VIEWER,
    "GET /api/v1/accounts": Role.ADMIN,
    "POST /api/v1/accounts": Role.ADMIN,
    "PATCH /api/v1/accounts/{username}": Role.ADMIN,
    "GET /api/v1/audit": Role.VIEWER,
    "GET /api/v1/devices": Role.VIEWER,
    "GET /api/v1/devices/{device_id}": Role.VIEWER,
    "GET /api/v1/devices/{device_id}/events": Role.VIEWER,
    "POST /api/v1/devices/{device_id}/revoke": Role.ADMIN,
    "POST /api/v1/device-tokens": Role.OPERATOR,
    "PUT /api/v1/artifacts/{sha256}": Role.OPERATOR,
    "GET /api/v1/artifacts/{sha256}": Role.VIEWER,
    "POST /api/v1/releases": Role.OPERATOR,
    "GET /api/v1/models": Role.VIEWER,
    "GET /api/v1/models/{name}": Role.VIEWER,
    "GET /api/v1/releases/{name}/{version}": Role.VIEWER,
    "POST /api/v1/rollouts": Role.OPERATOR,
    "GET /api/v1/rollouts": Role.VIEWER,
    "GET /api/v1/rollouts/{rollout_id}": Role.VIEWER,
    "GET /api/v1/rollouts/{rollout_id}/events": Role.VIEWER,
    "POST /api/v1/rollouts/{rollout_id}/approve": Role.APPROVER,
    "POST /api/v1/rollouts/{rollout_id}/pause": Role.OPERATOR,
    "POST /api/v1/rollouts/{rollout_id}/resume": Role.OPERATOR,
    "POST /api/v1/rollouts/{rollout_id}/abort": Role.OPERATOR,
    "POST /api/v1/rollouts/{rollout_id}/rollback": Role.OPERATOR,
    "GET /api/v1/records": Role.VIEWER,
    "GET /api/v1/records/count": Role.VIEWER,
}

# The device port lets in whoever has a certificate in good standing, the enrolment port anybody. New routes need rows.
CERTIFIED = {
    "POST /device/v1/certificate",
    "GET /device/v1/desired",
    "POST /device/v1/reported",
    "POST /device/v1/records",
    "GET /device/v1/manifests/{sha256}",
    "GET /device/v1/artifacts/{sha256}/index",
    "GET /device/v1/chunks/{sha256}",
}
OPEN = {"GET /enrolment/v1/ca", "POST /enrolment/v1/enrol"}

# Of FastAPI itself: what every description of an API is.
DESCRIPTION = {"GET /api/v1/openapi.json", "HEAD /api/v1/openapi.json"}


def offered(routes: Iterable[object]) -> Iterator[str]:
    """All that an application answers to, described or not: `GET /path`; what is mounted as a whole is `ANY /path`."""
    for route in routes:
        router = getattr(route, "original_router", None)  # FastAPI keeps an included router as a route of its own
        if router is not None:
            yield from offered(router.routes)
            continue
        for method in sorted(getattr(route, "methods", None) or ["ANY"]):
            yield f"{method} {getattr(route, 'path', route)}"
