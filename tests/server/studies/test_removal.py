"""Deletion with a way back: nothing of an image is lost, nothing of another is touched."""

import json
import os
import shutil

import pytest

from lib.server.project import Project
from lib.server.studies.removal import removals, remove_files, restore
from tests.full_disk import no_space
from tests.server.studies.images import contents


@pytest.fixture
def project(tmp_path):
    project = Project(tmp_path / "project")
    project.clicks.mkdir(parents=True)
    return project


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "studies"
    folder.mkdir()
    return folder


@pytest.fixture
def files(project, images):
    """Make two images, each with clicks on two labels, a mask and earlier masks; return the files of one."""
    for name in ("scan", "other"):
        (images / f"{name}.nii.gz").write_bytes(name.encode())
        for label in ("tumour", "cyst"):
            (project.clicks / f"{name}.{label}.json").write_bytes(f"{name} {label}".encode())
        (project.masks() / "history" / name).mkdir(parents=True)
        (project.masks() / "history" / name / "1.nii.gz").write_bytes(f"{name} before".encode())
        (project.masks() / f"{name}.nii.gz").write_bytes(f"{name} mask".encode())
    return [
        *(images / "scan.nii.gz", project.clicks / "scan.tumour.json", project.clicks / "scan.cyst.json"),
        *(project.masks() / "scan.nii.gz", project.masks() / "history" / "scan"),
    ]


def everything(project, images):
    found = contents(images) | {("project", path): content for path, content in contents(project.folder).items()}
    return found


def test_files_are_moved_and_come_back_as_they_were_and_others_are_left_alone(project, images, files):
    before = everything(project, images)

    folder = remove_files(project, "scan", files, images)

    assert folder.parent == project.removed
    assert not any(path.exists() for path in files)
    assert len([path for path in everything(project, images) if "other" in str(path)]) == 5
    (removal,) = removals(project, images)
    assert removal.image_id == "scan"
    assert sorted(restore(removal)) == sorted(files)
    assert everything(project, images) == before
    assert list(removals(project, images)) == []


def test_nothing_to_remove_leaves_no_folder(project, images):
    assert remove_files(project, "scan", [], images) is None
    assert list(removals(project, images)) == []
    assert not project.removed.exists()


def test_removals_are_listed_oldest_first(project, images, files):
    for file in files[:3]:
        remove_files(project, "scan", [file], images)

    assert [list(removal.files.values()) for removal in removals(project, images)] == [[file] for file in files[:3]]


def test_removals_of_one_image_in_turn_can_all_be_undone(project, images, files):
    before = everything(project, images)
    remove_files(project, "scan", files[1:], images)
    remove_files(project, "scan", files[:1], images)

    for removal in list(removals(project, images)):
        restore(removal)

    assert everything(project, images) == before


@pytest.mark.parametrize("target", ["../elsewhere/original", "/elsewhere/original"])
def test_link_is_moved_and_not_what_it_leads_to(project, images, tmp_path, target):
    original = tmp_path / "elsewhere" / "original"
    original.parent.mkdir()
    original.write_bytes(b"original")
    link = images / "scan.nii.gz"
    link.symlink_to(target.replace("/elsewhere", str(original.parent)) if target[0] == "/" else target)
    leads_to = link.readlink()

    folder = remove_files(project, "scan", [link], images)

    assert original.read_bytes() == b"original"
    assert not link.is_symlink()
    assert [path.readlink() for path in folder.iterdir() if path.is_symlink()] == [leads_to]
    restore(next(removals(project, images)))
    assert link.readlink() == leads_to
    assert link.read_bytes() == b"original"


def test_dangling_link_is_moved_and_comes_back(project, images):
    link = images / "scan.nii.gz"
    link.symlink_to("gone")

    remove_files(project, "scan", [link], images)
    assert not link.is_symlink()
    restore(next(removals(project, images)))

    assert os.readlink(link) == "gone"


def test_project_that_is_moved_can_still_restore(project, images, files, tmp_path):
    remove_files(project, "scan", files, images)
    shutil.move(project.folder, tmp_path / "moved")
    shutil.move(images, tmp_path / "moved studies")
    moved = Project(tmp_path / "moved")

    restored = restore(next(removals(moved, tmp_path / "moved studies")))

    assert tmp_path / "moved studies" / "scan.nii.gz" in restored
    assert (moved.clicks / "scan.cyst.json").read_bytes() == b"scan cyst"


# Cut short


def break_after(monkeypatch, moves, error):
    """Lets so many files be moved, and no more."""
    move, done = os.rename, []

    def cut_short(source, target):
        if len(done) == moves:
            raise error
        done.append(source)
        return move(source, target)

    monkeypatch.setattr(os, "rename", cut_short)


@pytest.mark.parametrize("moved", range(5))
def test_deletion_that_was_cut_short_can_be_undone(project, images, files, monkeypatch, moved):
    before = everything(project, images)

    with monkeypatch.context() as broken:
        break_after(broken, moved, OSError(5, "Input/output error"))
        with pytest.raises(OSError, match="Input/output"):
            remove_files(project, "scan", files, images)

    restored = restore(next(removals(project, images)))

    assert restored == files[:moved]
    assert everything(project, images) == before


@pytest.mark.parametrize("moved", range(5))
def test_restoring_that_was_cut_short_goes_on_the_next_time(project, images, files, monkeypatch, moved):
    before = everything(project, images)
    remove_files(project, "scan", files, images)

    with monkeypatch.context() as broken:
        break_after(broken, moved, OSError(28, "No space left on device"))
        with pytest.raises(OSError, match="No space"):
            restore(next(removals(project, images)))

    restore(next(removals(project, images)))
    assert everything(project, images) == before


def test_full_disk_removes_nothing(project, images, files, monkeypatch):
    before = everything(project, images)

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", no_space)
        with pytest.raises(OSError, match="No space"):
            remove_files(project, "scan", files, images)

    assert everything(project, images) == before


# Restoring


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("kind", ["file", "dangling link", "folder"])
def test_restoring_never_replaces_what_came_since(project, images, files, number, kind):
    remove_files(project, "scan", files, images)
    place = files[number]
    if kind == "file":
        place.write_bytes(b"newer")
    elif kind == "folder":
        place.mkdir()
    else:
        place.symlink_to("nowhere")
    before = everything(project, images)

    with pytest.raises(FileExistsError, match="There is a newer file at its place; move it away first"):
        restore(next(removals(project, images)))

    assert everything(project, images) == before
    assert os.path.lexists(place)


def test_missing_folder_is_made_and_a_note_of_somebody_stays(project, images, files):
    folder = remove_files(project, "scan", files, images)
    (folder / "why.txt").write_text("wrong patient")
    shutil.rmtree(project.labels)

    assert len(restore(next(removals(project, images)))) == len(files)
    assert (project.clicks / "scan.tumour.json").read_bytes() == b"scan tumour"
    assert (folder / "why.txt").exists()
    assert list(removals(project, images)) == []


BAD_MANIFESTS = {
    "up": {"files": {"00-scan.nii.gz": ["images", "../outside"]}},
    "up inside": {"files": {"00-scan.nii.gz": ["project", "labels/../../outside"]}},
    "absolute": {"files": {"00-scan.nii.gz": ["images", "/tmp/outside"]}},
    "from outside": {"files": {"../../../secret": ["project", "labels/taken"]}},
    "from an absolute path": {"files": {"/etc/hostname": ["project", "labels/taken"]}},
    "from a subfolder": {"files": {"a/b": ["project", "labels/taken"]}},
    "from the folder itself": {"files": {"": ["project", "labels/taken"]}},
    "from the folder above": {"files": {"..": ["project", "labels/taken"]}},
    "unknown root": {"files": {"00-scan.nii.gz": ["system", "outside"]}},
    "no place": {"files": {"00-scan.nii.gz": []}},
    "place that is a number": {"files": {"00-scan.nii.gz": 7}},
    "path that is a number": {"files": {"00-scan.nii.gz": ["images", 7]}},
    "list of files": {"files": ["00-scan.nii.gz"]},
    "files that are a number": {"files": 7},
    "no files": {"files": None},
}


@pytest.mark.parametrize("changes", BAD_MANIFESTS.values(), ids=BAD_MANIFESTS)
def test_manifest_that_leads_elsewhere_is_no_removal(project, images, files, changes):
    folder = remove_files(project, "scan", files[:1], images)
    manifest = folder / "removed.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | changes))
    remove_files(project, "scan", files[1:2], images)

    assert [list(removal.files.values()) for removal in removals(project, images)] == [files[1:2]]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"7", b"\xff", b"[" * 100_000, b"{}"])
def test_damaged_manifest_is_passed_over(project, images, files, content):
    folder = remove_files(project, "scan", files[:1], images)
    (folder / "removed.json").write_bytes(content)
    remove_files(project, "scan", files[1:2], images)

    assert [list(removal.files.values()) for removal in removals(project, images)] == [files[1:2]]
    assert (folder / "00-scan.nii.gz").read_bytes() == b"scan"


@pytest.mark.parametrize("image_id", ["Müller 1", "[MR] a", "1.2.840.113619", "x" * 180])
def test_images_of_any_name(project, images, image_id):
    file = images / f"{image_id}.nii.gz"
    file.write_bytes(b"volume")

    remove_files(project, image_id, [file], images)
    (removal,) = removals(project, images)
    restore(removal)

    assert removal.image_id == image_id
    assert file.read_bytes() == b"volume"
