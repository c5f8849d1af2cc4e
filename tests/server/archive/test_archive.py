"""The client of an archive over real HTTP: complete lists, whole instances, and errors as sentences."""

import numpy as np
import pytest
from pydicom import dcmread

from lib.server.archive import archive as archive_requests
from lib.server.archive.archive import Archive
from lib.server.archive.archive_errors import ArchiveError
from tests.exchange.answering import self_signed_certificate
from tests.server.archive import dicomweb
from tests.server.archive.dicomweb import FakeDICOMweb, served, two_series

LOGIN = ("reader", "very secret")


@pytest.fixture
def archive():
    return two_series()


@pytest.fixture
def client(archive):
    """Return a function that makes a client of the archive."""
    with served(archive) as address:
        yield lambda login=None, search_filter=None, fetch_by_frame=False, address=address: Archive(
            address, login, {"Modality": "MR"} if search_filter is None else search_filter, fetch_by_frame
        )


def error_of(call, *arguments):
    with pytest.raises(ArchiveError) as error:
        call(*arguments)
    return str(error.value)


# The list


@pytest.mark.parametrize(
    ("search_filter", "searches", "listed"),
    [
        ({"Modality": "MR,CT"}, [{"Modality": ["MR"]}, {"Modality": ["CT"]}], 3),
        ({"Modality": "MR, CT ,PT"}, [{"Modality": ["MR"]}, {"Modality": ["CT"]}, {"Modality": ["PT"]}], 3),
        ({"Modality": "CT", "PatientID": "three"}, [{"Modality": ["CT"], "PatientID": ["three"]}], 1),
        ({"Modality": "MR"}, [{"Modality": ["MR"]}], 2),
        ({}, [{}], 3),
    ],
)
def test_each_modality_is_searched_for_separately(client, archive, search_filter, searches, listed):
    """Orthanc takes "MR,CT" for a list, other archives for a name."""
    archive.add("three", modality="CT")

    assert len(client(search_filter=search_filter).list_series()) == listed

    asked = [{k: v for k, v in query.items() if k not in ("limit", "offset")} for query in archive.searches()]
    assert [query for n, query in enumerate(asked) if query not in asked[:n]] == searches


@pytest.mark.parametrize("page", [1, 10, 23, 100, None])
@pytest.mark.parametrize("offset", ["kept", "ignored", "refused"])
def test_list_is_complete_if_the_archive_can_send_it_completely(client, archive, page, offset):
    for number in range(21):
        archive.add(f"patient {number}", shape=(2, 2, 2))
    archive.page, archive.offset = page, offset

    assert len(client().list_series()) == (23 if offset == "kept" else min(page or 23, 23))
    assert len(archive.searches()) < 30


def uid(*values):
    return {"0020000E": {"vr": "UI", "Value": list(values)}}


MALFORMED = [
    *({}, {"nonsense": 7}, {"0020000E": "1.2"}, {"0020000E": {"vr": "UI"}}),
    *(uid(), uid(""), uid(".."), uid("."), uid("../1.2"), uid("1.2/3"), uid("1..2"), uid("1." * 40), uid("1.2\n3")),
    *(uid("1.2", "1.3"), uid(7), uid(None)),
    *({"0020000E": {"vr": "SQ", "Value": [{}]}}, {"0020000E": {"vr": "XX", "Value": ["1.2"]}}),
]


@pytest.mark.parametrize("page", [None, 1])
def test_results_without_a_valid_uid_are_left_out(client, archive, page):
    archive.more, archive.page = MALFORMED, page

    listed = client().list_series()

    assert set(archive.series) <= set(listed)
    assert all(uid.replace(".", "").isdecimal() for uid in listed)


def test_page_of_invalid_results_does_not_hide_the_next(client, archive, monkeypatch):
    others = [archive.add(f"patient {number}", shape=(2, 2, 2)) for number in range(3)]
    valid = archive.found({})
    monkeypatch.setattr(
        archive, "found", lambda query: (MALFORMED[4:10] + valid)[int(query.get("offset", ["0"])[0]) :][:4]
    )

    assert set(others) <= set(client().list_series())


@pytest.mark.parametrize("count", ["many", "-1", None, 1.5, [1]])
def test_invalid_number_of_instances_is_ignored(client, archive, count):
    added = archive.add("three")
    archive._told, told = (lambda made: told(made) | {"00201209": {"vr": "LO", "Value": [count]}}), archive._told

    assert added in client().list_series()


@pytest.mark.parametrize("tag", ["0020000D", "00100020"], ids=["study", "patient"])
def test_uid_of_two_series_is_left_out(client, archive, tag, caplog):
    """Otherwise voxels, headers and clicks could be those of either."""
    ambiguous, other = archive.series
    archive.more = [archive._told(archive.series[ambiguous]) | {tag: {"vr": "LO", "Value": ["1.2.3"]}}]

    assert list(client().list_series()) == [other]
    assert f"{ambiguous} is in several studies or of several patients" in caplog.text


# Answers that are errors


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ((500, {}, b"Traceback: /opt/archive.py"), "answered 500; its log says more."),
        ((404, {}, b"not here"), "answered 404; its log says more."),
        ((401, {}, b""), "refuses the login; start the server with the right MONAI_LABEL_DICOMWEB_USERNAME"),
        ((403, {}, b""), "refuses the login; start the server with the right MONAI_LABEL_DICOMWEB_USERNAME"),
        ((200, {"content_type": "text/html"}, b"<html>Please log in</html>"), "does not answer as it should"),
        *(
            ((200, {"content_type": "application/dicom+json"}, body), "does not answer as it should")
            for body in (b"[{", b"null", b"7", b'["a"]', b"\xff\xfe")
        ),
        ((302, {"Location": "/dicom-web/series"}, b""), "does not answer as it should"),
        ((302, {"Location": "http://127.0.0.1:9/login"}, b""), "does not answer as it should"),
    ],
)
def test_answer_that_is_no_list_is_a_sentence_without_login_or_content(client, archive, answer, sentence):
    archive.answer = answer
    asked = client(login=LOGIN)

    found = error_of(asked.list_series)

    assert found.startswith(f"The DICOMweb archive {asked.url} ")
    assert sentence in found
    assert "very secret" not in found and "<html" not in found and "Traceback" not in found


@pytest.mark.parametrize("login", [None, ("reader", "wrong"), ("other", "very secret")])
def test_wrong_login_is_a_sentence_without_it_and_the_right_one_is_sent(client, archive, login):
    archive.login = LOGIN

    sentence = error_of(client(login=login).list_series)

    assert "refuses the login" in sentence
    assert "secret" not in sentence and "wrong" not in sentence
    assert len(client(login=LOGIN).list_series()) == 2


def test_login_does_not_follow_a_redirect_to_another_host(client, archive):
    thief, seen = FakeDICOMweb(), []
    with served(thief) as elsewhere:
        thief.login = ("any", "any")  # so that it looks at the header
        thief.before = lambda path: seen.append(path)
        archive.answer = (302, {"Location": elsewhere.replace("127.0.0.1", "localhost") + "/series"}, b"")
        error_of(client(login=("any", "any")).list_series)

    assert seen == ["/dicom-web/series"]


def test_certificate_that_is_not_trusted_is_named(client, archive, tmp_path):
    with served(archive, certificate=[self_signed_certificate(tmp_path / "certificate.pem")]) as address:
        sentence = error_of(client(address=address).list_series)

    assert sentence == (
        f"The DICOMweb archive {address} has a certificate that is not trusted; name its issuer's file in "
        "REQUESTS_CA_BUNDLE."
    )


def test_archive_on_this_machine_is_asked_without_a_proxy(client, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)

    assert len(client().list_series()) == 2


# Fetching


def fetch(client, folder):
    """Fetch the first series and return the pixels of its instances."""
    client.fetch(next(iter(client.list_series().values())), folder)
    return np.stack([dcmread(path).pixel_array for path in sorted(folder.iterdir())])


def pixels(archive):
    return np.stack([instance.pixel_array for instance in next(iter(archive.series.values()))])


@pytest.mark.parametrize("accepts", [{"*"}, {"1.2.840.10008.1.2.1"}, {"*", "1.2.840.10008.1.2.1"}])
def test_instances_are_fetched_as_they_are_stored_or_else_uncompressed(client, archive, tmp_path, accepts):
    archive.accepts = accepts

    np.testing.assert_array_equal(fetch(client(), tmp_path / "series"), pixels(archive))


def test_series_is_fetched_by_frame_if_the_user_asks_for_it(client, archive, tmp_path):
    found = fetch(client(fetch_by_frame=True), tmp_path / "series")

    np.testing.assert_array_equal(found, pixels(archive))
    assert len(archive.asked_for("/frames/1$")) == len(found)
    assert archive.fetches() == []


@pytest.mark.parametrize("cut_in", ["chunks", "length", "closing"])
@pytest.mark.parametrize("breaks_after", [0, 1, 7])
def test_archive_that_hangs_within_an_answer_did_not_answer_in_time(
    client, archive, monkeypatch, tmp_path, cut_in, breaks_after
):
    monkeypatch.setattr(archive_requests, "READ_TIMEOUT_S", 0.2)
    archive.cut_in, archive.breaks_after, archive.hang_s = cut_in, breaks_after, 1.0

    assert "did not answer in time" in error_of(fetch, client(), tmp_path / "series")


@pytest.mark.parametrize("body", [b"<html>log in</html>", b"", b"no parts"])
def test_fetch_that_is_answered_by_something_else_is_an_error(client, monkeypatch, tmp_path, body):
    monkeypatch.setattr(dicomweb.Handler, "_fetch", lambda handler, made: handler.send(200, body, "text/html"))

    assert "html" not in error_of(fetch, client(), tmp_path / "series")
