"""Everything that the server serves: method, path, role, and what answers it. Nothing else is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC

from lib.server.endpoints import images, inference, labels, loop, upload_sessions
from lib.server.pages import Pages
from lib.server.proxy import ArchiveProxy

EVERYBODY = None
USER = settings.MONAI_LABEL_AUTH_ROLE_USER
ANNOTATOR = settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR
ADMIN = settings.MONAI_LABEL_AUTH_ROLE_ADMIN


@dataclass(frozen=True)
class Route:
    """One thing that is served.

    Attributes:
        role: that a login needs for it; `EVERYBODY` without.
        used_by: who sends it.
        takes_json: whether its body is a JSON object, which the endpoint reads itself.
    """

    method: str
    path: str
    role: str | None
    endpoint: Callable[..., Any]
    used_by: str
    takes_json: bool = False


def routes(pages: Pages, proxy: ArchiveProxy | None) -> list[Route]:
    """The routes of a server.

    Args:
        proxy: to the archive, where the studies come from one.
    """
    clients = "OHIF, Slicer, scripts"
    served = [
        Route("GET", "/", EVERYBODY, pages.start, "browsers"),
        Route("GET", "/favicon.ico", EVERYBODY, pages.favicon, "browsers"),
        Route("GET", "/ohif/{path:path}", EVERYBODY, pages.ohif, "browsers"),
        Route("GET", "/info/", USER, loop.app_info, clients),
        Route("POST", "/activelearning/{strategy}", USER, loop.next_sample, "OHIF, Slicer", takes_json=True),
        Route("POST", "/infer/{model}", USER, inference.infer, clients),
        Route("GET", "/datastore/", USER, images.list_studies, "Slicer, scripts"),
        Route("PUT", "/datastore/", ANNOTATOR, images.add_image, "Slicer"),
        Route("DELETE", "/datastore/", ADMIN, images.remove_image, "scripts"),
        Route("GET", "/datastore/image", USER, images.download_image, "Slicer, scripts"),
        Route("HEAD", "/datastore/image", USER, images.check_image, "Slicer"),
        Route("PUT", "/datastore/image", ANNOTATOR, images.add_image, "scripts"),
        Route("DELETE", "/datastore/image", ADMIN, images.remove_image, "scripts"),
        Route("GET", "/datastore/image/info", USER, images.image_info, "scripts"),
        Route("PUT", "/datastore/image/info", ANNOTATOR, images.update_image_info, "scripts"),
        Route("GET", "/datastore/label", USER, labels.download_label, "Slicer, scripts"),
        Route("HEAD", "/datastore/label", USER, labels.check_label, "Slicer"),
        Route("PUT", "/datastore/label", ANNOTATOR, labels.save_label, "Slicer"),
        Route("DELETE", "/datastore/label", ADMIN, labels.remove_label, "scripts"),
        Route("GET", "/datastore/label/info", USER, labels.label_info, "scripts"),
        Route("PUT", "/session/", USER, upload_sessions.create_session, "Slicer"),
        Route("GET", "/session/{session_id}", USER, upload_sessions.get_session, "Slicer"),
        Route("DELETE", "/session/{session_id}", USER, upload_sessions.remove_session, "Slicer"),
        Route("GET", "/train/", USER, loop.training_status, "OHIF, Slicer"),
        Route("POST", "/train/", ADMIN, loop.train_all, "OHIF", takes_json=True),
        Route("POST", "/train/{model}", ADMIN, loop.train_model, "Slicer, scripts", takes_json=True),
        Route("DELETE", "/train/", ADMIN, loop.stop_training, "OHIF, Slicer"),
    ]
    if proxy is not None:
        served += [
            Route("GET", "/proxy/dicom/{operation}/{path:path}", USER, proxy.read, "OHIF, scripts"),
            Route("POST", "/proxy/dicom/stow/{path:path}", ANNOTATOR, proxy.store, "scripts"),
            Route("POST", "/proxy/dicom/wado/{path:path}", ANNOTATOR, proxy.store, "OHIF"),
        ]
    return served


def serve(application: FastAPI, served: list[Route]) -> None:
    """Makes these routes all that the application has."""
    application.router.routes.clear()
    application.openapi_schema = None
    application.openapi_url, application.docs_url, application.redoc_url = "/openapi.json", None, None
    for route in served:
        application.add_api_route(
            route.path,
            route.endpoint,
            methods=[route.method],
            dependencies=[] if route.role is None else [Depends(RBAC(route.role))],
            response_model=None,
            name=f"{route.method} {route.path}",
            openapi_extra=_JSON_BODY if route.takes_json else None,
        )
    application.add_api_route("/openapi.json", lambda: JSONResponse(application.openapi()), include_in_schema=False)
    application.add_exception_handler(RequestValidationError, _not_valid)


_JSON_BODY = {"requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}}}


async def _not_valid(request: Request, error: Exception) -> JSONResponse:
    """422, without the input, which may hold what JSON does not have, such as NaN."""
    assert isinstance(error, RequestValidationError)
    details = [{"loc": list(map(str, problem["loc"])), "msg": problem["msg"]} for problem in error.errors()]
    return JSONResponse({"detail": details}, 422)
