"""List and fetch the series of a DICOMweb archive, and store segmentations in it."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from dicomweb_client import DICOMwebClient
from dicomweb_client.ext.gcp.session_utils import create_session_from_gcp_credentials
from dicomweb_client.session_utils import create_session_from_user_pass
from monailabel.datastore.dicom import DICOMwebClientX
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from requests.adapters import HTTPAdapter
from urllib3.exceptions import ReadTimeoutError

from lib.exchange.series_headers import headers_of
from lib.server.archive import archive_errors
from lib.server.archive.archive_errors import ArchiveError, archive_error
from lib.server.process.network import is_loopback

UID = re.compile(r"[0-9]+(\.[0-9]+)*")
PAGE_SIZE = 500

logger = logging.getLogger(__name__)

_UID_TAG = "0020000E"
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 5.0, 30.0

_FACTS = (
    *("StudyInstanceUID", "StudyDate", "StudyTime", "Modality", "PatientID"),
    *("PatientName", "StudyDescription", "SeriesDescription"),
)


@dataclass(frozen=True)
class Series:
    """Series as listed by the archive.

    Attributes:
        facts: attributes by DICOM keyword, as far as the archive returns them.
        instances: number of instances; None if the archive does not return it.
    """

    uid: str
    facts: Mapping[str, str]
    instances: int | None

    def is_same(self, other: Series) -> bool:
        """Tell whether both are the same series of the same patient in the same study."""
        names = ("StudyInstanceUID", "PatientID")
        return self.uid == other.uid and all(self.facts.get(name) == other.facts.get(name) for name in names)

    @classmethod
    def of(cls, found: dict[str, Any]) -> Series | None:
        """Parse a search result (DICOM JSON); None if it has no valid UID."""
        try:
            attributes = Dataset.from_json(found)
            uid = str(attributes.get("SeriesInstanceUID", ""))
        except Exception:  # pydicom raises many types of errors for invalid values
            return None
        if len(uid) > 64 or not UID.fullmatch(uid):
            return None
        facts = {name: str(attributes[name].value) for name in _FACTS if attributes.get(name)}
        number = attributes.get("NumberOfSeriesRelatedInstances")
        return cls(uid, facts, int(number) if number is not None and str(number).isdigit() else None)


class Archive:
    """DICOMweb client of an archive.

    All methods that send a request raise `ArchiveError` if the archive does not answer or refuses the request.

    Args:
        url: DICOMweb root, without a login.
        login: name and password, or None.
        search_filter: DICOM attributes that series must have. "Modality" may list several, as "MR,CT"; each is
            searched for separately, as archives differ in their support of lists.
        fetch_by_frame: request single frames, for archives that do not send whole instances.
        prefixes: of the search, retrieve and store services in the URL.
    """

    def __init__(
        self,
        url: str,
        login: tuple[str, str] | None,
        search_filter: Mapping[str, Any],
        fetch_by_frame: bool = False,
        prefixes: tuple[str | None, str | None, str | None] = (None, None, None),
    ) -> None:
        self.url = url
        self.fetch_by_frame = fetch_by_frame
        self._searches = _searches(search_filter)
        self._warned: set[str] = set()
        qido, wado, stow = prefixes
        self._client: DICOMwebClient = DICOMwebClientX(
            url=url, session=_session(url, login), qido_url_prefix=qido, wado_url_prefix=wado, stow_url_prefix=stow
        )
        self._client.set_http_retry_params(retry=False)

    def list_series(self) -> dict[str, Series]:
        """Return all series that match the filter, by UID, without UIDs found in two studies or for two patients."""
        found: dict[str, Series] = {}
        ambiguous: set[str] = set()
        for search in self._searches:
            for page in self._pages(search):
                ambiguous |= {series.uid for series in page if not series.is_same(found.setdefault(series.uid, series))}
        for uid in ambiguous - self._warned:
            logger.warning("The series %s is in several studies or of several patients, and is not listed.", uid)
        self._warned |= ambiguous
        return {uid: series for uid, series in found.items() if uid not in ambiguous}

    def _pages(self, search: Mapping[str, Any]) -> Iterator[list[Series]]:
        """Yield pages until one has no new series: archives may return shorter pages, or the same page each time."""
        seen: set[str] = set()
        offset = 0
        while True:
            query: dict[str, Any] = {"search_filters": dict(search), "limit": PAGE_SIZE} | (
                {"offset": offset} if offset else {}
            )
            try:
                answer = self._request(partial(self._search, **query))
            except ArchiveError as error:
                if offset and error.status in (400, 404, 501):
                    return  # the archive does not support offsets
                raise
            yield [series for entry in answer if (series := Series.of(entry)) is not None]
            uids = {str(entry.get(_UID_TAG)) for entry in answer}
            if uids <= seen:
                return
            seen |= uids
            offset += len(answer)

    def _search(self, **query: Any) -> list[dict[str, Any]]:
        answer: Any = self._client.search_for_series(**query)
        if not isinstance(answer, list) or not all(isinstance(entry, dict) for entry in answer):
            raise ValueError("expected a list of objects")
        return answer

    def find(self, series: Series) -> Series | None:
        """Search the archive for a series, to get its current attributes; None if it is gone."""
        answer = self._request(lambda: self._search(search_filters={"SeriesInstanceUID": series.uid}))
        found = (Series.of(entry) for entry in answer)
        return next((one for one in found if one is not None and one.is_same(series)), None)

    def fetch(self, series: Series, folder: Path) -> None:
        """Write the instances of a series into a new folder, in the transfer syntax in which they are stored."""
        folder.mkdir()
        study = series.facts.get("StudyInstanceUID", "")
        fetch = self._frames if self.fetch_by_frame else self._instances
        instances = self._request(lambda: fetch(study, series.uid))
        number = 0
        while (instance := self._request(lambda: next(instances, None))) is not None:
            instance.save_as(folder / f"{number:06d}.dcm", write_like_original=False)
            number += 1
        if series.instances is not None and number < series.instances:
            raise ArchiveError(
                f"The DICOMweb archive {self.url} gave {number} of the {series.instances} instances of a series; retry."
            )

    def _instances(self, study: str, uid: str) -> Iterator[Dataset]:
        try:
            return self._client.iter_series(study, uid, media_types=(("application/dicom", "*"),))
        except requests.HTTPError as error:
            if error.response is None or error.response.status_code not in (400, 406, 415):
                raise
            return self._client.iter_series(study, uid)

    def _frames(self, study: str, uid: str) -> Iterator[Dataset]:
        for metadata in self._client.retrieve_series_metadata(study, uid):
            instance = Dataset.from_json(metadata)
            (pixels,) = self._client.retrieve_instance_frames(
                study_instance_uid=study,
                series_instance_uid=uid,
                sop_instance_uid=instance.SOPInstanceUID,
                frame_numbers=[1],
            )
            instance.PixelData = bytes(pixels)  # pydicom converts a bytearray to a list of numbers
            instance.file_meta = FileMetaDataset()
            instance.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            instance.is_little_endian, instance.is_implicit_VR = True, False
            yield instance

    def headers(self, series: Series) -> list[Dataset]:
        """Return the headers of all instances of a series, without pixels and without invalid elements."""
        study = series.facts.get("StudyInstanceUID", "")
        headers: list[Dataset] = self._request(
            lambda: headers_of(self._client.retrieve_series_metadata(study, series.uid))
        )
        return headers

    def store(self, instances: Sequence[Dataset]) -> None:
        """Store instances (STOW-RS)."""
        answer = self._request(lambda: self._client.store_instances(instances))
        if answer.get("FailedSOPSequence"):
            raise ArchiveError("The archive refused the segmentation; its log says more.")

    def _request(self, send: Callable[[], Any]) -> Any:
        try:
            return send()
        except Exception as error:  # the client and pydicom raise many types of errors for invalid answers
            status = getattr(getattr(error, "response", None), "status_code", None)
            raise archive_error(self.url, _problem(error), status) from error


def _problem(error: Exception) -> str:
    if isinstance(error, requests.exceptions.SSLError):
        return archive_errors.BAD_CERTIFICATE
    if isinstance(error, requests.exceptions.ProxyError):
        return archive_errors.NO_PROXY
    if _has_timed_out(error):
        return archive_errors.TIMED_OUT
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return archive_errors.problem_of(error.response.status_code)
    return archive_errors.NO_ANSWER


def _has_timed_out(error: BaseException) -> bool:
    """Tell whether an error is a time-out; within an answer, requests raises it as a ConnectionError."""
    causes = (error, *error.args)
    return any(isinstance(cause, (requests.exceptions.Timeout, ReadTimeoutError)) for cause in causes)


def _searches(search_filter: Mapping[str, Any]) -> list[dict[str, Any]]:
    modalities = search_filter.get("Modality")
    if not isinstance(modalities, str):
        return [dict(search_filter)]
    return [{**search_filter, "Modality": modality.strip()} for modality in modalities.split(",")]


class _TimeoutAdapter(HTTPAdapter):
    """Set a time-out for every request: without one, an archive that hangs blocks its thread."""

    def send(self, request: Any, *arguments: Any, **options: Any) -> requests.Response:
        if options.get("timeout") is None:
            options["timeout"] = (CONNECT_TIMEOUT_S, READ_TIMEOUT_S)
        return super().send(request, *arguments, **options)


def _session(url: str, login: tuple[str, str] | None) -> requests.Session:
    if (urlsplit(url).hostname or "").endswith("googleapis.com"):
        session = create_session_from_gcp_credentials()
    else:
        session = create_session_from_user_pass(*login) if login else requests.Session()
    if is_loopback(urlsplit(url).hostname or ""):
        # In requests, trust_env covers proxies and certificates; this host needs the certificates only.
        session.trust_env, session.verify = False, os.environ.get("REQUESTS_CA_BUNDLE") or True
    for scheme in ("http://", "https://"):
        session.mount(scheme, _TimeoutAdapter())
    return session
