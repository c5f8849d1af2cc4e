"""Serve the files of MONAI Label's OHIF viewer without links to other hosts."""

from __future__ import annotations

import hashlib
import html
import re
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.staticfiles import StaticFiles

from lib.server.http.entity_tag import headers_of, is_known, not_modified

NO_CACHE = "no-cache"  # browsers may cache a file, but revalidate it at each use
# Routes that OHIF handles in the browser, such as /ohif/viewer; files have an extension.
_CLIENT_ROUTE = re.compile(r"(?!/)[A-Za-z0-9_/-]*")
# Links to web fonts; without them, the browser uses its own fonts.
_FROM_OTHER_HOSTS = {
    ".html": re.compile(r"<link\b[^>]*https?://[^>]*>"),
    ".css": re.compile(r"@import url\(https?://[^)]*\);?"),
}
_MEDIA_TYPES = {".html": "text/html", ".css": "text/css"}

_NO_ARCHIVE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: no studies for OHIF</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 1rem/1.5 sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem }}
</style></head>
<body>
<h1>OHIF has nothing to open here</h1>
<p>The studies of this server are a folder of files, and OHIF shows those of a DICOMweb archive only.
<a href="{annotate}">Annotate them on the page of this server</a>, or open them in 3D Slicer with its module MONAI
Label.</p>
</body>
</html>
"""
_NO_ARCHIVE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class ViewerFiles:
    """Files below `/ohif/`.

    Args:
        folder: Folder of OHIF.
        head: HTML to add to the head of its page.
    """

    def __init__(self, folder: Path, head: str = "") -> None:
        self.index = folder / "index.html"
        self._files = StaticFiles(directory=folder)
        self._head = head

    async def answer(self, request: Request, path: str) -> Response:
        """Return a file, or OHIF's page for the routes that it handles in the browser.

        Args:
            path: Decoded path below /ohif/.

        Raises:
            HTTPException: 404, there is no such file.
        """
        try:
            answer = await self._files.get_response(path, request.scope)
        except (HTTPException, OSError) as error:
            if not _CLIENT_ROUTE.fullmatch(path):
                raise HTTPException(404, "The viewer has no such file.") from error
            answer = await self._files.get_response("index.html", request.scope)
        answer.headers["Cache-Control"] = NO_CACHE
        return self._without_other_hosts(request, answer) if isinstance(answer, FileResponse) else answer

    def _without_other_hosts(self, request: Request, answer: FileResponse) -> Response:
        path = Path(answer.path)
        if path.suffix not in _FROM_OTHER_HOSTS:
            return answer
        before = path.read_text("utf-8")
        text = _FROM_OTHER_HOSTS[path.suffix].sub("", before)
        if path == self.index and self._head:
            text = text.replace("</head>", f"{self._head}</head>", 1)
        if text == before:
            return answer
        content = text.encode()
        tag = hashlib.sha256(content).hexdigest()[:32]
        if is_known(request, tag):
            return not_modified(tag, NO_CACHE)
        return Response(content, media_type=_MEDIA_TYPES[path.suffix], headers=headers_of(tag, NO_CACHE))


def no_archive_page(title: str, path: str) -> Response:
    """Return the page that replaces OHIF at a path below `/ohif/` if the studies are a folder of files."""
    page = _NO_ARCHIVE.format(title=html.escape(title), annotate="../" * (1 + path.count("/")) + "annotate")
    return HTMLResponse(page, 404, {"Content-Security-Policy": _NO_ARCHIVE_POLICY})
