"""Render the pages on which reviewers compare readings and decide."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lib.geometry.volume import VolumeError, load_volume
from lib.server.endpoints.image_requests import image_file
from lib.server.endpoints.reading_requests import review
from lib.server.endpoints.who import CurrentUser
from lib.server.http.json_input import check_text
from lib.server.http.refusals import answered_with
from lib.server.review.review_picture import colors_of, comparison

_FOLDER = Path(__file__).parents[1] / "review"
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; script-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_TEMPLATES = Environment(loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
_TEMPLATES.filters["quoted"] = lambda text: quote(text, safe="")
_TEMPLATES.filters["dice"] = lambda value: f"{value:.2f}" if isinstance(value, float | int) else ""
_TEMPLATES.filters["mm"] = lambda value: f"{value:.1f}" if isinstance(value, float | int) else ""


def list_page(user: CurrentUser) -> Response:
    """Show the list of all readings, the largest disagreement first."""
    return _page("list.html", user=user.name, studies=[_whole(one) for one in review().listing(str(user.name))])


def study_page(user: CurrentUser, image: str) -> Response:
    """Show the page of one study, with a picture of its readings and the buttons to decide."""
    check_text(image, "image")
    study = review().entry(image, str(user.name))
    finished = [one["reader"] for one in study["readings"] if one["finished"]]
    return _page(
        "study.html",
        user=user.name,
        study=_whole(study),
        people=review().readings.people,
        own=user.name in finished,
        colors=colors_of(finished),
        picture_version=review().readings.version(image, finished),
    )


async def study_picture(user: CurrentUser, image: str) -> Response:
    """Return a PNG with the outlines of the readings of a study, in the slices where they differ most."""
    path = await image_file(image)
    content = await run_in_threadpool(_picture, image, path, str(user.name))
    return Response(content, media_type="image/png")


def _picture(image: str, path: Path, reviewer: str) -> bytes:
    with answered_with(422, VolumeError):
        scan = load_volume(path)
    maps = review().label_maps(image, scan.geometry, reviewer)
    return comparison(scan, maps)


async def script() -> Response:
    """Return the script of the study page, which sends the decisions."""
    content = (_FOLDER / "review.js").read_bytes()
    return Response(content, media_type="text/javascript", headers={"Cache-Control": "no-cache"})


def _whole(study: dict[str, Any]) -> dict[str, Any]:
    """Return a study with empty values for the fields that an unfinished study lacks, as templates require them."""
    no_agreement: dict[str, Any] = {"pairs": [], "dice": None, "largest_mm": None, "problem": ""}
    return {"decision": None, **study, "agreement": {**no_agreement, **study.get("agreement", {})}}


def _page(template: str, **parts: Any) -> HTMLResponse:
    content = _TEMPLATES.get_template(template).render(**parts)
    return HTMLResponse(content, headers={"Content-Security-Policy": _POLICY})
