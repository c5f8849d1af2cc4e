"""Pass viewers' requests on to the archive: searches, retrievals, and segmentations to store."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http.cookiejar import DefaultCookiePolicy

import anyio
import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from lib.server.archive import archive_errors
from lib.server.archive.archive_errors import archive_error
from lib.server.archive.archive_paths import is_store, passed_query, read_service
from lib.server.archive.stow import boundary_of, multipart, segmentations
from lib.server.http.refusals import RefusedError, shown
from lib.server.process.certificates import trusted_certificates
from lib.server.process.network import is_loopback

logger = logging.getLogger(__name__)

REQUEST_HEADERS = ("Accept", "Range", "If-None-Match")
RESPONSE_HEADERS = ("Content-Type", "Content-Range", "Accept-Ranges", "ETag")
# Types in which browsers run no scripts; all others are passed on as BYTES.
HARMLESS_TYPES = ("application/dicom", "application/dicom+json", "application/json", "multipart/related")
BYTES = "application/octet-stream"
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 5.0, 30.0
MAX_CONNECTIONS = 64
MAX_SEGMENTATION_BYTES = 500_000_000


class ArchiveProxy:
    """Endpoints that pass requests on to a DICOMweb archive, with the archive's login and without redirects.

    Args:
        url: of the archive, such as http://localhost:8042/dicom-web; may contain a login.
        login: name and password for the archive.
        prefixes: paths of its services below `url`, by name (qido, wado, stow).
        read_timeout_s: longest time without data from the archive.
        max_bytes: largest body of a request to store segmentations.
    """

    def __init__(
        self,
        url: str,
        login: tuple[str, str] | None = None,
        prefixes: Mapping[str, str | None] | None = None,
        read_timeout_s: float = READ_TIMEOUT_S,
        max_bytes: int = MAX_SEGMENTATION_BYTES,
    ) -> None:
        address = httpx.URL(url.rstrip("/"))
        self._url, self._prefixes, self._max_bytes = address, dict(prefixes or {}), max_bytes
        self._name = str(address.copy_with(userinfo=b""))
        self._client = httpx.AsyncClient(
            auth=login,
            timeout=httpx.Timeout(read_timeout_s, connect=CONNECT_TIMEOUT_S, pool=CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_connections=MAX_CONNECTIONS),
            headers={"Accept-Encoding": "identity"},
            follow_redirects=False,
            trust_env=not is_loopback(address.host),
            verify=trusted_certificates(),
        )
        # The archive's cookies would be sent with the requests of other users.
        self._client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))

    async def read(self, request: Request, operation: str, path: str) -> Response:
        """Pass on a search (QIDO-RS) or a retrieval (WADO-RS).

        Args:
            request: of the client.
            operation: qido or wado.
            path: decoded, relative to the URL of that service.
        """
        try:
            service = read_service(operation, path)
            if service is None:
                raise RefusedError(
                    404, f"The server does not pass on {shown(path)}; expected studies and what is below them."
                )
            headers = {name: request.headers[name] for name in REQUEST_HEADERS if name in request.headers}
            query = passed_query(service, path, request.url.query)
            if query is None:
                raise RefusedError(
                    400, f"The server does not pass on the query {shown(request.url.query)} to the archive."
                )
            return await self._passed_on("GET", service, path, query, headers)
        except RefusedError as refusal:
            return _refused(refusal)

    async def store(self, request: Request, path: str) -> Response:
        """Pass on DICOM segmentations (STOW-RS), and refuse other objects.

        Args:
            request: of the client.
            path: decoded; studies, or studies/UID.
        """
        try:
            if not is_store(path):
                raise RefusedError(404, f"The server stores nothing at {shown(path)}; expected studies or studies/UID.")
            boundary = boundary_of(request.headers.get("Content-Type", ""))
            body = await self._body(request)
            instances = await anyio.to_thread.run_sync(segmentations, body, boundary)
            content_type, body = multipart(instances)
            headers = {"Content-Type": content_type, "Accept": "application/dicom+json"}
            return await self._passed_on("POST", "stow", path, "", headers, body)
        except RefusedError as refusal:
            return _refused(refusal)

    async def close(self) -> None:
        """Close the connections to the archive."""
        await self._client.aclose()

    async def _body(self, request: Request) -> bytes:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self._max_bytes:
                raise RefusedError(413, f"The segmentations are too large; expected up to {self._max_bytes:,} bytes.")
        return bytes(body)

    async def _passed_on(
        self, method: str, service: str, path: str, query: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> Response:
        prefix = (self._prefixes.get(service) or "").strip("/")
        address = "/".join(part for part in (str(self._url), prefix, path) if part)
        url = httpx.URL(address).copy_with(query=query.encode() or None)
        try:
            request = self._client.build_request(method, url, headers=headers, content=body)
            answer = await self._client.send(request, stream=True)
        except httpx.HTTPError as error:
            logger.error("The archive %s: %s", self._name, type(error).__name__)
            raise self._refusal(*_status_and_problem(error)) from error
        if answer.is_success or answer.status_code == 304:
            return _PassedOn(answer)
        await answer.aclose()
        status = answer.status_code
        is_of_client = 400 <= status < 500 and status not in (401, 403)  # the login is that of the server
        raise self._refusal(status if is_of_client else 502, archive_errors.problem_of(status))

    def _refusal(self, status: int, problem: str) -> RefusedError:
        return RefusedError(status, str(archive_error(self._name, problem)))


def _status_and_problem(error: httpx.HTTPError) -> tuple[int, str]:
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
        return 504, archive_errors.TIMED_OUT
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return 502, archive_errors.BAD_CERTIFICATE
    return 502, archive_errors.NO_PROXY if isinstance(error, httpx.ProxyError) else archive_errors.NO_ANSWER


class _PassedOn(StreamingResponse):
    """Answer of the archive, streamed to the client."""

    def __init__(self, answer: httpx.Response) -> None:
        headers = {name: answer.headers[name] for name in RESPONSE_HEADERS if name in answer.headers}
        headers["Content-Type"] = _harmless(headers.get("Content-Type", BYTES))
        # If the archive compressed its answer in spite of Accept-Encoding, aiter_bytes decompresses it.
        if "Content-Encoding" not in answer.headers and "Content-Length" in answer.headers:
            headers["Content-Length"] = answer.headers["Content-Length"]
        super().__init__(answer.aiter_bytes(), answer.status_code, headers)
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except httpx.HTTPError as error:
            # The answer has begun: the server closes the connection, so the client sees that it is incomplete.
            logger.error("The archive stopped in the middle of an answer: %s", type(error).__name__)
        finally:
            with anyio.CancelScope(shield=True):
                await self._answer.aclose()


def _harmless(content_type: str) -> str:
    kind = content_type.partition(";")[0].strip().lower()
    is_picture = kind.startswith(("image/", "video/")) and "xml" not in kind
    return content_type if kind in HARMLESS_TYPES or is_picture else BYTES


def _refused(refusal: RefusedError) -> JSONResponse:
    return JSONResponse({"detail": refusal.sentence}, refusal.status, refusal.headers)
