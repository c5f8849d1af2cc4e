"""Accepting over HTTP, against a real server process: what the annotator saw is final."""

import nibabel as nib
import numpy as np
import pytest
import requests

from lib.annotations.given_masks import GivenMaskStore
from lib.demo.local_server import LocalServer
from lib.exchange.annotation_server import AnnotationServer
from lib.geometry.volume import load_volume
from lib.server.project import Project
from tests.server.asking import datastore, infer

SHAPE = (32, 28, 24)
CENTRES = {"lesion": (11, 14, 12), "cyst": (19, 14, 12)}
SCANS = [f"scan_{n}" for n in range(5)]


def clicks(label, radius=6):
    """Of a ball that overlaps with that of the other label."""
    centre = np.array(CENTRES[label])
    return [(centre + radius * sign * axis).tolist() for axis in np.eye(3, dtype=int) for sign in (-1, 1)]


def write_scan(path):
    grid = np.ogrid[tuple(map(slice, SHAPE))]
    image = np.random.default_rng(0).normal(0, 0.05, SHAPE)
    for centre in CENTRES.values():
        image[sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True)) <= 36] += 1
    nib.save(nib.Nifti1Image(image.astype(np.float32), np.diag([0.8, 0.8, 1.5, 1])), path)


class Site:
    """A server, and the requests of its annotators."""

    def __init__(self, root):
        self.root, self.studies, self.taken = root, root / "studies", 0
        self.studies.mkdir()
        for name in SCANS:
            write_scan(self.studies / f"{name}.nii.gz")
        conf = {"labels": "lesion,cyst", "model_dir": str(root / "model")}
        self.server = LocalServer(self.studies, conf, root / "server.log")
        self.server.wait_until_ready()

    def ask(self, method, path, **request):
        return requests.request(method, f"{self.server.url}{path}", timeout=60, **request)

    def mask_in(self, answer):
        assert answer.status_code == 200, answer.text
        path = self.root / "mask.nii.gz"
        path.write_bytes(answer.content)
        return load_volume(path, sentinels=False).array

    def click(self, image, who="reader", **params):
        """Click, and return the mask that the annotator sees."""
        return self.mask_in(infer(self.server, image, {"client_id": who, "result_extension": ".nii.gz", **params}))

    def accept(self, image, who="reader", **body):
        return self.ask("POST", f"/annotations/{image}/accept", json={"client_id": who, **body})

    def take_back(self, image, who="reader"):
        return self.ask("DELETE", f"/annotations/{image}/accept", params={"client_id": who})

    def final(self, image):
        return self.mask_in(self.ask("GET", "/datastore/label", params={"label": image, "tag": "final"}))

    def tags(self, image):
        return datastore(self.server, output="all")["objects"][image]["labels"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    site = Site(tmp_path_factory.mktemp("accepting"))
    yield site
    site.server.stop()


@pytest.fixture
def image(site):
    """Image that no other test touches."""
    site.taken += 1
    return SCANS[site.taken - 1]


def test_what_two_overlapping_labels_looked_like_is_final(site, image):
    alone = site.click(image, lesion=clicks("lesion"))
    shown = site.click(image, lesion=clicks("lesion"), cyst=clicks("cyst", 8))
    assert ((alone == 1) & (shown == 2)).any(), "the labels do not overlap"

    answer = site.accept(image)

    assert answer.status_code == 200
    assert set(answer.json()["labels"]) == {"lesion", "cyst"}
    np.testing.assert_array_equal(site.final(image), shown)
    assert site.tags(image)["final"]["info"]["labels"] == ["cyst", "lesion"]


def test_acceptance_is_of_the_last_clicks_and_says_how_it_came_about(site, image):
    site.click(image, lesion=clicks("lesion"))
    shown = site.click(image, lesion=[*clicks("lesion"), list(CENTRES["lesion"])], background=[[1, 1, 1]])

    accepted = site.accept(image, labels=["lesion"]).json()["labels"]["lesion"]

    np.testing.assert_array_equal(site.final(image), shown)
    assert (accepted["origin"], accepted["clicks"], accepted["model_version"]) == ("corrected", 8, None)
    assert 0 < accepted["seconds"] < 60
    info = site.ask("GET", "/datastore/label/info", params={"label": image, "tag": "final"}).json()
    assert (info["annotator"], info["accepted"]) == ("reader", {"lesion": accepted})


def test_another_annotator_accepts_what_they_have_seen(site, image):
    shown = site.click(image, lesion=clicks("lesion"))
    refusal = site.accept(image, "other")
    assert refusal.status_code == 409
    assert "no mask of the stored clicks, which are by 'reader', was given to 'other'" in refusal.json()["detail"]
    assert "final" not in site.tags(image)

    site.click(image, "other", use_stored_clicks=True)

    assert site.accept(image, "other").status_code == 200
    np.testing.assert_array_equal(site.final(image), shown)
    assert site.take_back(image).status_code == 409, "and no other takes it back"
    assert site.take_back(image, "other").json() == {"image": image, "final_mask": False}
    assert "final" not in site.tags(image)


def test_export_does_not_change_what_an_annotator_was_shown(site, image):
    site.click(image, who=None, lesion=clicks("lesion"))
    kept = GivenMaskStore(Project(site.studies).given_masks)
    before = {path: path.read_bytes() for path in kept.files(image)}

    AnnotationServer(site.server.url).click_mask(image)

    assert {path: path.read_bytes() for path in kept.files(image) if path in before} == before
    assert site.accept(image, None).status_code == 200


UNCLICKED = SCANS[-1]


@pytest.mark.parametrize(
    ("path", "body", "status", "sentence"),
    [
        ("scan_99", "{}", 404, "There is no image 'scan_99'"),
        (UNCLICKED, "{}", 404, "There are no clicks on lesion, cyst"),
        (UNCLICKED, '{"labels": "lesion"}', 422, "expected a list of labels"),
        (UNCLICKED, "{", 422, "not valid JSON"),
        (UNCLICKED, "[]", 422, "expected a JSON object"),
        (UNCLICKED, '{"client_id": NaN}', 422, "not valid JSON"),
        ("..", "{}", 404, ""),
        ("..%2F..%2Fetc%2Fpasswd", "{}", 404, ""),
        ("%2e%2e", "{}", 404, ""),
        ("x" * 5000, "{}", 404, ""),
        (".inextremis", "{}", 404, ""),
    ],
)
def test_bad_requests_are_refused_with_a_sentence(site, path, body, status, sentence):
    answer = site.ask("POST", f"/annotations/{path}/accept", data=body)

    assert answer.status_code == status
    assert sentence in answer.json()["detail"]


@pytest.mark.parametrize("path", ["scan_99", UNCLICKED, "..%2F..%2Fetc", "%2e%2e"])
def test_nothing_to_take_back_is_not_found(site, path):
    assert site.take_back(path).status_code == 404


def test_no_request_left_the_folder_of_the_studies(site):
    folders = {path.name for path in site.root.iterdir()}

    assert folders <= {"studies", "model", "server.log", "mask.nii.gz"}


def test_both_requests_are_described_and_need_an_annotator(site):
    described = site.ask("GET", "/openapi.json").json()["paths"]["/annotations/{image}/accept"]

    assert "final mask" in described["post"]["description"]
    assert described["post"]["requestBody"]
    assert "undo the annotator's latest acceptance" in described["delete"]["description"].lower()
