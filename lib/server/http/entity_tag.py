"""Answer 304 where the client has the current version."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import Response


def is_known(request: Request, tag: str) -> bool:
    """Does the client have what this tag (without quotes) stands for? A proxy may have made it a weak one."""
    known = (one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(","))
    return bool({f'"{tag}"', "*"} & set(known))


def not_modified(tag: str, cache_control: str) -> Response:
    """304 without a body."""
    return Response(status_code=304, headers=headers_of(tag, cache_control))


def headers_of(tag: str, cache_control: str) -> dict[str, str]:
    return {"ETag": f'"{tag}"', "Cache-Control": cache_control}
