"""What the exporter makes of a server's answers, the wrong ones among them."""

import socket

import pytest
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from lib.demo.local_server import free_port
from lib.exchange import annotation_server
from lib.exchange.annotation_server import AnnotationServer, ListedImage, ServerError
from lib.exchange.segment_origin import ModelFile, SegmentOrigin, origins_of_clicks, origins_of_final
from lib.geometry.volume import VolumeError
from tests.exchange.answering import INFO, answering, listed, self_signed_certificate


def ask(answers, question):
    with answering(answers) as url:
        return question(AnnotationServer(url))


def test_labels_have_the_indices_of_the_click_model():
    assert ask({"/info/": INFO}, AnnotationServer.label_indices) == {"lesion": 1, "cyst": 2}


def test_images_with_clicks_or_a_final_mask_are_listed_with_the_labels_that_these_are_about():
    objects = {
        "a": listed(extreme_points=["lesion"]),
        "b": listed(final=["lesion", "cyst"]),
        "c": listed(original=["lesion", "cyst"]),
        "d": listed(),
        "e": listed(final=["cyst"], extreme_points=["lesion"], original=["lesion"]),
        "f": listed(final=[]),
    }

    assert ask({"/datastore/": {"objects": objects}}, AnnotationServer.images) == {
        "a": ListedImage(("lesion",), None, ("cyst",)),
        "b": ListedImage((), ("lesion", "cyst"), ()),
        "e": ListedImage(("lesion",), ("cyst",), ()),
        "f": ListedImage((), (), ("lesion", "cyst")),
    }


def test_image_that_is_a_file_has_no_series():
    assert ask({"/datastore/image/info": {"name": "a.nii.gz"}}, lambda server: server.series_headers("a")) == []


@pytest.mark.parametrize(
    ("answers", "sentence"),
    [
        ({}, "The server answered 404 Not Found; its log says more"),
        ({"/info/": {"models": {"deepedit": {}}}}, "runs another app; expected one with the model 'extreme_points'"),
        ({"/info/": {}}, "runs another app"),
        ({"/info/": (200, b"<html>", "")}, "is not a MONAI Label server"),
        ({"/info/": (401, b"{}", "")}, "The server asks for a login"),
        ({"/info/": (500, b"Internal Server Error", "")}, "The server answered 500"),
        ({"/info/": (422, b'{"detail": "The image is gone."}', "")}, "The image is gone."),
    ],
)
def test_answers_that_are_no_help_are_a_sentence(answers, sentence):
    with pytest.raises(ServerError, match=sentence):
        ask(answers, AnnotationServer.label_indices)


def test_model_of_a_mask_and_readers_are_told_with_it():
    """As the server's headers name the model, and its list of annotations the readers."""
    origins = origins_of_clicks({"lesion": {"annotator": "anna"}, "cyst": {"annotator": "unknown"}}, ModelFile(3, "ab"))

    assert origins == {
        "lesion": SegmentOrigin("SEMIAUTOMATIC", "anna", ModelFile(3, "ab")),
        "cyst": SegmentOrigin("SEMIAUTOMATIC", "", ModelFile(3, "ab")),
    }


def test_labels_of_a_final_mask_were_drawn_or_accepted():
    accepted = {"lesion": {"annotator": "bob", "model_version": 2, "model_sha256": "cd"}, "vessel": {}}
    info = {"labels": {"lesion": 1, "cyst": 2, "vessel": 3}, "annotator": "anna", "accepted": accepted}

    assert origins_of_final(info) == {
        "lesion": SegmentOrigin("SEMIAUTOMATIC", "bob", ModelFile(2, "cd")),
        "cyst": SegmentOrigin("MANUAL", "anna"),
        "vessel": SegmentOrigin("SEMIAUTOMATIC"),
    }


def test_codes_of_the_labels_are_those_that_the_server_was_started_with():
    assert ask({"/info/": {**INFO, "codes": {"lesion": "SCT:52988006:Lesion"}}}, AnnotationServer.codes) == {
        "lesion": Code("52988006", "SCT", "Lesion")
    }
    assert ask({"/info/": INFO}, AnnotationServer.codes) == {}


@pytest.mark.parametrize(
    ("name", "error", "sentence"),
    [
        *((name, ServerError, "The server sent no volume") for name in ("", "mask.exe", "../../mask")),
        ("a.nii.gz", VolumeError, "cannot be read"),
    ],
)
def test_file_that_is_no_volume_is_a_sentence(name, error, sentence):
    with pytest.raises(error, match=sentence):
        ask({"/datastore/label": (200, b"x", name)}, lambda server: server.final_mask("a"))


SERIES = {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.3"}
METADATA = "/proxy/dicom/wado/studies/1.2/series/1.2.3/metadata"
STORE = "/proxy/dicom/stow/studies"


def headers(metadata):
    return ask({"/datastore/image/info": SERIES, METADATA: metadata}, lambda server: server.series_headers("1.2.3"))


@pytest.mark.parametrize(
    ("metadata", "sentence"),
    [
        ((404, b"{}", ""), ".The server answered 404 Not Found"),
        ((502, b'{"detail": "The certificate has expired."}', ""), ".The certificate has expired.\\."),
        ((503, b"busy", ""), ".The server answered 503 Service Unavailable"),
        ((401, b"", ""), "The server asks for a login"),
        ((200, b"<html>", ""), "its answer is not JSON"),
        (["no", "headers"], "its answer is not one of DICOMweb"),
        ([1, None], "its answer is not one of DICOMweb"),
    ],
)
def test_archive_that_fails_is_a_sentence(metadata, sentence):
    with pytest.raises(
        ServerError, match=f"The archive does not give the headers of the series; check that it runs .*{sentence}"
    ):
        headers(metadata)


@pytest.mark.parametrize(
    "element",
    [
        {"00200011": {"vr": "IS", "Value": ["one"]}},
        {"00180050": {"vr": "DS", "Value": ["thin"]}},
        {"00100010": {"vr": "PN", "Value": [{"Alphabetic": 5}]}},
        {"00100010": {"vr": "PN", "Value": ["Smith^Ann"]}},
        {"00101010": {"vr": "AS", "Value": [{}]}},
        {"00280010": {"vr": "US", "Value": ["many"]}},
        {"00081115": {"vr": "SQ", "Value": ["no item"]}},
        {"00081115": {"vr": "SQ", "Value": [{"00200011": {"vr": "IS", "Value": ["one"]}}]}},
        {"7FE00010": {"vr": "OW", "BulkDataURI": "http://127.0.0.1/pixels"}},
        {"00100020": {}},
        {"00100020": None},
        {"no tag": {"vr": "LO", "Value": ["x"]}},
    ],
    ids=str,
)
def test_element_that_cannot_be_read_leaves_the_rest_of_a_header(element, recwarn):
    (header,) = headers([{"00080060": {"vr": "CS", "Value": ["MR"]}, **element}])

    assert header.Modality == "MR"
    assert not recwarn.list


def test_archive_that_takes_nothing_is_a_sentence():
    instance = Dataset()
    instance.is_little_endian, instance.is_implicit_VR = True, True

    with pytest.raises(ServerError, match="The archive does not take the segmentation; .*The disk is full"):
        ask({STORE: (507, b'{"detail": "The disk is full."}', "")}, lambda server: server.store_in_archive([instance]))


@pytest.mark.parametrize(
    "answers",
    [
        {"/datastore/": {}},
        {"/datastore/": {"objects": ["a"]}},
        {"/datastore/": {"objects": {"a": {}}}},
        {"/datastore/": {"objects": {"a": {"labels": {"final": {}}}}}},
        {"/datastore/": {"objects": {"a": {"labels": {"final": {"info": {"labels": ["lesion"]}}}}}}},
        {"/datastore/": []},
    ],
    ids=str,
)
def test_list_of_another_program_is_a_sentence(answers):
    with pytest.raises(ServerError, match="is not a MONAI Label server"):
        ask(answers, AnnotationServer.images)


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://127.0.0.1", "http://", "studies/"])
def test_address_that_is_none_is_a_sentence(url):
    with pytest.raises(ServerError, match="expected such as http://127.0.0.1:8000"):
        AnnotationServer(url)


def test_no_server_is_a_sentence_without_the_password():
    with pytest.raises(ServerError, match="There is no answer from .*; start the server, or give its address") as error:
        AnnotationServer(f"http://ann:secret@127.0.0.1:{free_port()}").label_indices()

    assert "secret" not in str(error.value) and "ann" not in str(error.value).replace("annot", "")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_this_machine_is_reached_without_a_proxy(host, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    answers = {"/info/": INFO, "/datastore/image/info": SERIES, METADATA: [{}]}
    try:
        with answering(answers, "127.0.0.1" if host == "localhost" else host) as url:
            server = AnnotationServer(url.replace("127.0.0.1", "localhost") if host == "localhost" else url)

            assert server.label_indices() == {"lesion": 1, "cyst": 2}
            assert len(server.series_headers("1.2.3")) == 1
    except OSError as error:
        pytest.skip(f"this machine has no address {host} ({error})")


def test_proxy_that_does_not_answer_is_named(monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)

    with pytest.raises(ServerError, match="The proxy on the way to http://a.invalid:8000 .* NO_PROXY"):
        AnnotationServer("http://a.invalid:8000").label_indices()


def test_certificate_that_is_not_trusted_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    certificate = self_signed_certificate(tmp_path / "certificate.pem")
    with answering({"/info/": INFO}, certificate=certificate) as url:
        with pytest.raises(ServerError, match="The certificate of https://.* set REQUESTS_CA_BUNDLE"):
            AnnotationServer(url).label_indices()

        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        assert AnnotationServer(url).label_indices() == {"lesion": 1, "cyst": 2}


def test_server_that_never_answers_is_named(monkeypatch):
    monkeypatch.setattr(annotation_server, "ANSWER_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server = AnnotationServer(f"http://127.0.0.1:{silent.getsockname()[1]}")

        with pytest.raises(ServerError, match="did not answer within 0.2 s"):
            server.label_indices()
        with pytest.raises(ServerError, match="did not answer within 0.2 s"):
            server.store_in_archive([])
