"""The folder of a project: made once, known by an id, and said in a sentence where it cannot be used."""

import json
import logging
import shutil

import pytest

from lib.server.project import Project, ProjectError, claim_model, open_project
from tests.users import as_nobody

LABELS = ("tumour", "cyst")


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path / "my studies")


def test_folders_that_are_missing_are_made(project):
    open_project(project, LABELS)

    assert project.clicks.is_dir()
    assert project.masks().is_dir()
    assert project.clicks == project.folder / "labels" / "extreme_points"
    assert project.masks("original") == project.folder / "labels" / "original"


def test_project_keeps_its_id_and_the_labels_that_it_began_with(project):
    first = open_project(project, LABELS)

    again = open_project(project, ("cyst", "tumour", "liver"))

    assert again == first
    assert again.labels == LABELS


def test_project_that_is_moved_is_the_same(project, tmp_path):
    first = open_project(project, LABELS)
    shutil.move(project.folder, tmp_path / "elsewhere")

    assert open_project(Project(tmp_path / "elsewhere"), LABELS) == first


def test_two_projects_are_two(tmp_path):
    one, two = (open_project(Project(tmp_path / name), LABELS) for name in ("one", "two"))

    assert one.id != two.id


def test_all_that_a_project_writes_lies_in_its_folder(project):
    places = [getattr(project, name) for name in vars(Project) if isinstance(vars(Project)[name], property)]

    assert len(places) > 8
    assert all(place.is_relative_to(project.folder) for place in places)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"7", b"{}", b'{"id": "a"}', b'{"id": "a", "labels": 7}', b"\xff", b"[" * 100_000]
)
def test_damaged_identity_is_set_aside_and_the_project_opens(project, content, caplog):
    first = open_project(project, LABELS)
    project.identity.write_bytes(content)

    again = open_project(project, LABELS)

    assert again.id != first.id
    assert open_project(project, LABELS) == again
    assert [kept.read_bytes() for kept in project.identity.parent.glob("*.corrupt")] == [content]
    assert "project.json cannot be read" in caplog.text


@pytest.mark.parametrize("in_the_way", ["labels", "labels/extreme_points", "labels/final", ".inextremis"])
def test_file_in_the_way_of_a_folder_is_said_in_a_sentence(project, in_the_way):
    path = project.folder / in_the_way
    path.parent.mkdir(parents=True)
    path.write_text("")

    with pytest.raises(
        ProjectError, match=r"cannot be written \(.+\), and annotations are kept in it; allow it, or name"
    ):
        open_project(project, LABELS)


def test_folder_that_may_not_be_written_is_said_in_a_sentence(project):
    project.folder.mkdir()

    def refused():
        project.folder.chmod(0o555)
        with pytest.raises(ProjectError, match="--conf project_dir /absolute/folder"):
            open_project(project, LABELS)
        project.folder.chmod(0o755)

    as_nobody(refused, project.folder)


def test_annotations_that_may_not_be_written_are_said_at_start(project):
    """The folder itself may be; the first click would fail."""
    open_project(project, LABELS)

    def refused():
        project.clicks.chmod(0o555)
        with pytest.raises(ProjectError, match="Permission denied"):
            open_project(project, LABELS)

    as_nobody(refused, project.folder)


# Whose model is it?


def test_model_is_that_of_the_first_who_comes(tmp_path):
    one, two = (open_project(Project(tmp_path / name), LABELS) for name in ("one", "two"))
    model = tmp_path / "model"

    assert claim_model(model, one, "liver") is None
    assert claim_model(model, one, "liver renamed") is None
    assert claim_model(model, two, "brain") == "liver"


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"id": 7}', b"\xff"])
def test_damaged_record_of_the_owner_is_replaced(tmp_path, caplog, content):
    identity = open_project(Project(tmp_path / "one"), LABELS)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "project.json").write_bytes(content)

    with caplog.at_level(logging.WARNING):
        assert claim_model(tmp_path / "model", identity, "liver") is None

    assert json.loads((tmp_path / "model" / "project.json").read_bytes())["id"] == identity.id
    assert "cannot be read and is replaced" in caplog.text


def test_model_folder_that_cannot_be_written_is_said_in_a_sentence(tmp_path):
    identity = open_project(Project(tmp_path / "one"), LABELS)
    (tmp_path / "model").write_text("in the way")

    with pytest.raises(ProjectError, match=r"The model's folder .* cannot be (read|written)"):
        claim_model(tmp_path / "model", identity, "liver")
