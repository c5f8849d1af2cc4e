"""Answer 304 if the client has the current version."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import Response


def is_known(request: Request, tag: str) -> bool:
    """Tell whether the client has the version of this tag (given without quotes)."""
    # A proxy may have turned the tag into a weak one.
    known = (one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(","))
    return bool({f'"{tag}"', "*"} & set(known))


def not_modified(tag: str, cache_control: str) -> Response:
    return Response(status_code=304, headers=headers_of(tag, cache_control))


def headers_of(tag: str, cache_control: str) -> dict[str, str]:
    return {"ETag": f'"{tag}"', "Cache-Control": cache_control}
