"""Render a project as one self-contained HTML file."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lib.annotations.mask_file import MaskError
from lib.geometry.volume import VolumeError
from lib.networks.checkpoint import TrainedModel
from lib.report.annotated_image import AnnotatedImage
from lib.report.annotated_project import AnnotatedProject
from lib.report.pictures import learning_curve, overlay
from lib.report.wording import duration, local_time, program_name

# Image ids in the audit log.
_IMAGE = re.compile(r"\b(?:image|id): (?P<image>[^;]+)")


@dataclass(frozen=True)
class Picture:
    """Picture as a data URL, with its caption."""

    source: str
    caption: str


def render(
    project: AnnotatedProject,
    max_pictures: int,
    progress: Callable[[], None] = lambda: None,
    now: datetime | None = None,
) -> str:
    """Render the report.

    Args:
        max_pictures: largest number of pictures of masks; those of the images that were annotated last come first.
        progress: called after each image.
        now: time of the report, with a time zone; default: the current time.
    """
    now = now or datetime.now(UTC)
    pictures: list[Picture] = []
    left_out: list[str] = []
    for image in project.images:
        if len(pictures) < max_pictures and (image.annotations or image.final):
            try:
                pictures += _pictures(image, project.model)
            except (VolumeError, MaskError) as error:
                left_out.append(str(error))
        progress()
    runs = [run for run in project.record.runs if run.score is not None]
    return (
        _environment(project)
        .get_template("page.html")
        .render(
            project=project,
            now=now,
            curve=_data_url(learning_curve(project.record)) if runs else None,
            pictures=pictures[:max_pictures],
            left_out=left_out,
        )
    )


def _environment(project: AnnotatedProject) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {
        "score": lambda value: "" if value is None else f"{value:.2f}",
        "time": _time,
        "program": program_name,
        "named": lambda of: _IMAGE.sub(lambda found: project.name_of(found["image"]), of),
    }
    environment.globals["duration"] = duration
    return environment


def _time(time: str | datetime) -> Markup:
    exact = time if isinstance(time, str) else time.isoformat(timespec="seconds")
    return Markup('<time datetime="{}">{}</time>').format(exact, local_time(time)) if time else Markup()


def _pictures(image: AnnotatedImage, model: TrainedModel | None) -> Iterator[Picture]:

    volume = image.volume()
    for shown in image.masks(volume, model):
        row = shown.row
        who = f", {row.annotator}" if row.annotator else ""
        when = f", {local_time(row.created)}" if row.created else ""
        caption = f"{image.name}: {row.label} ({row.status}){who}{when}"
        yield Picture(_data_url(overlay(volume, shown.mask, shown.points)), caption)


def _data_url(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
