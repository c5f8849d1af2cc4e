"""What the exporter makes of a server's answers, the wrong ones among them."""

import json

import pytest

from lib.annotations.volume import VolumeError
from lib.demo.local_server import free_port
from lib.exchange.annotation_server import AnnotationServer, ServerError
from tests.exchange.answering import INFO, answering, datastore


def ask(answers, question):
    with answering(answers) as url:
        return question(AnnotationServer(url))


def test_labels_have_the_indices_of_the_click_model():
    assert ask({"/info/": INFO}, AnnotationServer.label_indices) == {"lesion": 1, "cyst": 2}


def test_annotated_means_clicks_or_a_final_mask():
    listed = datastore(a=["extreme_points"], b=["final"], c=["original"], d=[], e=["final", "extreme_points"])

    assert ask({"/datastore/": listed}, AnnotationServer.annotated_images) == {"a": False, "b": True, "e": True}


def test_image_that_is_a_file_has_no_series():
    assert ask({"/datastore/image/info": {"name": "a.nii.gz"}}, lambda server: server.series_headers("a")) == []


@pytest.mark.parametrize(
    ("answers", "sentence"),
    [
        ({}, "The server answered 404 Not Found; its log says more"),
        ({"/info/": {"models": {"deepedit": {}}}}, "runs another app; expected one with the model 'extreme_points'"),
        ({"/info/": {}}, "runs another app"),
        ({"/info/": (200, b"<html>", "")}, "is no MONAI Label server"),
        ({"/info/": (401, b"{}", "")}, "The server asks for a login"),
        ({"/info/": (500, b"Internal Server Error", "")}, "The server answered 500"),
        ({"/info/": (422, b'{"detail": "The image is gone."}', "")}, "The image is gone."),
    ],
)
def test_answers_that_are_no_help_are_a_sentence(answers, sentence):
    with pytest.raises(ServerError, match=sentence):
        ask(answers, AnnotationServer.label_indices)


def test_no_server_is_a_sentence():
    with pytest.raises(ServerError, match="There is no answer from .*; start the server, or give its address"):
        AnnotationServer(f"http://127.0.0.1:{free_port()}").label_indices()


@pytest.mark.parametrize("name", ["", "mask.exe", "../../mask"])
def test_file_that_is_no_volume_is_a_sentence(name):
    with pytest.raises(ServerError, match="The server sent no volume"):
        ask({"/datastore/label": (200, b"x", name)}, lambda server: server.final_mask("a"))


def test_damaged_volume_is_a_sentence():
    with pytest.raises(VolumeError, match="cannot be read"):
        ask({"/datastore/label": (200, b"x", "a.nii.gz")}, lambda server: server.final_mask("a"))


def test_archive_that_fails_is_a_sentence():
    answers = {
        "/datastore/image/info": {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.3"},
        "/proxy/dicom/wado/studies/1.2/series/1.2.3/metadata": (404, json.dumps({}).encode(), ""),
    }

    with pytest.raises(ServerError, match="The archive does not give the headers of the series; see that it runs"):
        ask(answers, lambda server: server.series_headers("1.2.3"))
