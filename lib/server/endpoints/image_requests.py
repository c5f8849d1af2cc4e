"""Answer requests about images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from fastapi import File, Form, HTTPException, Request, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, Response
from monailabel.interfaces.utils.app import app_instance

from lib.server.endpoints.who import name_of
from lib.server.http.json_input import check_text, json_object
from lib.server.http.pools import wait_for_archive
from lib.server.http.uploads import name_and_extension, stored_upload
from lib.server.studies.datastore import Studies
from lib.server.studies.folder_studies import FolderStudies


def studies() -> Studies:
    """Return the studies of the running app."""
    return app_instance().datastore()


async def image_file(image: str) -> Path:
    """Return the file of an image; fetch it from the archive if it is not cached.

    Raises:
        HTTPException: see `Studies.get_image_uri`.
    """
    check_text(image, "image")
    path = await run_in_threadpool(studies().local_file, image)
    return path or Path(await wait_for_archive(studies().get_image_uri, image))


async def download_image(image: str) -> Response:
    """Download the file of an image."""
    path = await image_file(image)
    if not path.is_file():
        raise HTTPException(404, f"The file of the image {image!r} is gone.")
    return FileResponse(path, media_type="application/octet-stream", filename=path.name)


async def check_image(image: str, check_sum: str | None = None) -> Response:
    """Tell whether an image exists, and whether its file has the checksum `check_sum` (`SHA256:...`); 404 if not."""
    path, datastore = await image_file(image), studies()
    if check_sum is not None and isinstance(datastore, FolderStudies):
        expected = check_sum.rpartition(":")[2].lower()
        if expected != await run_in_threadpool(datastore.file_checksum, path):
            raise HTTPException(404, f"The image {image!r} has another checksum.")
    return Response()


def image_info(image: str) -> dict[str, Any]:
    """Return the file or series of an image, and the information that clients have stored about it."""
    check_text(image, "image")
    return studies().get_image_info(image)


def update_image_info(image: str, info: Annotated[str, Form()] = "{}") -> dict[str, Any]:
    """Store information about an image, a JSON object."""
    check_text(image, "image")
    studies().update_image_info(image, json_object(info, "info"))
    return {}


async def add_image(
    request: Request,
    file: Annotated[UploadFile, File()],
    image: str | None = None,
    params: Annotated[str, Form()] = "{}",
) -> dict[str, Any]:
    """Add an image (.nii.gz, .nii, .nrrd) to the studies folder; an existing image is never replaced."""
    information = json_object(params, "params")
    check_text(image or "", "image")
    check_text(file.filename or "", "file name")
    name, extension = name_and_extension(file)
    information["user"] = name_of(request, information)
    return await run_in_threadpool(_add_image, image or name, extension, file, information)


def _add_image(image_id: str, extension: str, file: UploadFile, information: dict[str, Any]) -> dict[str, Any]:
    datastore = studies()
    if not isinstance(datastore, FolderStudies):
        raise HTTPException(422, "The studies come from a DICOMweb archive; send new series to the archive.")
    upload = stored_upload(file)
    try:
        datastore.add_volume(image_id, upload, extension)
    finally:
        upload.unlink(missing_ok=True)
    datastore.update_image_info(image_id, information)
    return {"image": image_id}


def remove_image(id: str) -> dict[str, Any]:
    """Move an image and all its annotations to `removed/`; `scripts/restore.sh` restores them."""
    check_text(id, "id")
    studies().remove_image(id)
    return {}


def list_studies(output: str | None = None) -> Any:
    """Return statistics; `output=all`: all images with their annotation tags; `output=train`: images with masks."""
    if output == "all":
        return studies().json()
    if output == "train":
        return studies().datalist()
    if output in (None, "stats"):
        return studies().status()
    raise HTTPException(422, f"The output is {output!r}; expected all, train or stats.")
