"""A project as one HTML file that needs no other."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lib.geometry.volume import VolumeError
from lib.networks.checkpoint import TrainedModel
from lib.report.annotated_image import AnnotatedImage
from lib.report.pictures import learning_curve, overlay
from lib.report.project import AnnotatedProject


@dataclass(frozen=True)
class Picture:
    """An image as a data address, and what it shows."""

    source: str
    caption: str


def render(project: AnnotatedProject, max_pictures: int, progress: Callable[[], None] = lambda: None) -> str:
    """The page.

    Args:
        max_pictures: of masks; those of the images that were answered last come first.
        progress: called after each image.
    """
    pictures: list[Picture] = []
    left_out: list[str] = []
    for image in project.images:
        if len(pictures) < max_pictures and image.annotations:
            try:
                pictures += _pictures(image, project.model)
            except VolumeError as error:
                left_out.append(str(error))
        progress()
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["score"] = lambda value: "" if value is None else f"{value:.2f}"
    runs = [run for run in project.record.runs if run.score is not None]
    return environment.get_template("page.html").render(
        project=project,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        curve=_address(learning_curve(project.record)) if runs else None,
        pictures=pictures[:max_pictures],
        left_out=left_out,
        records=project.records,
    )


def _pictures(image: AnnotatedImage, model: TrainedModel | None) -> Iterator[Picture]:
    """Of each structure."""
    volume = image.volume()
    for annotation, mask in image.masks(volume, model):
        who = f"{annotation.points.label}, clicked by {annotation.annotator} on {annotation.created[:10]}"
        yield Picture(_address(overlay(volume, annotation, mask)), f"{image.image_id}: {who}")


def _address(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
