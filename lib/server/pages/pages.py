"""Serve the annotation page or a start page, and the OHIF viewer of MONAI Label."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from pathlib import Path

import monailabel.endpoints
from starlette.datastructures import URL
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response

from lib.server.login.user import Role
from lib.server.pages.annotation_page import ANNOTATION_PAGE, AnnotationPage
from lib.server.pages.viewer_files import NO_CACHE, ViewerFiles, no_archive_page

STATIC = Path(monailabel.endpoints.__file__).parent / "static"
_INLINE_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)

_START_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>{title}</title>
<style>body {{ font: 1rem/1.5 sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem }}</style></head>
<body>
<h1>{title}</h1>
{user}
<p>This server turns six extreme points into a mask, and learns from them.</p>
<ul>
{viewer}{reviews}
<li>In 3D Slicer, open the module MONAI Label and give it the address <code>{address}</code>.</li>
<li>The README of the project says how to annotate, train and export.</li>
</ul>
</body>
</html>
"""
_VIEWER = '<li>Open the studies in the <a href="./ohif/">OHIF viewer</a>.</li>'
_REVIEWS = '\n<li>Review the <a href="./review">readings</a>.</li>'
_USER = '<form method="post" action="logout"><p>Logged in as {name}. <button>Log out</button></p></form>'
_LOGIN_SCRIPT = '<script src="/login/viewer.js"></script>'
_NO_VIEWER = "<li>The studies are a folder of files; the OHIF viewer shows those of a DICOMweb archive only.</li>"


class Pages:
    """Endpoints of the pages.

    Args:
        has_archive: The studies come from a DICOMweb archive, so that OHIF can show them.
        static: Folder with `favicon.ico` and the folder `ohif`.
        asks_login: The pages show who is logged in.
        has_readings: Several people read each study, and reviewers decide.
    """

    def __init__(
        self,
        title: str,
        has_archive: bool,
        static: Path = STATIC,
        asks_login: bool = False,
        has_readings: bool = False,
        annotation_page: AnnotationPage = ANNOTATION_PAGE,
    ) -> None:
        self._annotation_page = annotation_page
        self._has_readings = has_readings
        self._title, self._has_archive, self._static, self._asks_login = title, has_archive, static, asks_login
        self._viewer = ViewerFiles(static / "ohif", _LOGIN_SCRIPT if asks_login else "")
        self._viewer_policy = _viewer_policy(self._viewer.index.read_text("utf-8"))

    async def start(self, request: Request) -> Response:
        """Redirect to the annotation page; show a start page if it is not built."""
        if self._annotation_page.is_built:
            return RedirectResponse("annotate", 302)
        name = request.state.user.name if self._asks_login else None
        page = _START_PAGE.format(
            user="" if name is None else _USER.format(name=html.escape(name)),
            title=html.escape(self._title),
            reviews=_REVIEWS if self._has_readings and request.state.user.role >= Role.REVIEWER else "",
            viewer=_VIEWER if self._has_archive else _NO_VIEWER,
            address=html.escape(str(URL(scope=request.scope).replace(query="", fragment=""))),
        )
        policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'self'; "
        return HTMLResponse(page, headers={"Content-Security-Policy": policy + "frame-ancestors 'none'"})

    async def annotate(self, request: Request) -> Response:
        """Show the annotation page, on which users click, correct and accept; 503 if it is not built."""
        return await self._annotation_page.index(request)

    async def annotate_file(self, request: Request, file: str) -> Response:
        """Return a file of the annotation page; 404 if it does not exist."""
        return await self._annotation_page.file(request, file)

    async def favicon(self) -> Response:
        """Return the icon for browser tabs."""
        return FileResponse(self._static / "favicon.ico", headers={"Cache-Control": NO_CACHE})

    async def ohif(self, request: Request, path: str = "") -> Response:
        """Return a file of OHIF, or its page for the routes that OHIF handles in the browser.

        Without an archive, the answer is a page with status 404 and a link to the annotation page.

        Raises:
            HTTPException: 404, there is no such file.
        """
        if not self._has_archive:
            return no_archive_page(self._title, path)
        answer = await self._viewer.answer(request, path)
        answer.headers["Content-Security-Policy"] = self._viewer_policy
        return answer


def _viewer_policy(index: str) -> str:
    """Return a Content-Security-Policy that lets OHIF work, and load nothing from other hosts."""
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()) for script in _INLINE_SCRIPT.findall(index)]
    scripts = " ".join(f"'sha256-{digest.decode()}'" for digest in hashes)
    return "; ".join(
        [
            "default-src 'self'",
            f"script-src 'self' 'unsafe-eval' {scripts}",  # OHIF evaluates code to show a segmentation
            "worker-src 'self' blob:",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "font-src 'self' data:",
            "connect-src 'self' data: blob:",
            "object-src 'none'",
            "base-uri 'self'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        ]
    )
