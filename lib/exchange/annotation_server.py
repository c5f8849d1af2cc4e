"""The running server as a client of its HTTP interface sees it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from dicomweb_client import DICOMwebClient
from pydicom.dataset import Dataset

from lib.annotations.geometry import ImageGeometry
from lib.annotations.volume import Volume, load_volume, read_geometry
from lib.exchange.study_images import EXTENSIONS

CLICK_MODEL, CLICK_TAG, FINAL_TAG = "extreme_points", "extreme_points", "final"
CONNECT_TIMEOUT_S, ANSWER_TIMEOUT_S = 10, 600


class ServerError(RuntimeError):
    """The server cannot be reached, refuses, or is another one than expected; the text is for the user."""


class AnnotationServer:
    """A MONAI Label server with the app of this repository.

    Args:
        url: such as http://127.0.0.1:8000.

    Raises, whenever the server is asked:
        ServerError: it does not answer, or answers with an error, whose text is then its own.
        VolumeError: an image or a mask that it sends is no volume.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        # Of the archive that the server serves, with the server's own login.
        self._archive = DICOMwebClient(
            f"{self.url}/proxy/dicom", qido_url_prefix="qido", wado_url_prefix="wado", stow_url_prefix="stow"
        )

    def label_indices(self) -> dict[str, int]:
        """The index (from 1) of each label in masks."""
        models = self._json("/info/").get("models") or {}
        if CLICK_MODEL not in models:
            raise ServerError(
                f"The server at {self.url} runs another app; expected one with the model {CLICK_MODEL!r}."
            )
        return {str(label): int(index) for label, index in models[CLICK_MODEL]["labels"].items()}

    def annotated_images(self) -> dict[str, bool]:
        """The ids of images with clicks or a final mask, and for each whether it has a final mask."""
        images = self._json("/datastore/", output="all")["objects"]
        return {
            image: FINAL_TAG in entry["labels"]
            for image, entry in images.items()
            if not {CLICK_TAG, FINAL_TAG}.isdisjoint(entry["labels"])
        }

    def click_mask(self, image: str) -> Volume:
        """The mask (X, Y, Z) of label indices that the stored clicks of an image give now."""
        params = {"use_stored_clicks": True, "result_extension": ".nii.gz", "result_dtype": "uint8"}
        form, query = {"params": json.dumps(params)}, {"image": image, "output": "image"}
        with _image_file(self._ask("POST", f"/infer/{CLICK_MODEL}", query, form)) as path:
            return load_volume(path)

    def final_mask(self, image: str) -> Volume:
        """The mask (X, Y, Z) of label indices that an annotator submitted as final."""
        with _image_file(self._ask("GET", "/datastore/label", {"label": image, "tag": FINAL_TAG})) as path:
            return load_volume(path)

    def image_geometry(self, image: str) -> ImageGeometry:
        with _image_file(self._ask("GET", "/datastore/image", {"image": image})) as path:
            return read_geometry(path)

    def series_headers(self, image: str) -> list[Dataset]:
        """The headers of all instances of an image's DICOM series; none where the image is a file."""
        info = self._json("/datastore/image/info", image=image)
        study, series = info.get("StudyInstanceUID"), info.get("SeriesInstanceUID")
        if not study or not series:
            return []
        try:
            instances = self._archive.retrieve_series_metadata(study, series)
        except requests.RequestException as error:
            raise ServerError(
                f"The archive does not give the headers of the series; see that it runs ({error})."
            ) from error
        # What is not sent along, such as the pixels, is left out.
        return [Dataset.from_json(instance, bulk_data_uri_handler=lambda uri: None) for instance in instances]

    def store_in_archive(self, instances: Sequence[Dataset]) -> None:
        """Stores instances in the archive that the server serves (STOW-RS)."""
        try:
            answer = self._archive.store_instances(instances)
        except requests.RequestException as error:
            raise ServerError(f"The archive does not take the segmentation; its log says more ({error}).") from error
        if answer.get("FailedSOPSequence"):
            raise ServerError(f"The archive refused the segmentation: {answer.FailedSOPSequence[0]}")

    def _json(self, path: str, **query: str) -> dict[str, Any]:
        try:
            return self._ask("GET", path, query).json()
        except requests.JSONDecodeError as error:
            raise ServerError(f"What answers at {self.url} is no MONAI Label server.") from error

    def _ask(
        self, method: str, path: str, query: dict[str, str], form: dict[str, str] | None = None
    ) -> requests.Response:
        timeout_s = (CONNECT_TIMEOUT_S, ANSWER_TIMEOUT_S)
        try:
            answer = requests.request(method, self.url + path, params=query, data=form, timeout=timeout_s)
        except requests.RequestException as error:
            raise ServerError(
                f"There is no answer from {self.url}; start the server, or give its address, such as "
                "http://127.0.0.1:8000."
            ) from error
        if not answer.ok:
            raise ServerError(_sentence(answer))
        return answer


def _sentence(answer: requests.Response) -> str:
    if answer.status_code in (401, 403):
        return "The server asks for a login, which an export cannot give; run it against a server without one."
    try:
        return str(answer.json()["detail"])
    except (requests.JSONDecodeError, KeyError, TypeError):
        return f"The server answered {answer.status_code} {answer.reason}; its log says more."


@contextmanager
def _image_file(answer: requests.Response) -> Iterator[Path]:
    """What was sent, as a file under a name of its own; readers go by its extension."""
    name = answer.headers.get("content-disposition", "").rstrip("\"'")
    extension = next((extension for extension in EXTENSIONS if name.endswith(extension)), None)
    if extension is None:
        raise ServerError(f"The server sent no volume ({name or 'without a name'}); expected {', '.join(EXTENSIONS)}.")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "volume" + extension)
        path.write_bytes(answer.content)
        yield path
