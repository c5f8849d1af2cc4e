"""Run a model and answer with its mask."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Protocol

import torch
from fastapi import File, Form, HTTPException, Request, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response, StreamingResponse
from monailabel.interfaces.utils.app import app_instance
from requests_toolbelt import MultipartEncoder

from lib.exchange.dicom_seg import file_content
from lib.exchange.segment_origin import ModelFile, SegmentOrigin, origins_of_clicks
from lib.exchange.series_frames import SegmentationError
from lib.geometry.gzip_stream import PIECE_BYTES, gzipped
from lib.geometry.volume import VolumeError, load_volume
from lib.infers.extreme_points_task import ExtremePointsInferTask
from lib.infers.requests import check_result_format, require_model
from lib.infers.stored_clicks import asks_for_stored_clicks
from lib.server.archive.archive_errors import ArchiveError
from lib.server.endpoints.image_requests import image_file, studies
from lib.server.endpoints.review_only import refuse_if_review_only
from lib.server.endpoints.session_requests import open_session
from lib.server.endpoints.who import CurrentUser, name_of
from lib.server.http.compression import is_worth_gzip
from lib.server.http.disk_full import writing
from lib.server.http.guard import record_nothing, set_details
from lib.server.http.json_input import json_object
from lib.server.http.pools import compute, wait_for_archive
from lib.server.http.refusals import answered_with
from lib.server.http.uploads import stored_upload
from lib.server.login.user import Role, require_role
from lib.server.masks.annotation_set import AnnotationSet
from lib.server.project import CLICK_TAG
from lib.server.studies.archive_studies import ArchiveStudies


class _Readable(Protocol):
    def read(self, size: int) -> bytes: ...


OUTPUTS = (None, "all", "image", "json", "dicom_seg")


async def infer(
    http_request: Request,
    user: CurrentUser,
    model: str,
    image: str = "",
    session_id: str = "",
    params: Annotated[str, Form()] = "{}",
    file: Annotated[UploadFile | None, File()] = None,
    output: str | None = None,
) -> Response:
    """Run a model on an image of the studies, on the image of a session, or on an uploaded `file`."""
    parameters = json_object(params, "params")
    refuse_if_review_only()
    require_model(model, app_instance().models)
    check_result_format(parameters)
    if output not in OUTPUTS:
        raise HTTPException(422, f"The output is {output[:80]!r}; expected image, json, all or dicom_seg.")
    if output == "dicom_seg" and not isinstance(studies(), ArchiveStudies):
        raise HTTPException(422, "DICOM SEG needs studies from a DICOMweb archive; these are files: ask for an image.")
    stores = file is None and not session_id and _stores_clicks(model, parameters)
    if stores:
        require_role(user, Role.ANNOTATOR)
    upload = await run_in_threadpool(stored_upload, file) if file is not None else None
    try:
        name = name_of(http_request, parameters)
        request = {
            **parameters,
            "client_id": name,
            "model": model,
            "image": str(upload or await _image(image, session_id)),
            "image_id": image if upload is None and not session_id else None,
        }
        if request["image_id"]:
            await run_in_threadpool(studies().require_project)
        annotations = await run_in_threadpool(_annotations, image, name, stores)
        path, answer = await compute(_run, request, annotations)
    finally:
        if upload is not None:
            upload.unlink(missing_ok=True)
    if stores:
        await run_in_threadpool(studies().record_work, image, name)
        set_details(http_request, labels=list(answer["extreme_points"]), absent=list(answer["absent"]))
    else:
        record_nothing(http_request)
    return await _response(path, answer, output, annotations, http_request, image)


def _annotations(image: str, name: str, stores: bool) -> AnnotationSet:
    """Return the annotations in which clicks are stored, or looked up."""
    readings = studies().readings
    if not stores:
        return readings.seen_by(name, image)
    with readings.changing(image, name) as annotations:  # refuses before the mask is computed
        return annotations


def _stores_clicks(model: str, parameters: Mapping[str, Any]) -> bool:
    """Tell whether the model stores the clicks of this request."""
    return isinstance(app_instance().models[model], ExtremePointsInferTask) and not asks_for_stored_clicks(parameters)


async def _image(image: str, session_id: str) -> Path:
    if session_id:
        return open_session(session_id).image
    if not image:
        raise HTTPException(422, "There is no image: give 'image', 'session_id' or a file.")
    return await image_file(image)


def _run(request: dict[str, Any], annotations: AnnotationSet) -> tuple[str, dict[str, Any]]:
    task = app_instance().models[request["model"]]
    if isinstance(task, ExtremePointsInferTask) and annotations is not studies():
        task = task.storing_in(annotations.clicks, annotations.given_masks, lambda name: None)
    try:
        with writing("The mask", "written"):
            path, answer = task(request)
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        raise HTTPException(
            503, "The GPU has no memory left for this image; try again when the training has ended."
        ) from error
    except MemoryError as error:
        raise HTTPException(503, "The server has no memory left for this image; try again later.") from error
    return path, answer


async def _response(
    path: str,
    answer: dict[str, Any],
    output: str | None,
    annotations: AnnotationSet,
    http_request: Request,
    image: str,
) -> Response:
    try:
        if output == "json":
            return Response(json.dumps(answer), media_type="application/json")
        if output == "dicom_seg":
            segmentation = await wait_for_archive(_segmentation, path, image, answer, annotations)
            return Response(segmentation, media_type="application/dicom")
        # The open file stays readable after its name is removed below.
        file, name = open(path, "rb"), os.path.basename(path)  # noqa: SIM115
    finally:
        Path(path).unlink(missing_ok=True)
    as_gzip = not name.endswith(".gz") and is_worth_gzip(http_request)
    if output == "image":
        headers = {"content-disposition": f'attachment; filename="{name}"', **_model_headers(answer)}
        return _stream(file, os.fstat(file.fileno()).st_size, "application/octet-stream", headers, as_gzip)
    fields = {
        "params": (None, json.dumps(answer), "application/json"),
        "image": (name, file, "application/octet-stream"),
    }
    message = MultipartEncoder(fields=fields)
    return _stream(message, message.len, message.content_type, {}, as_gzip)


def _model_headers(answer: Mapping[str, Any]) -> dict[str, str]:
    """Return the version of the network as headers, for clients that request only the mask."""
    names = {"x-model-version": "model_version", "x-model-sha256": "model_sha256"}
    return {name: str(answer[key]) for name, key in names.items() if answer.get(key) is not None}


def _stream(
    content: _Readable, length: int, media_type: str, headers: Mapping[str, str], as_gzip: bool
) -> StreamingResponse:
    """Stream a body of `length` bytes without another copy of it in memory; gzip shrinks a mask about 100 times."""
    pieces = iter(partial(content.read, PIECE_BYTES), b"")
    if as_gzip:
        return StreamingResponse(
            gzipped(pieces), media_type=media_type, headers={**headers, "content-encoding": "gzip"}
        )
    return StreamingResponse(pieces, media_type=media_type, headers={**headers, "content-length": str(length)})


def _segmentation(path: str, image: str, answer: Mapping[str, Any], annotations: AnnotationSet) -> bytes:
    datastore = studies()
    assert isinstance(datastore, ArchiveStudies)
    with answered_with(422, SegmentationError, VolumeError), answered_with(502, ArchiveError):
        instance = datastore.segmentation(image, load_volume(path), _origins(image, answer, annotations))
    return file_content(instance)


def _origins(image: str, answer: Mapping[str, Any], annotations: AnnotationSet) -> dict[str, SegmentOrigin]:
    """Return the origin of each label of an answer: its stored clicks, or the network alone."""
    model = ModelFile.of(answer.get("model_version"), answer.get("model_sha256"))
    if "extreme_points" not in answer:
        return dict.fromkeys(answer["label_names"], SegmentOrigin("AUTOMATIC", model=model))
    return origins_of_clicks(annotations.get_label_info(image, CLICK_TAG), model)
