"""List every route of the server: method, path, role and endpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

import lib.server.endpoints.acceptance_requests as acceptance
import lib.server.endpoints.app_requests as app
import lib.server.endpoints.image_requests as images
import lib.server.endpoints.label_requests as labels
import lib.server.endpoints.mask_requests as inference
import lib.server.endpoints.model_requests as models
import lib.server.endpoints.progress_requests as progress
import lib.server.endpoints.proposal_requests as proposals
import lib.server.endpoints.reading_requests as readings
import lib.server.endpoints.review_pages as review_pages
import lib.server.endpoints.session_requests as sessions
import lib.server.endpoints.study_requests as studies
from lib.server.archive.archive_proxy import ArchiveProxy
from lib.server.endpoints.login_requests import LoginPages
from lib.server.http.guard import Guard
from lib.server.login.user import Role
from lib.server.pages.pages import Pages

EVERYBODY = None
USER, ANNOTATOR, REVIEWER, ADMIN = Role.USER, Role.ANNOTATOR, Role.REVIEWER, Role.ADMIN


@dataclass(frozen=True)
class Route:
    """Route of the server.

    Attributes:
        role: Least role of the user, if the server requires a login; `EVERYBODY` for none.
        used_by: Programs that send this request.
        takes_json: Its body is a JSON object, which the endpoint parses.
        records: Name of the action in the audit log; None if it changes nothing.
        role_to_store: Least role if the request stores something, which the endpoint checks.
        is_page: Browsers without a login are redirected to the login page.
    """

    method: str
    path: str
    role: Role | None
    endpoint: Callable[..., Any]
    used_by: str
    takes_json: bool = False
    records: str | None = None
    role_to_store: Role | None = None
    is_page: bool = False


def routes(
    pages: Pages, proxy: ArchiveProxy | None, login: LoginPages | None = None, *, has_readings: bool = False
) -> list[Route]:
    """Return the routes of a server.

    Args:
        proxy: Proxy to the archive, if the studies come from one.
        login: Endpoints of the login, if the server requires one.
        has_readings: Several people read each study.
    """
    clients, accept = "OHIF, Slicer, scripts", "/annotations/{image}/accept"
    served = [
        Route("GET", "/", USER, pages.start, "browsers", is_page=True),
        Route("GET", "/favicon.ico", EVERYBODY, pages.favicon, "browsers"),
        Route("GET", "/ohif/{path:path}", USER, pages.ohif, "browsers", is_page=True),
        Route("GET", "/health", EVERYBODY, app.health, "scripts"),
        Route("GET", "/info/", USER, app.app_info, clients),
        Route("POST", "/activelearning/{strategy}", USER, app.next_sample, "OHIF, Slicer", takes_json=True),
        Route("POST", "/infer/{model}", USER, inference.infer, clients, records="clicks", role_to_store=ANNOTATOR),
        Route("GET", "/datastore/", USER, images.list_studies, "Slicer, scripts"),
        Route("PUT", "/datastore/", ANNOTATOR, images.add_image, "Slicer", records="image"),
        Route("DELETE", "/datastore/", ADMIN, images.remove_image, "scripts", records="deletion of an image"),
        Route("GET", "/datastore/image", USER, images.download_image, "Slicer, scripts"),
        Route("HEAD", "/datastore/image", USER, images.check_image, "Slicer"),
        Route("PUT", "/datastore/image", ANNOTATOR, images.add_image, "scripts", records="image"),
        Route("DELETE", "/datastore/image", ADMIN, images.remove_image, "scripts", records="deletion of an image"),
        Route("GET", "/datastore/image/info", USER, images.image_info, "scripts"),
        Route("PUT", "/datastore/image/info", ANNOTATOR, images.update_image_info, "scripts", records="information"),
        Route("GET", "/datastore/label", USER, labels.download_label, "Slicer, scripts"),
        Route("HEAD", "/datastore/label", USER, labels.check_label, "Slicer"),
        Route("PUT", "/datastore/label", ANNOTATOR, labels.save_label, "Slicer", records="mask"),
        Route("DELETE", "/datastore/label", ADMIN, labels.remove_label, "scripts", records="deletion of an annotation"),
        Route("GET", "/datastore/label/info", USER, labels.label_info, "scripts"),
        Route("POST", accept, ANNOTATOR, acceptance.accept_masks, "scripts", takes_json=True, records="acceptance"),
        Route("DELETE", accept, ANNOTATOR, acceptance.take_acceptance_back, "scripts", records="acceptance taken back"),
        Route("PUT", "/session/", USER, sessions.create_session, "Slicer"),
        Route("GET", "/session/{session_id}", USER, sessions.get_session, "Slicer"),
        Route("DELETE", "/session/{session_id}", USER, sessions.remove_session, "Slicer"),
        Route("GET", "/train/", USER, app.training_status, "OHIF, Slicer"),
        Route("POST", "/train/", ADMIN, app.train_all, "OHIF", True, "training"),
        Route("POST", "/train/{model}", ADMIN, app.train_model, "Slicer, scripts", True, "training"),
        Route("DELETE", "/train/", ADMIN, app.stop_training, "OHIF, Slicer", records="end of a training"),
        *_annotation_page_routes(pages),
    ]
    if proxy is not None:
        store = readings.without_readings(proxy.store) if has_readings else proxy.store
        served += [
            Route("GET", "/proxy/dicom/{operation}/{path:path}", USER, proxy.read, "OHIF, scripts"),
            Route("POST", "/proxy/dicom/stow/{path:path}", ANNOTATOR, store, "scripts", records="segmentation"),
            Route("POST", "/proxy/dicom/wado/{path:path}", ANNOTATOR, store, "OHIF", records="segmentation"),
        ]
    if has_readings:
        served += _review_routes()
    return served if login is None else served + _login_routes(login)


def _annotation_page_routes(pages: Pages) -> list[Route]:
    page, skip, working = "annotation page", "/studies/{image}/skip", "/studies/{image}/working"
    return [
        Route("GET", "/annotate", USER, pages.annotate, "browsers", is_page=True),
        Route("GET", "/annotate/{file}", USER, pages.annotate_file, "browsers"),
        Route("GET", "/me", USER, studies.about_me, page),
        Route("GET", "/studies", USER, studies.list_studies, page),
        Route("GET", "/studies/{image}", USER, studies.study, page),
        Route("GET", "/studies/{image}/volume", USER, studies.volume, page),
        Route("GET", "/studies/{image}/thumbnail", USER, studies.thumbnail, page),
        Route("POST", skip, ANNOTATOR, studies.skip, page, takes_json=True, records="skip"),
        Route("DELETE", skip, ANNOTATOR, studies.take_skip_back, page, records="skip taken back"),
        Route("POST", working, ANNOTATOR, studies.work_on, page, takes_json=True),
        Route("DELETE", working, ANNOTATOR, studies.leave, page),
        Route("GET", "/training", USER, progress.training, page),
        Route("GET", "/events", USER, progress.events, page),
        Route("GET", "/models", USER, models.list_models, page),
        Route("GET", "/proposals", USER, proposals.proposals, "scripts"),
        Route("POST", "/proposals", ADMIN, proposals.start_proposals, "scripts", takes_json=True, records="proposals"),
        Route("DELETE", "/proposals", ADMIN, proposals.stop_proposals, "scripts", records="end of the proposals"),
        Route("POST", "/models/{version}/publish", ADMIN, models.publish_version, page, records="roll back"),
    ]


def _review_routes() -> list[Route]:
    decision, reading, who = "/readings/{image}/decision", "/readings/{image}/{reader:path}", "browsers, scripts"
    return [
        Route("GET", "/review", REVIEWER, review_pages.list_page, "browsers", is_page=True),
        Route("GET", "/review.js", REVIEWER, review_pages.script, "browsers"),
        Route("GET", "/review/{image}", REVIEWER, review_pages.study_page, "browsers", is_page=True),
        Route("GET", "/review/{image}/picture", REVIEWER, review_pages.study_picture, "browsers"),
        Route("GET", "/readings/", REVIEWER, readings.list_readings, who),
        Route("GET", reading, REVIEWER, readings.download_reading, who),
        Route("POST", decision, REVIEWER, readings.decide, who, takes_json=True, records="decision"),
        Route("DELETE", decision, REVIEWER, readings.take_decision_back, who, records="decision taken back"),
    ]


def _login_routes(login: LoginPages) -> list[Route]:
    return [
        Route("GET", "/login", EVERYBODY, login.page, "browsers"),
        Route("POST", "/login", EVERYBODY, login.log_in, "browsers"),
        Route("GET", "/login/callback", EVERYBODY, login.callback, "browsers"),
        Route("GET", "/login/done", EVERYBODY, login.done, "browsers"),
        Route("GET", "/login/viewer.js", EVERYBODY, login.script, "OHIF"),
        Route("POST", "/logout", EVERYBODY, login.log_out, "browsers, scripts"),
        Route("GET", "/auth/", EVERYBODY, login.about, "Slicer"),
        Route("POST", "/auth/token", EVERYBODY, login.token, "Slicer, scripts"),
        Route("GET", "/auth/token/valid", USER, login.valid, "OHIF, Slicer"),
    ]


def serve(application: FastAPI, served: list[Route], guard: Guard = Guard()) -> None:  # noqa: B008
    """Replace all routes of the application by these, and by a description of them (OpenAPI)."""
    description = Route("GET", "/openapi.json", USER, lambda: JSONResponse(application.openapi()), "scripts")
    application.router.routes.clear()
    application.openapi_schema = None
    application.openapi_url, application.docs_url, application.redoc_url = "/openapi.json", None, None
    for route in [*served, description]:
        application.router.add_api_route(
            route.path,
            route.endpoint,
            methods=[route.method],
            route_class_override=guard.route_class(route),
            include_in_schema=route is not description,
            response_model=None,
            name=f"{route.method} {route.path}",
            openapi_extra=_JSON_BODY if route.takes_json else None,
        )
    application.add_exception_handler(RequestValidationError, _not_valid)


_JSON_BODY = {"requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}}}


async def _not_valid(request: Request, error: Exception) -> JSONResponse:
    """Answer 422, without the input, which may hold values that JSON lacks, such as NaN."""
    assert isinstance(error, RequestValidationError)
    details = [{"loc": list(map(str, problem["loc"])), "msg": problem["msg"]} for problem in error.errors()]
    return JSONResponse({"detail": details}, 422)
