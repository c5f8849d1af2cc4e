"""What viewers ask of an archive is known by its path; no other path is passed on."""

import pytest

from lib.server.archive.archive_paths import is_store, passed_query, read_service

SERIES = "studies/1.2.3/series/1.2.4"
INSTANCE = f"{SERIES}/instances/1.2.5"


@pytest.mark.parametrize(
    ("operation", "path", "service"),
    [
        ("qido", "studies", "qido"),
        ("qido", "series", "qido"),
        ("qido", "instances", "qido"),
        ("qido", "studies/1.2.3/series", "qido"),
        ("qido", "studies/1.2.3/instances", "qido"),
        ("qido", f"{SERIES}/instances", "qido"),
        ("qido", f"{SERIES}/metadata", "wado"),
        ("qido", "studies/1.2.3/metadata", "wado"),
        ("wado", "studies/1.2.3", "wado"),
        ("wado", SERIES, "wado"),
        ("wado", INSTANCE, "wado"),
        ("wado", f"{SERIES}/metadata", "wado"),
        ("wado", f"{INSTANCE}/metadata", "wado"),
        ("wado", f"{INSTANCE}/frames/1", "wado"),
        ("wado", f"{INSTANCE}/frames/1,2,30", "wado"),
        ("wado", f"{INSTANCE}/frames/1/rendered", "wado"),
        ("wado", f"{INSTANCE}/rendered", "wado"),
        ("wado", f"{SERIES}/thumbnail", "wado"),
        ("wado", f"{INSTANCE}/bulk/00420011", "wado"),
        ("wado", f"{INSTANCE}/bulk/00660002/1/00660016", "wado"),
        ("wado", "studies/1.2.3/bulkdata/some-id_1.raw", "wado"),
        ("wado", f"studies/{'1' * 64}", "wado"),
    ],
)
def test_what_viewers_read_has_a_service(operation, path, service):
    assert read_service(operation, path) == service


CLOSED = [
    *("", "/", "instances/1.2.5/file", "tools/shutdown", "../tools/bulk-delete", "studies/../../tools/shutdown"),
    *("studies/..", "studies/.", "studies/...", "studies/1..2", "studies/1.2.3/../../tools"),
    *("studies/1.2.3/series/..", "studies/..%2ftools", "studies/1.2.3%2f..%2f..", "studies\\..\\tools"),
    *("studies/1.2.3\\..\\..", "studies/1.2.3?x=y", "studies/1.2.3#x", "studies/1.2.3;x=y", "studies/1.2.3\n"),
    *("studies/1.2.3\0", "studies//series", "/studies", "studies/", "//evil.example/studies"),
    *("http://evil.example/studies", "@evil.example/studies", "studies/١.٢", "studies/1.2.3/metadata/../.."),
    *(f"studies/{'1' * 65}", f"{SERIES}/reject/113001^DCM", f"{INSTANCE}/frames/../../..", f"{INSTANCE}/frames/"),
    *(f"{INSTANCE}/frames/-1", f"{INSTANCE}/bulk/..", f"{INSTANCE}/bulk/../../../../../tools"),
    *(f"{INSTANCE}/bulk/.hidden", f"{INSTANCE}/file", "studies/1.2.3/archive", f"{INSTANCE}/bulk" + "/1" * 2000),
    *("x/metadata", "../../metadata"),
]


@pytest.mark.parametrize("path", CLOSED)
@pytest.mark.parametrize("operation", ["qido", "wado"])
def test_other_paths_have_none(operation, path):
    assert read_service(operation, path) is None


@pytest.mark.parametrize("operation", ["", "stow", "tools", "QIDO", "../tools"])
def test_other_services_are_not_read(operation):
    assert read_service(operation, "studies") is None


@pytest.mark.parametrize("path", ["studies", "studies/1.2.3"])
def test_instances_are_stored_below_studies(path):
    assert is_store(path)


@pytest.mark.parametrize("path", [*CLOSED, SERIES, "instances", "studies/1.2.3/series"])
def test_instances_are_stored_nowhere_else(path):
    assert not is_store(path)


@pytest.mark.parametrize(
    "query",
    ["", "limit=100&offset=0", "StudyInstanceUID=1.2.3", "00100020=a%20b&includefield=all", "Modality=MR,CT", "a.b=1"],
)
def test_search_is_passed_on_as_it_is(query):
    assert passed_query("qido", "studies", query) == query


@pytest.mark.parametrize("query", ["limit=-1", "offset=x", "limit=99999999999", "a/b=1", "=1", "a", "a=1&" * 200])
def test_search_that_is_none_is_refused(query):
    assert passed_query("qido", "studies", query) is None


@pytest.mark.parametrize("query", ["", "viewport=99999,99999", "quality=1&window=0,0,linear", "accept=image/png"])
def test_retrieval_has_no_query(query):
    """A viewport lets an archive take any amount of memory."""
    assert passed_query("wado", "studies/1.2.3/rendered", query) == ""
