"""Serve the files of the annotation page, which `scripts/build_page.sh` builds."""

from __future__ import annotations

import gzip
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from fastapi.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from lib.annotations.image_identity import Stamp, file_stamp
from lib.server.http.entity_tag import headers_of, is_known, not_modified

WEB = Path(__file__).resolve().parents[3] / "web" / "dist"

POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "worker-src 'self' blob:",
        "font-src 'self'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    ]
)
"""The page loads nothing from other hosts, and runs only scripts from its own files."""

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}
_NAME = re.compile(r"(?=.{1,100}$)[A-Za-z0-9_][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)+")
# Files that esbuild names after a hash of their content.
_HASHED = re.compile(r".*-[A-Z0-9]{8}\.[a-z0-9.]+")
_NO_CACHE, _IMMUTABLE = "no-cache", "private, max-age=31536000, immutable"
_COMPRESSED = (".png", ".woff2")


@dataclass(frozen=True)
class _File:
    """File in memory, with its compressed content and its entity tag."""

    stamp: Stamp
    content: bytes
    zipped: bytes
    tag: str


class AnnotationPage:
    """Annotation page and its files, served from memory.

    Args:
        folder: Folder of the build, without subfolders; it may be missing, and may change at any time.
    """

    def __init__(self, folder: Path = WEB) -> None:
        self._folder = folder
        self._files: dict[str, _File] = {}

    @property
    def is_built(self) -> bool:
        return (self._folder / "index.html").is_file()

    async def index(self, request: Request) -> Response:
        """Answer with the page; raise HTTPException 503 if it is not built."""
        if not self.is_built:
            raise HTTPException(
                503, "The annotation page is not built; run scripts/environment.sh once, then reload this page."
            )
        return await self.file(request, "index.html")

    async def file(self, request: Request, name: str) -> Response:
        """Answer with a file of the page; raise HTTPException 404 if it does not exist."""
        path = self._folder / name
        if not _NAME.fullmatch(name) or path.suffix not in _TYPES or path.is_symlink() or not path.is_file():
            raise HTTPException(404, "The annotation page has no such file.")
        file = await run_in_threadpool(self._read, path)
        cache_control = _IMMUTABLE if _HASHED.fullmatch(name) else _NO_CACHE
        takes_gzip = "gzip" in request.headers.get("accept-encoding", "") and path.suffix not in _COMPRESSED
        tag = f"{file.tag}-gzip" if takes_gzip else file.tag
        if is_known(request, tag):
            return not_modified(tag, cache_control)
        headers = {**headers_of(tag, cache_control), "Content-Security-Policy": POLICY, "Vary": "Accept-Encoding"}
        if takes_gzip:
            headers["Content-Encoding"] = "gzip"
        return Response(file.zipped if takes_gzip else file.content, media_type=_TYPES[path.suffix], headers=headers)

    def _read(self, path: Path) -> _File:
        """Read and compress a file, once for each version of it."""
        stamp, kept = file_stamp(path), self._files.get(path.name)
        if kept is None or kept.stamp != stamp:
            if stamp is None:
                raise HTTPException(404, "The annotation page has no such file any more.")
            content = path.read_bytes()
            tag = hashlib.sha256(content).hexdigest()[:32]
            kept = self._files[path.name] = _File(stamp, content, gzip.compress(content, mtime=0), tag)
        return kept


ANNOTATION_PAGE = AnnotationPage()
