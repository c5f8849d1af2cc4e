"""What the annotation page is told and sent of a study: its grid is the server's, whatever the format."""

import gzip
import io
import re
import shutil
from concurrent.futures import ThreadPoolExecutor

import nibabel as nib
import numpy as np
import pytest
import requests
import SimpleITK as sitk
from PIL import Image

from lib.demo.dicom import upload
from lib.demo.local_server import LocalServer
from tests.physical import PLANES, SHAPE, l_shape, series
from tests.server.archive.archive_server import CLICKS
from tests.server.asking import Session, infer

IMAGES = {
    "oblique": ("oblique", ".nii.gz"),
    "left-handed": ("axial, slices downwards", ".nii.gz"),
    "anisotropic": ("sagittal", ".nii"),
    "nrrd": ("oblique, slices downwards", ".nrrd"),
    "coronal": ("coronal", ".nrrd"),
}


class Page(Session):
    """The requests of the annotation page to a server."""

    def study(self, image):
        answer = self.get(f"/studies/{image}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def volume(self, image):
        """Numbers as they are sent, and the affine by which NiiVue goes."""
        answer = self.get(self.study(image)["volume"]["url"])
        assert answer.status_code == 200, answer.text
        found = nib.Nifti1Image.from_bytes(gzip.decompress(answer.content))
        assert found.header["sform_code"] >= max(1, found.header["qform_code"])
        return np.asanyarray(found.dataobj), found.header.get_sform()

    def click(self, image, **params):
        """Click, and return the mask as a NIfTI image."""
        answer = infer(self, image, {"result_extension": ".nii.gz", "client_id": "anna", **params})
        assert answer.status_code == 200, answer.text
        return nib.Nifti1Image.from_bytes(gzip.decompress(answer.content))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("volumes") / "studies"
    folder.mkdir()
    for name, (plane, extension) in IMAGES.items():
        image = nib.Nifti1Image(l_shape(), PLANES[plane])
        image.set_sform(PLANES[plane], code=1)
        path = folder / f"{name}.nii.gz"
        nib.save(image, path)
        if extension != ".nii.gz":
            sitk.WriteImage(sitk.ReadImage(str(path)), str(folder / f"{name}{extension}"))
            path.unlink()
    return folder


@pytest.fixture(scope="module")
def server(folder):
    (folder / "bad.nii.gz").write_bytes(b"no image")
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6, 7), np.int16), np.eye(4)), folder / "with times.nii.gz")
    conf = {"labels": "lesion,cyst", "model_dir": str(folder.parent / "model")}
    with LocalServer(folder, conf, folder.parent / "server.log") as server:
        yield server


@pytest.fixture(scope="module")
def page(server):
    return Page(server.url)


@pytest.mark.parametrize("image", IMAGES)
def test_scan_has_the_voxels_and_the_place_of_its_file(page, image):
    array, affine = page.volume(image)

    assert np.array_equal(array, l_shape()) and array.dtype == np.int16
    assert np.allclose(affine, PLANES[IMAGES[image][0]], atol=1e-3)
    told = page.study(image)["geometry"]
    assert told["shape"] == list(SHAPE) and np.allclose(told["affine"], affine, atol=1e-3)
    assert np.allclose(told["spacing_mm"], nib.affines.voxel_sizes(affine), atol=1e-3)


@pytest.mark.parametrize("image", IMAGES)
def test_clicks_and_mask_lie_on_the_voxels_of_the_scan(page, image):
    scan, affine = page.volume(image)

    mask = page.click(image, lesion=CLICKS, background=[[20, 2, 2]])

    assert np.allclose(mask.affine, affine, atol=1e-3)
    marked = np.asanyarray(mask.dataobj) > 0
    assert marked.shape == scan.shape and 2 * (marked & (scan > 500)).sum() / (marked.sum() + (scan > 500).sum()) > 0.7
    told = page.study(image)["labels"]
    assert told["lesion"]["clicks"] == {"foreground_voxel": CLICKS, "background_voxel": [[20, 2, 2]]}
    assert (told["lesion"]["state"], told["lesion"]["annotator"], told["cyst"]["state"]) == ("clicked", "anna", "none")
    # Each end is the click that lies furthest towards it, in mm.
    ras_mm = nib.affines.apply_affine(affine, CLICKS)
    towards = {"left": -ras_mm[:, 0], "right": ras_mm[:, 0], "posterior": -ras_mm[:, 1], "anterior": ras_mm[:, 1]}
    towards |= {"inferior": -ras_mm[:, 2], "superior": ras_mm[:, 2]}
    assert told["lesion"]["extremes"].keys() == towards.keys()
    if "oblique" not in IMAGES[image][0]:
        assert all(told["lesion"]["extremes"][end] == CLICKS[int(mm.argmax())] for end, mm in towards.items())


def test_study_tells_of_its_final_mask(page):
    page.click("coronal", lesion=CLICKS)
    assert page.post("/annotations/coronal/accept", json={"client_id": "anna"}).ok

    study = page.study("coronal")

    final = study["final"]
    assert (final["annotator"], final["labels"], final["origin"]) == ("anna", ["lesion"], {"lesion": "accepted"})
    assert study["state"] == "clicked" and study["labels"]["lesion"]["state"] == "final"
    assert page.get(final["url"]).status_code == 200
    page.click("coronal", absent=["cyst"])
    study = page.study("coronal")
    assert study["state"] == "final" and study["labels"]["cyst"]["state"] == "absent"
    assert study["labels"]["cyst"]["clicks"] is None and study["labels"]["cyst"]["annotator"] == "anna"
    assert infer(page, "coronal", {"use_stored_clicks": True, "client_id": "anna"}).status_code == 200


def test_scan_is_not_sent_again(page):
    first = page.get("/studies/nrrd/volume")
    assert first.headers["cache-control"] == "private, no-cache"
    assert first.headers["content-type"] == "application/octet-stream"
    assert int(first.headers["content-length"]) == len(first.content) == page.study("nrrd")["volume"]["bytes"]

    for known in (first.headers["etag"], f'"other", W/{first.headers["etag"]}'):
        again = page.get("/studies/nrrd/volume", headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    assert page.get("/studies/nrrd/volume", headers={"If-None-Match": '"other"'}).status_code == 200


def test_replaced_file_is_sent_anew(page, folder):
    shutil.copyfile(folder / "oblique.nii.gz", folder / "changing.nii.gz")
    before = page.get("/studies/changing/volume")
    shutil.copyfile(folder / "left-handed.nii.gz", folder / "changing.nii.gz")

    after = page.get("/studies/changing/volume", headers={"If-None-Match": before.headers["etag"]})

    assert after.status_code == 200
    assert after.content == (folder / "left-handed.nii.gz").read_bytes()
    assert page.study("changing")["volume"]["url"].endswith(after.headers["etag"].strip('"'))
    (folder / "changing.nii.gz").unlink()


def test_many_who_ask_at_once_get_the_same(page, folder):
    shutil.copyfile(folder / "nrrd.nrrd", folder / "new.nrrd")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: page.get("/studies/new/volume"), range(8)))

    assert {answer.status_code for answer in answers} == {200} and len({answer.content for answer in answers}) == 1


def test_part_of_a_scan_can_be_asked_for(page):
    whole = page.get("/studies/oblique/volume").content

    answer = page.get("/studies/oblique/volume", headers={"Range": "bytes=10-19"})

    assert (answer.status_code, answer.content) == (206, whole[10:20])


@pytest.mark.parametrize("image", IMAGES)
def test_thumbnail_is_a_small_picture(page, image):
    answer = page.get(f"/studies/{image}/thumbnail")

    picture = Image.open(io.BytesIO(answer.content))
    assert answer.headers["content-type"] == "image/png"
    assert picture.format == "PNG" and max(picture.size) == 96
    again = page.get(f"/studies/{image}/thumbnail", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304


@pytest.mark.parametrize("part", ["", "/volume", "/thumbnail"])
@pytest.mark.parametrize(
    ("image", "status", "sentence"),
    [
        ("none", 404, "There is no image 'none'"),
        ("bad", 422, "The image bad.nii.gz cannot be read"),
        ("with%20times", 422, "4 x 5 x 6 x 7; expected a 3D volume"),
        ("..", 404, ""),
        ("%2e%2e", 404, ""),
        ("..%2fserver.log", 404, ""),
        ("%2Fetc%2Fpasswd", 404, ""),
        ("oblique.nii.gz", 404, "There is no image"),
        ("x" * 3000, 404, "There is no image"),
        ("%F0%9F%A6%84", 404, "There is no image"),
    ],
)
def test_what_is_no_study_is_refused_with_a_sentence(page, part, image, status, sentence):
    request = requests.Request("GET", page.url).prepare()
    request.url = f"{page.url}/studies/{image}{part}"  # as it is, with its dots
    with requests.Session() as session:
        answer = session.send(request, timeout=60)

    assert answer.status_code == status and sentence in answer.json()["detail"]
    assert b"root:" not in answer.content


def test_no_answer_names_a_folder_of_the_server(page, folder):
    for path in ("/studies", "/studies/nrrd", "/studies/bad", "/me", "/training", "/models", "/studies/none"):
        assert str(folder.parent) not in page.get(path).text, path


def test_list_has_names_states_and_problems_and_is_not_sent_again(page):
    answer = page.get("/studies")
    project, listed = answer.json()["project"], {entry["id"]: entry for entry in answer.json()["studies"]}

    assert project["title"] == "studies" and project["labels"] == ["lesion", "cyst"]
    assert (project["review_only"], project["readers"], project["model"]) == (False, 1, None)
    assert project["models"] == {"clicks": "extreme_points", "automatic": None}
    assert project["strategies"].keys() == {"first", "random", "worst proposal"}
    assert project["default_strategy"] == "first"
    total = project["counts"].pop("total")
    assert total == len(listed) == sum(project["counts"].values())
    assert listed["nrrd"]["name"] == "nrrd.nrrd" and listed["bad"]["state"] == "unreadable"
    assert "expected a 3D volume" in listed["with times"]["problem"]

    again = page.get("/studies", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    page.click("anisotropic", lesion=CLICKS)
    assert page.get("/studies", headers={"If-None-Match": answer.headers["etag"]}).status_code == 200


def test_without_a_login_everybody_may_do_everything_and_has_no_name(page):
    assert page.get("/me").json() == {
        "name": None,
        "role": "admin",
        "asks_login": False,
        "may": {"store": True, "train": True, "review": False},
    }


@pytest.mark.parametrize("plane", ["oblique", "sagittal"])
def test_series_of_an_archive_is_listed_by_name_fetched_when_opened_and_sent_where_it_lies(archive, plane):
    uid = upload(archive.orthanc.dicomweb_url, series(plane, "shuffled"))
    with archive.server(f"server {plane}") as server:
        page = Page(server.url)
        entry = next(entry for entry in page.get("/studies").json()["studies"] if entry["id"] == uid)
        assert entry["state"] == "untouched" and uid not in entry["name"]
        assert re.search(r"\bMR\b", entry["detail"])
        not_yet = page.get(f"/studies/{uid}/thumbnail")
        assert not_yet.status_code == 404 and "open it first" in not_yet.json()["detail"]
        assert not archive.volume(uid).exists()

        array, affine = page.volume(uid)

        fetched = nib.load(archive.volume(uid))
        assert np.array_equal(array, np.asanyarray(fetched.dataobj)) and np.allclose(affine, fetched.affine, atol=1e-3)
        mask = page.click(uid, lesion=CLICKS)
        assert np.allclose(mask.affine, affine, atol=1e-3) and np.asanyarray(mask.dataobj).any()
        assert page.get(f"/studies/{uid}/thumbnail").headers["content-type"] == "image/png"
        assert page.study(uid)["labels"]["lesion"]["clicks"]["foreground_voxel"] == CLICKS
