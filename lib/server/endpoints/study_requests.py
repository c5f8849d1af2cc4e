"""Answer requests of the annotation page: list of studies, one study, its scan, skips and leases."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, Response
from monailabel.interfaces.utils.app import app_instance

from lib.activelearning.strategies import REVIEW
from lib.geometry.volume import VolumeError
from lib.infers.requests import annotator_of
from lib.server.endpoints.image_requests import image_file, studies
from lib.server.endpoints.model_requests import published_model
from lib.server.endpoints.review_only import is_review_only
from lib.server.endpoints.who import CurrentUser, name_of
from lib.server.http.compression import is_worth_gzip
from lib.server.http.disk_full import writing
from lib.server.http.entity_tag import headers_of, is_known, not_modified
from lib.server.http.json_input import check_text, json_object
from lib.server.http.pools import make_thumbnail, make_view
from lib.server.http.refusals import answered_with
from lib.server.login.user import Role, User
from lib.server.studies.skips import checked_reason
from lib.server.studies.study_details import study_details
from lib.server.studies.study_list import StudyList, counts
from lib.server.studies.views import View
from lib.training.model_folder import NAME

# Cached by the user's browser, which revalidates it at each use.
_PRIVATE = "private, no-cache"
CLICKS, AUTOMATIC = "extreme_points", NAME


def about_me(user: CurrentUser) -> dict[str, Any]:
    """Return the user and their rights; without a login everybody has all rights."""
    review_only, has_readings = is_review_only(), studies().readings.people > 1
    return {
        "name": user.name,
        "role": str(user.role),
        "asks_login": user.name is not None,
        "may": {
            # A reviewer may submit a reading of their own.
            "store": user.role >= (Role.REVIEWER if review_only else Role.ANNOTATOR),
            "train": user.role >= Role.ADMIN and not review_only,
            "review": user.role >= Role.REVIEWER and has_readings,
        },
    }


async def list_studies(request: Request, user: CurrentUser, client_id: str = "") -> Response:
    """Return the project and the state of every study; no image is fetched from the archive for this.

    `client_id` is the annotator's name on a server without a login; their own leases are not shown as `working`.
    """
    check_text(client_id, "client_id")
    content = await run_in_threadpool(_listed, user, client_id)
    tag = hashlib.sha256(content).hexdigest()[:32]
    if is_known(request, tag):
        return not_modified(tag, _PRIVATE)
    headers = headers_of(tag, _PRIVATE)
    if is_worth_gzip(request):
        content = await run_in_threadpool(gzip.compress, content, 1)
        headers["Content-Encoding"] = "gzip"
    return Response(content, media_type="application/json", headers={**headers, "Vary": "Accept-Encoding"})


def _listed(user: User, client_id: str) -> bytes:
    datastore, app = studies(), app_instance()
    # Without a login, the client gives the annotator's name.
    name = annotator_of({"client_id": client_id}) if user.name is None and client_id else user.name
    entries = StudyList(datastore).entries(name)
    model = published_model()
    strategies = {
        name: strategy.description
        for name, strategy in app.strategies.items()
        if name != REVIEW or user.role >= Role.REVIEWER
    }
    project = {
        "title": datastore.name(),
        "labels": list(datastore.labels),
        "review_only": is_review_only(),
        "readers": datastore.readings.people,
        "model": model,
        "strategies": strategies,
        "default_strategy": "first" if "first" in strategies else next(iter(strategies), None),
        "models": {
            "clicks": CLICKS if CLICKS in app.models else None,
            "automatic": AUTOMATIC if model is not None and AUTOMATIC in app.models else None,
        },
        "counts": counts(entries),
    }
    return json.dumps({"project": project, "studies": entries}).encode()


async def study(image: str, user: CurrentUser) -> dict[str, Any]:
    """Return the geometry, clicks and final mask of a study; an image of an archive is fetched first."""
    path = await image_file(image)
    with answered_with(422, VolumeError):
        return await run_in_threadpool(study_details, studies(), image, path, user.name)


async def volume(request: Request, image: str) -> Response:
    """Return the scan as NIfTI (.nii.gz) with the geometry of the image; it is made once, then served from disk."""
    path = await image_file(image)
    make = partial(make_view, studies().views.scan, image, path)
    return await _sent(request, path, "The scan", make, "application/octet-stream")


async def thumbnail(request: Request, image: str) -> Response:
    """Return a PNG of the middle axial slice; 404 if the image has not been fetched from the archive yet."""
    check_text(image, "image")
    path = await run_in_threadpool(studies().local_file, image)
    if path is None:
        raise HTTPException(404, f"The image {image[:80]!r} was not fetched from the archive yet; open it first.")
    make = partial(make_thumbnail, studies().views.thumbnail, image, path)
    return await _sent(request, path, "The picture", make, "image/png")


async def _sent(
    request: Request, path: Path, what: str, make: Callable[[], Awaitable[View]], media_type: str
) -> Response:
    """Send a view of an image file, made if it is missing; 304 if the client has the current version."""
    version = await run_in_threadpool(_version, path)
    if is_known(request, version):
        return not_modified(version, _PRIVATE)
    with answered_with(422, VolumeError), writing(what, "prepared"):
        view = await make()
    return FileResponse(view.path, media_type=media_type, headers=headers_of(view.version, _PRIVATE))


def _version(path: Path) -> str:
    with answered_with(422, VolumeError):
        return studies().views.version(path)


async def skip(image: str, request: Request) -> dict[str, Any]:
    """Skip a study: it is neither offered nor trained on until the skip is undone or somebody annotates it.

    Optional fields of the body: `reason`, a text of at most 200 characters, and `client_id`.
    """
    check_text(image, "image")
    parameters = json_object(await request.body(), "parameters")
    reason = checked_reason(parameters.get("reason"))
    return await run_in_threadpool(_skip, image, reason, name_of(request, parameters))


def _skip(image: str, reason: str, annotator: str) -> dict[str, Any]:
    datastore = studies()
    datastore.require_image(image)
    datastore.require_project()
    with writing("The skip"):
        made = datastore.skips.skip(image, reason, annotator)
    datastore.leases.end(image, annotator)
    _refresh_atlases()
    return dict(made)


async def take_skip_back(image: str, request: Request, client_id: str = "") -> dict[str, Any]:
    """Undo a skip: the study is offered again."""
    check_text(image, "image")
    name_of(request, {"client_id": client_id})
    return await run_in_threadpool(_take_skip_back, image)


def _take_skip_back(image: str) -> dict[str, Any]:
    datastore = studies()
    datastore.require_image(image)
    datastore.require_project()
    with writing("The end of the skip"):
        if not datastore.skips.end(image):
            raise HTTPException(404, f"The study {image[:80]!r} was not skipped.")
    _refresh_atlases()
    return {}


def _refresh_atlases() -> None:
    """Recompute the shape atlases, which leave out skipped studies."""
    if not is_review_only():
        app_instance().workflow.atlases.refresh_soon()


async def work_on(image: str, request: Request) -> dict[str, Any]:
    """Reserve a study for the annotator for half an hour: it is offered to nobody else.

    Optional field of the body: `client_id`. With several readers of each study, nothing is reserved.
    """
    check_text(image, "image")
    parameters = json_object(await request.body(), "parameters")
    name = name_of(request, parameters)
    await run_in_threadpool(studies().require_image, image)
    if studies().readings.people == 1:
        await run_in_threadpool(studies().leases.renew, image, name)
    return {}


async def leave(image: str, request: Request, client_id: str = "") -> dict[str, Any]:
    """Release the annotator's reservation of a study."""
    check_text(image, "image")
    name = name_of(request, {"client_id": client_id})
    if studies().readings.people == 1:
        await run_in_threadpool(studies().leases.end, image, name)
    return {}
