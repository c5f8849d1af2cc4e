"""Decide whether to compress an answer."""

from __future__ import annotations

from fastapi import Request

from lib.server.process.network import is_loopback


def is_worth_gzip(request: Request) -> bool:
    """Tell whether the client accepts gzip over a network; on one machine, compression takes longer than sending."""
    is_local = request.client is not None and is_loopback(request.client.host)
    return not is_local and "gzip" in request.headers.get("accept-encoding", "")
