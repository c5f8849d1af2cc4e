"""People who read studies on a test's server: they click, accept, submit, and review."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from lib.demo.local_server import LocalServer
from lib.server.login.user import Role
from lib.server.studies.open_studies import open_studies
from lib.trainers.annotated_scans import annotated_scans
from lib.training.loop import TrainingError
from tests.exchange.studies import CLICKS, GEOMETRIES
from tests.physical import l_shape
from tests.server.login.people import HASH, Client, token_of

OTHER_CLICKS = [[8, 6, 4], [4, 6, 4], [5, 12, 5], [5, 5, 6], [5, 10, 6], [7, 6, 3]]
"""Clicks on a part of the structure."""

AFFINES = dict(GEOMETRIES)
"""Of the images of these tests, which add their own."""

PEOPLE = {
    "uma": Role.USER,
    "anna": Role.ANNOTATOR,
    "bert": Role.ANNOTATOR,
    "carl": Role.ANNOTATOR,
    "rené": Role.REVIEWER,
    "rita": Role.REVIEWER,
    "ada": Role.ADMIN,
}


def write_people(path, people=None):
    """Write a file of users, and return its path."""
    lines = [f"{name}:{role}:{HASH}\n" for name, role in (people or PEOPLE).items()]
    path.write_text("".join(lines), encoding="utf-8")
    path.chmod(0o600)
    return path


def settings(root, **more):
    """Return the settings of a server with two readers per study."""
    users = root / "users"
    if not users.exists():
        write_people(users)
    model = str(root / "model")
    return {"users": str(users), "readers": "2", "labels": "lesion", "model_dir": model, **more}


@dataclass
class Site:
    """A server, and the folders of its studies."""

    server: LocalServer
    studies: Path

    def person(self, name):
        return Person(self.server.url, name)


class Person(Client):
    """User who is logged in."""

    def __init__(self, url, name):
        super().__init__(url, token_of(url, name))
        self.name = name

    def click(self, image, clicks=CLICKS, **params):
        return self.infer(image, {"lesion": clicks, "result_extension": ".nii.gz", **params}, output="json")

    def repeat(self, image):
        """Request the mask of the stored clicks."""
        return self.infer(image, {"use_stored_clicks": True}, output="json")

    def accept(self, image):
        return self.post(f"/annotations/{image}/accept", json={})

    def take_back(self, image):
        return self.delete(f"/annotations/{image}/accept")

    def submit(self, image, mask, tag="final", affine_ras=None):
        """Submit a mask (X, Y, Z) of an image."""
        file = nifti(mask, AFFINES[image] if affine_ras is None else affine_ras)
        return self.put("/datastore/label", params={"image": image, "tag": tag}, files={"label": ("mask.nii", file)})

    def final(self, image):
        """Return the final mask (X, Y, Z) that this person sees; None without one."""
        answer = self.get("/datastore/label", params={"label": image, "tag": "final"})
        return None if answer.status_code == 404 else array_of(answer)

    def listed(self, image):
        """Return the entry of a study in the reviewer's list; None if it is not listed."""
        answer = self.get("/readings/")
        assert answer.status_code == 200, answer.text
        return next((entry for entry in answer.json() if entry["id"] == image), None)

    def decide(self, image, choice, version=None):
        version = version or self.listed(image)["version"]
        return self.post(f"/readings/{image}/decision", json={"choice": choice, "version": version})

    def take_decision_back(self, image):
        return self.delete(f"/readings/{image}/decision")

    def next(self, strategy="first"):
        answer = self.post(f"/activelearning/{strategy}", json={})
        assert answer.status_code == 200, answer.text
        return answer.json().get("id")

    def completed(self):
        return self.get("/datastore/").json()["completed"]


def nifti(mask, affine_ras):
    return nib.Nifti1Image(mask.astype(np.uint8), affine_ras).to_bytes()


def array_of(answer):
    """Return the voxels (X, Y, Z) of a mask in an answer."""
    assert answer.status_code == 200, answer.text
    content = answer.content
    content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    return np.asarray(nib.Nifti1Image.from_bytes(content).dataobj)


def shape_mask(grow=0):
    """Make a block (X, Y, Z) bool in the images, larger by so many voxels towards the end of the first axis."""
    mask = np.zeros(l_shape().shape, bool)
    mask[5 : 12 + grow, 5:12, 4:9] = True
    return mask


def read(person, image, mask):
    answer = person.submit(image, mask)
    assert answer.status_code == 200, answer.text


def read_by_two(people, image, *, grow=2):
    read(people["anna"], image, shape_mask())
    read(people["bert"], image, shape_mask(grow))


def learnt_from(site):
    """Return the input of a training by image: annotators of clicks, and number of voxels of the final mask."""
    studies = open_studies(str(site.studies), ("lesion",), None)
    try:
        scans = annotated_scans(studies, ("lesion",))
    except TrainingError:
        return {}
    return {
        scan.image_id: (
            [a.annotator for a in scan.annotations],
            None if scan.mask_path is None else int(studies.masks().load(scan.image_id).array.sum()),
        )
        for scan in scans
    }


def sentence(answer, status):
    assert answer.status_code == status, answer.text
    return answer.json()["detail"]
