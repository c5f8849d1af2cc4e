"""Say in a sentence why a DICOMweb archive could not be used."""

from __future__ import annotations

NO_ANSWER = "does not answer as it should; check that it runs."
TIMED_OUT = "did not answer in time; check that it runs and is not overloaded."
BAD_CERTIFICATE = "has a certificate that is not trusted; name its issuer's file in REQUESTS_CA_BUNDLE."
NO_PROXY = "cannot be reached through the proxy of http_proxy or https_proxy; add its host to no_proxy."
_REFUSED_LOGIN = (
    "refuses the login; start the server with the right MONAI_LABEL_DICOMWEB_USERNAME and "
    "MONAI_LABEL_DICOMWEB_PASSWORD in the environment."
)


class ArchiveError(RuntimeError):
    """Error of a request to the archive, with a message for the user.

    Args:
        status: HTTP status; None if the archive did not answer.
    """

    def __init__(self, sentence: str, status: int | None = None) -> None:
        super().__init__(sentence)
        self.status = status


def archive_error(url: str, problem: str, status: int | None = None) -> ArchiveError:
    """Make the error of an archive.

    Args:
        url: URL of the archive, without a login.
        problem: end of the sentence, such as `NO_ANSWER` or `problem_of(status)`.
    """
    return ArchiveError(f"The DICOMweb archive {url} {problem}", status)


def problem_of(status: int) -> str:
    """Return the end of the sentence for an HTTP status of an error or redirect."""
    if status in (401, 403):
        return _REFUSED_LOGIN
    if 300 <= status < 400:
        return f"answered {status}, a redirect, which is not followed; check its address."
    return f"answered {status}; its log says more."
