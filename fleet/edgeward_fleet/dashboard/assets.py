"""The files that pages load: read once, named with their digest so that a browser may keep them for ever."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from fastapi import APIRouter, Request, Response

from edgeward_fleet.errors import NotFound

_TYPES: Final = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """A file under `static/`."""

    content: bytes
    media_type: str
    digest: str


def load() -> Mapping[str, Asset]:
    """Every file that a page may ask for, by its path below `static/`; licences and notes are not among them."""
    return dict(_walk(files(__package__) / "static", ""))


def _walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, Asset]]:
    for each in folder.iterdir():
        name = prefix + each.name
        if each.is_dir():
            yield from _walk(each, name + "/")
        elif media_type := _TYPES.get("." + each.name.rpartition(".")[2]):
            content = each.read_bytes()
            yield name, Asset(content=content, media_type=media_type, digest=hashlib.sha256(content).hexdigest()[:12])


def load_sums() -> Mapping[str, str]:
    """What the vendored files must be: SHA-256 in hex, by their path below `static/`."""
    lines = (files(__package__) / "static" / "vendor" / "SHA256SUMS").read_text().splitlines()
    return {f"vendor/{name}": digest for digest, _, name in (line.partition("  ") for line in lines)}


ASSETS: Final = load()
SUMS: Final = load_sums()
router = APIRouter(include_in_schema=False)


def url(name: str) -> str:
    """Where a page finds the asset."""
    return f"/static/{name}?v={ASSETS[name].digest}"


def integrity(name: str) -> str:
    """For the attribute of that name: a browser runs a vendored file only if it is the one that was recorded."""
    return "sha256-" + base64.b64encode(bytes.fromhex(SUMS[name])).decode()


@router.get("/static/{name:path}")
async def asset(name: str, request: Request) -> Response:
    """A file; the one with this digest never changes."""
    found = ASSETS.get(name)
    if found is None:
        raise NotFound(f"expected a file of the dashboard, there is no {name[:80]!r}")
    is_named = request.query_params.get("v") == found.digest
    headers = {
        "Cache-Control": "public, max-age=31536000, immutable" if is_named else "no-cache",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    return Response(found.content, media_type=found.media_type, headers=headers)
