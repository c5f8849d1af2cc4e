"""Request annotations and masks from a running server."""

from __future__ import annotations

import ipaddress
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from dicomweb_client import DICOMwebClient
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from lib.exchange.property_codes import codes_from
from lib.exchange.segment_origin import ModelFile, SegmentOrigin, origins_of_clicks, origins_of_final
from lib.exchange.series_frames import Source
from lib.exchange.series_headers import headers_of
from lib.geometry.image_geometry import ImageGeometry
from lib.geometry.volume import Volume, load_volume, read_geometry
from lib.geometry.volume_files import EXTENSIONS

CLICK_MODEL, CLICK_TAG, FINAL_TAG = "extreme_points", "extreme_points", "final"
CLIENT_ID = "InExtremIS export"
CONNECT_TIMEOUT_S, ANSWER_TIMEOUT_S = 10, 600


class ServerError(RuntimeError):
    """Error of a server that cannot be reached, refuses or is another program; the text is for the user."""


@dataclass(frozen=True)
class ListedImage:
    """Annotations of an image in the server's list.

    Attributes:
        in_store: labels that were clicked or marked absent.
        in_final_mask: labels that the final mask covers; empty if it cannot be read, None without one.
        unanswered: labels of the app in neither of the two; an image without any is annotated.
    """

    in_store: tuple[str, ...]
    in_final_mask: tuple[str, ...] | None
    unanswered: tuple[str, ...]

    @classmethod
    def of(cls, entry: dict[str, Any]) -> ListedImage:
        """Create from an entry of the server's list.

        Raises:
            KeyError, TypeError: the entry is in another form.
        """
        labels = {tag: tuple(label["info"]["labels"]) for tag, label in entry["labels"].items()}
        return cls(labels.get(CLICK_TAG, ()), labels.get(FINAL_TAG), tuple(entry["unanswered"]))


class AnnotationServer:
    """MONAI Label server with the app of this repository.

    All requests raise a ServerError if the server does not answer or answers with an error, and a VolumeError if it
    sends an image or a mask that is not a volume.

    Args:
        url: such as http://127.0.0.1:8000.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ServerError("The address of the server is not a web address; expected such as http://127.0.0.1:8000.")
        # Messages must not contain the name and the password in the address.
        self.url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")
        self._session = _Session(parts.hostname)
        if parts.username:
            self._session.auth = requests.utils.get_auth_from_url(url)
        # The server's proxy of its archive, which requires the server's login.
        self._archive = DICOMwebClient(
            f"{self.url}/proxy/dicom",
            self._session,
            qido_url_prefix="qido",
            wado_url_prefix="wado",
            stow_url_prefix="stow",
        )
        self._archive.set_http_retry_params(retry=False)

    def log_in(self, name: str, password: str) -> None:
        """Log in as a user of the server.

        Raises:
            ServerError: the name or the password is wrong.
        """
        form = {"username": name, "password": password}
        with self._answers_of_monai_label():
            token = self._ask("POST", "/auth/token", {}, form).json()["access_token"]
        self._session.auth = None  # else it would replace the token
        self._session.headers["Authorization"] = f"Bearer {token}"

    def label_indices(self) -> dict[str, int]:
        """Return the index (from 1) of each label in masks."""
        with self._answers_of_monai_label():
            models = self._json("/info/").get("models") or {}
            if CLICK_MODEL not in models:
                raise ServerError(
                    f"The server at {self.url} runs another app; expected one with the model {CLICK_MODEL!r}."
                )
            return {str(label): int(index) for label, index in models[CLICK_MODEL]["labels"].items()}

    def images(self) -> dict[str, ListedImage]:
        """Return the images with clicks or a final mask, by id."""
        with self._answers_of_monai_label():
            images = self._json("/datastore/", output="all")["objects"]
            return {
                image: ListedImage.of(entry)
                for image, entry in images.items()
                if not {CLICK_TAG, FINAL_TAG}.isdisjoint(entry["labels"])
            }

    def codes(self) -> dict[str, Code]:
        """Return the code of each label that has one."""
        with self._answers_of_monai_label():
            return codes_from(self._json("/info/").get("codes") or {})

    def click_mask(self, image: str) -> tuple[Volume, dict[str, SegmentOrigin]]:
        """Compute the mask (X, Y, Z) of label indices from an image's stored clicks, with the origin of each label.

        Absent labels have no voxels.
        """
        # With a client id, so that the mask does not replace the one that an annotator may accept.
        params = {"use_stored_clicks": True, "client_id": CLIENT_ID}
        params |= {"result_extension": ".nii.gz", "result_dtype": "uint8"}
        form, query = {"params": json.dumps(params)}, {"image": image, "output": "image"}
        answer = self._ask("POST", f"/infer/{CLICK_MODEL}", query, form)
        model = ModelFile.of(answer.headers.get("x-model-version"), answer.headers.get("x-model-sha256"))
        with _image_file(answer) as path:
            mask = load_volume(path, sentinels=False)
        return mask, origins_of_clicks(self._label_info(image, CLICK_TAG), model)

    def final_mask(self, image: str) -> tuple[Volume, dict[str, SegmentOrigin]]:
        """Return the final mask (X, Y, Z) of label indices, with the origin of each label."""
        with _image_file(self._ask("GET", "/datastore/label", {"label": image, "tag": FINAL_TAG})) as path:
            mask = load_volume(path, sentinels=False)
        return mask, origins_of_final(self._label_info(image, FINAL_TAG))

    def _label_info(self, image: str, tag: str) -> dict[str, Any]:
        with self._answers_of_monai_label():
            return dict(self._json("/datastore/label/info", label=image, tag=tag))

    def image_geometry(self, image: str) -> ImageGeometry:
        with _image_file(self._ask("GET", "/datastore/image", {"image": image})) as path:
            return read_geometry(path)

    def has_series(self, image: str) -> bool:
        """Tell whether the image is a DICOM series of an archive, and not a file."""
        return self._series(image) is not None

    def series_headers(self, image: str) -> list[Dataset]:
        """Return the headers of all instances of an image's DICOM series; none for an image that is a file."""
        series = self._series(image)
        if series is None:
            return []
        with self._archive_errors("The archive does not give the headers of the series; check that it runs"):
            headers = headers_of(self._archive.retrieve_series_metadata(*series))
        if not headers:
            raise ServerError(
                "The archive holds no image of the series any more; delete its annotations, or restore it."
            )
        return headers

    def sources(self, image: str) -> list[Source] | None:
        """Return the frames that an image was made from; None if these are all frames of its series."""
        with self._answers_of_monai_label():
            sources = self._json("/datastore/image/info", image=image).get("sources")
            return None if sources is None else [(str(uid), int(number)) for uid, number in sources]

    def store_in_archive(self, instances: Sequence[Dataset]) -> None:
        """Store instances in the archive of the server (STOW-RS)."""
        with self._archive_errors("The archive does not take the segmentation; its log says more"):
            answer = self._archive.store_instances(instances)
        if answer.get("FailedSOPSequence"):
            reason = answer.FailedSOPSequence[0].get("FailureReason", "none given")
            raise ServerError(f"The archive refused the segmentation (failure reason {reason}); its log says more.")

    def _series(self, image: str) -> tuple[str, str] | None:
        """Return the UIDs of study and series; None for an image that is a file."""
        with self._answers_of_monai_label():
            info = self._json("/datastore/image/info", image=image)
            study, series = info.get("StudyInstanceUID"), info.get("SeriesInstanceUID")
            return (study, series) if study and series else None

    @contextmanager
    def _answers_of_monai_label(self) -> Iterator[None]:
        try:
            yield
        except (AttributeError, KeyError, TypeError, ValueError) as error:  # no JSON, or not in MONAI Label's form
            raise ServerError(f"What answers at {self.url} is not a MONAI Label server.") from error

    def _json(self, path: str, **query: str) -> Any:
        return self._ask("GET", path, query).json()

    def _ask(
        self, method: str, path: str, query: dict[str, str], form: dict[str, str] | None = None
    ) -> requests.Response:
        try:
            answer = self._session.request(method, self.url + path, params=query, data=form)
        except requests.RequestException as error:
            raise ServerError(_unreachable(error, self.url)) from error
        if not answer.ok:
            raise ServerError(_sentence(answer))
        return answer

    @contextmanager
    def _archive_errors(self, refused: str) -> Iterator[None]:
        """Raise a ServerError for a failed connection, or with the text `refused` and the server's reason."""
        try:
            yield
        except requests.HTTPError as error:
            reason = _sentence(error.response) if error.response is not None else str(error)
            raise ServerError(f"{refused} ({reason.rstrip('.')}).") from error
        except requests.JSONDecodeError as error:
            raise ServerError(f"{refused} (its answer is not JSON).") from error
        except requests.RequestException as error:
            raise ServerError(_unreachable(error, self.url)) from error
        except Exception as error:  # the client raises errors of any kind
            raise ServerError(f"{refused} (its answer is not one of DICOMweb).") from error


class _Session(requests.Session):
    """Session with timeouts, which does not use a proxy for this machine."""

    def __init__(self, host: str) -> None:
        super().__init__()
        if _is_this_machine(host):
            # `trust_env` enables both proxies and certificates of the environment; this host needs only the latter.
            self.trust_env, self.verify = False, os.environ.get("REQUESTS_CA_BUNDLE") or True

    def request(self, *arguments: Any, **options: Any) -> requests.Response:
        options.setdefault("timeout", (CONNECT_TIMEOUT_S, ANSWER_TIMEOUT_S))
        # DICOMwebClient sets the host without its port.
        (options.get("headers") or {}).pop("Host", None)
        return super().request(*arguments, **options)


def _is_this_machine(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost" or host.endswith(".localhost")


def _unreachable(error: requests.RequestException, url: str) -> str:
    match error:
        case requests.exceptions.SSLError():
            return (
                f"The certificate of {url} is not one that this machine trusts; set REQUESTS_CA_BUNDLE to the file of "
                "the certificates to trust, or give the address with http:// if the server has no certificate."
            )
        case requests.exceptions.ProxyError():
            return (
                f"The proxy on the way to {url} does not answer; name the server's host in NO_PROXY if it is reached "
                "without, or correct HTTP_PROXY and HTTPS_PROXY."
            )
        case requests.Timeout():
            limit_s = CONNECT_TIMEOUT_S if isinstance(error, requests.ConnectTimeout) else ANSWER_TIMEOUT_S
            return f"{url} did not answer within {limit_s} s; check that the server is not busy, and try again."
    return f"There is no answer from {url}; start the server, or give its address, such as http://127.0.0.1:8000."


def _sentence(answer: requests.Response) -> str:
    if answer.status_code == 401 and not answer.url.endswith("/auth/token"):
        return "The server asks for a login; name a user of it with --login NAME."
    try:
        return str(answer.json()["detail"])
    except (requests.JSONDecodeError, KeyError, TypeError):
        return f"The server answered {answer.status_code} {answer.reason}; its log says more."


@contextmanager
def _image_file(answer: requests.Response) -> Iterator[Path]:
    """Write the volume in an answer to a temporary file with its extension."""
    name = answer.headers.get("content-disposition", "").rstrip("\"'")
    extension = next((extension for extension in EXTENSIONS if name.endswith(extension)), None)
    if extension is None:
        raise ServerError(f"The server sent no volume ({name or 'without a name'}); expected {', '.join(EXTENSIONS)}.")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "volume" + extension)
        path.write_bytes(answer.content)
        yield path
