"""Click networks are retrained after new accepted masks."""

import pytest

from lib.clickmask.click_network import ClickNetwork
from lib.clickmask.network_file import load_networks
from lib.data.prepared_scans import PreparedScans
from lib.data.scan_volumes import ScanVolumes
from lib.training import click_networks
from lib.training.atlases import TrainingAtlases
from lib.training.click_networks import FILE_NAME, updated_click_networks
from tests.training.phantoms import LABELS, scan, scans


class Project:
    def __init__(self, folder):
        self.folder = folder
        self.volumes = ScanVolumes(PreparedScans(folder / "prepared"), (1.0, 1.0, 1.0))

    def update(self, some, minutes=5):
        accepted = TrainingAtlases.of(some, self.volumes, LABELS).accepted
        return updated_click_networks(self.folder, some, self.volumes, accepted, LABELS, minutes)

    @property
    def stored(self):
        return {label: list(of.images) for label, of in load_networks(self.folder / FILE_NAME).items()}


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


@pytest.fixture
def trained(monkeypatch):
    """Number of examples and seconds of each training, which is skipped."""
    trainings = []

    def train(examples, seconds):
        trainings.append((len(examples), seconds))
        return ClickNetwork().eval()

    monkeypatch.setattr(click_networks, "train_click_network", train)
    return trainings


def masked(folder, count, labels=("lesion",)):
    return scans(folder, count, clicked=("lesion",), masked=labels)


def test_network_is_trained_on_accepted_masks_and_stored(project, trained, tmp_path):
    assert list(project.update(masked(tmp_path, 4))) == ["lesion"]

    assert trained == [(4, 45)]
    assert project.stored == {"lesion": [f"scan {n}" for n in range(4)]}


def test_few_masks_give_no_network(project, trained, tmp_path):
    assert project.update(masked(tmp_path, 3)) == {} and not trained


def test_label_without_clicks_has_no_network(project, trained, tmp_path):
    assert list(project.update(masked(tmp_path, 5, LABELS))) == ["lesion"]


def test_network_is_trained_again_only_with_new_masks(project, trained, tmp_path):
    some = masked(tmp_path, 5)
    for seen in (some[:4], some[:4], some):
        project.update(seen)

    assert [count for count, _ in trained] == [4, 5]


def test_network_stays_if_there_is_no_time_to_train(project, trained, tmp_path, monkeypatch):
    some = masked(tmp_path, 5)
    project.update(some[:4])
    monkeypatch.setattr(click_networks, "seconds_by_label", lambda counts, minutes: {})

    assert list(project.update(some)) == ["lesion"] and project.stored == {"lesion": [s.image_id for s in some[:4]]}


def test_network_is_deleted_with_any_of_its_masks(project, trained, tmp_path):
    some = masked(tmp_path, 4)
    project.update(some)

    assert project.update([*some[:3], scan(tmp_path, "clicked")]) == {} and project.stored == {}


def test_network_that_does_not_help_is_not_stored(project, tmp_path, monkeypatch):
    monkeypatch.setattr(click_networks, "train_click_network", lambda *_: None)

    assert project.update(masked(tmp_path, 4)) == {} and project.stored == {}


def test_unreadable_image_is_left_out(project, trained, tmp_path):
    some = masked(tmp_path, 5)
    some[2].image_path.write_bytes(b"no image")

    assert list(project.update(some)) == ["lesion"] and trained == [(4, 45)]
    assert project.stored == {"lesion": [s.image_id for s in (*some[:2], *some[3:])]}


def test_full_disk_is_logged(project, trained, tmp_path, caplog):
    (tmp_path / "file").write_bytes(b"")
    project.folder = tmp_path / "file"

    assert list(project.update(masked(tmp_path, 4))) == ["lesion"]
    assert "cannot be stored" in caplog.text
