"""Decide by its decoded path whether a viewer's request may be passed on to a DICOMweb archive."""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import parse_qsl

Service = Literal["qido", "wado"]

# A UID has up to 64 characters; numbers between single dots, so that no part of a path is dots only.
_UID = r"(?=[0-9.]{1,64}(?:/|$))[0-9]+(?:\.[0-9]+)*"
_STUDY = rf"studies/{_UID}"
_SERIES = rf"{_STUDY}/series/{_UID}"
_INSTANCE = rf"{_SERIES}/instances/{_UID}"
_ANY = rf"{_STUDY}(?:/series/{_UID}(?:/instances/{_UID})?)?"
_PICTURE = r"(?:rendered|thumbnail)"
_PART = r"[A-Za-z0-9_-][A-Za-z0-9._-]*"

_SEARCH = re.compile(
    rf"studies|series|instances|{_STUDY}/series|{_STUDY}/instances|{_SERIES}/instances",
)
_RETRIEVE = re.compile(
    rf"{_ANY}(?:/metadata|/{_PICTURE})?"
    rf"|{_INSTANCE}/frames/[0-9]{{1,9}}(?:,[0-9]{{1,9}})*(?:/{_PICTURE})?"
    rf"|{_ANY}/(?:bulk|bulkdata|bulkData)(?:/{_PART}){{0,32}}"
)
_STORE = re.compile(rf"studies(?:/{_UID})?")
_MAX_CHARACTERS = 2000
_MAX_FIELDS = 100
_NUMBER = re.compile(r"[0-9]{1,7}")
_ATTRIBUTE = re.compile(
    r"[A-Za-z][A-Za-z0-9]{0,63}(?:\.[A-Za-z0-9]{1,64}){0,8}|[0-9A-Fa-f]{8}(?:\.[0-9A-Fa-f]{8}){0,8}"
)


def read_service(operation: str, path: str) -> Service | None:
    """Return the service that answers a path; None if the path may not be read.

    Args:
        operation: qido or wado, as in the viewer's request. Some versions of OHIF request metadata from qido.
        path: decoded, relative to the URL of the service, without a leading slash.
    """
    if len(path) > _MAX_CHARACTERS:
        return None
    if operation == "qido" and _SEARCH.fullmatch(path):
        return "qido"
    is_metadata = operation == "qido" and path.endswith("/metadata")
    return "wado" if (operation == "wado" or is_metadata) and _RETRIEVE.fullmatch(path) else None


def passed_query(service: Service, path: str, query: str) -> str | None:
    """Return the query to send to the archive; None if it is refused.

    A search may have a limit and an offset, fields, and attributes by keyword or tag. The query of a retrieval is
    dropped: a large viewport, for example, lets the archive allocate any amount of memory.

    Args:
        query: as in the URL, percent-encoded.
    """
    if service == "wado":
        return ""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=_MAX_FIELDS)
    except ValueError:
        return None
    numbers = [value for name, value in pairs if name in ("limit", "offset")]
    names = [name for name, _ in pairs if name not in ("limit", "offset", "includefield", "fuzzymatching")]
    if all(map(_NUMBER.fullmatch, numbers)) and all(map(_ATTRIBUTE.fullmatch, names)):
        return query
    return None


def is_store(path: str) -> bool:
    """Tell whether instances may be stored (STOW-RS) at this path."""
    return _STORE.fullmatch(path) is not None
