"""What a server is started with: which folders are used where nobody names any, and what cannot be used."""

import hashlib
import json
import os

import pytest
from monailabel.config import Settings

from lib.server.project import ProjectError
from lib.server.studies import open_studies as module
from lib.server.studies.archive_studies import ArchiveStudies
from lib.server.studies.folder_studies import FolderStudies
from lib.server.studies.open_studies import archive_login, open_studies
from tests.full_disk import no_space
from tests.server.studies.images import LABELS, click, contents, submit, write_image
from tests.users import as_nobody

ADDRESS = "http://127.0.0.1:9/dicom-web"  # where nothing answers
NAME = hashlib.md5(ADDRESS.encode()).hexdigest()
FILTER = "MONAI_LABEL_DICOMWEB_SEARCH_FILTER"
VARIABLES = ("XDG_DATA_HOME", "XDG_CACHE_HOME", "MONAI_LABEL_DICOMWEB_CACHE_PATH", FILTER)


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # so that what the code under test sets is undone
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(module, "settings", Settings())
    return tmp_path / "home"


@pytest.fixture
def set_variables(home, monkeypatch):
    """Return a function that sets variables as a user would before the start."""

    def set_them(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(module, "settings", Settings())

    return set_them


# Folders


@pytest.mark.parametrize("project_dir", [None, "project"])
def test_annotations_of_a_folder_lie_in_it_or_where_the_user_says(home, tmp_path, project_dir):
    write_image(tmp_path / "studies" / "scan.nii.gz")

    studies = open_studies(str(tmp_path / "studies"), LABELS, project_dir and tmp_path / project_dir)

    assert isinstance(studies, FolderStudies)
    assert studies.project.folder == tmp_path / (project_dir or "studies")
    assert studies.list_images() == ["scan"]
    assert not home.exists()


def test_folder_without_images_is_opened_with_a_warning(tmp_path, caplog):
    (tmp_path / "notes.txt").write_text("to be filled")

    assert open_studies(str(tmp_path), LABELS, None).list_images() == []
    assert "holds no image yet; put .nii.gz, .nii or .nrrd files into it" in caplog.text


def test_folder_that_may_not_be_read_is_said_in_a_sentence(tmp_path):
    write_image(tmp_path / "studies" / "scan.nii.gz")

    def refused():
        (tmp_path / "studies").chmod(0o300)
        with pytest.raises(ProjectError, match="cannot be read; allow it"):
            open_studies(str(tmp_path / "studies"), LABELS, None)
        (tmp_path / "studies").chmod(0o755)

    as_nobody(refused, tmp_path / "studies")


def test_read_only_folder_is_said_in_a_sentence_with_the_remedy(tmp_path):
    write_image(tmp_path / "studies" / "scan.nii.gz")
    (tmp_path / "project").mkdir()

    def refused():
        (tmp_path / "studies").chmod(0o555)
        with pytest.raises(ProjectError, match=r"cannot be written \(Permission denied\).*--conf project_dir"):
            open_studies(str(tmp_path / "studies"), LABELS, None)
        before = contents(tmp_path / "studies")
        studies = open_studies(str(tmp_path / "studies"), LABELS, tmp_path / "project")
        click(studies, "scan")
        submit(studies, "scan")
        assert studies.get_labeled_images() == ["scan"]
        assert contents(tmp_path / "studies") == before

    as_nobody(refused, tmp_path / "studies", tmp_path / "project")


# Archives


def test_archive_is_opened_also_while_it_is_away(home):
    studies = open_studies(ADDRESS, LABELS, None)

    assert isinstance(studies, ArchiveStudies)
    assert studies.name() == ADDRESS


DATA, CACHE, MONAI_LABEL = "XDG_DATA_HOME", "XDG_CACHE_HOME", "MONAI_LABEL_DICOMWEB_CACHE_PATH"
PLACES = {
    "default": ({}, "home/.local/share/inextremis/{}", "home/.cache/inextremis/{}"),
    "XDG": ({DATA: "data", CACHE: "c"}, "data/inextremis/{}", "c/inextremis/{}"),
    "empty": ({DATA: "", CACHE: "", MONAI_LABEL: ""}, "home/.local/share/inextremis/{}", "home/.cache/inextremis/{}"),
    "MONAI Label's": ({MONAI_LABEL: "named"}, "named/{}", "named/{}/cache"),
}


@pytest.mark.parametrize(("variables", "project", "cache"), PLACES.values(), ids=PLACES)
def test_annotations_of_an_archive_lie_where_the_variables_say_and_below_no_cache(
    set_variables, tmp_path, variables, project, cache
):
    set_variables(**{name: value and str(tmp_path / value) for name, value in variables.items()})

    studies = open_studies(ADDRESS, LABELS, None)

    assert studies.project.folder == tmp_path / project.format(NAME)
    assert studies.cache == tmp_path / cache.format(NAME)
    assert not studies.project.labels.is_relative_to(studies.cache)
    assert open_studies(ADDRESS, LABELS, tmp_path / "own").project.folder == tmp_path / "own"


@pytest.mark.parametrize("spelling", [" ", " {} "])
def test_blanks_around_monai_label_s_variable_do_not_count(set_variables, tmp_path, spelling):
    set_variables(MONAI_LABEL_DICOMWEB_CACHE_PATH=spelling.format(tmp_path / "named"))

    folder = open_studies(ADDRESS, LABELS, None).project.folder

    assert folder.is_relative_to(tmp_path / ("named" if "{" in spelling else "home"))


def test_each_archive_has_a_project_also_with_slashes_at_the_end(home):
    same = [open_studies(address, LABELS, None) for address in (ADDRESS, f"{ADDRESS}/", f"{ADDRESS}//")]
    other = open_studies("http://127.0.0.1:9/other", LABELS, None)

    assert [studies.name() for studies in same] == [ADDRESS] * 3
    assert {studies.project.folder.name for studies in same} == {NAME}
    assert NAME not in str(other.project.folder) and NAME not in str(other.cache)


def test_login_is_that_of_the_variables(set_variables):
    assert archive_login() is None
    set_variables(MONAI_LABEL_DICOMWEB_USERNAME="reader", MONAI_LABEL_DICOMWEB_PASSWORD="secret")

    assert archive_login() == ("reader", "secret")


@pytest.mark.parametrize("in_the_way", ["cache", "project"])
def test_folder_that_cannot_be_made_is_said_in_a_sentence(set_variables, tmp_path, in_the_way):
    (tmp_path / in_the_way).write_text("a file")
    set_variables(XDG_CACHE_HOME=str(tmp_path / "cache"), XDG_DATA_HOME=str(tmp_path / "project"))

    with pytest.raises(ProjectError, match=r"cannot be (made|written) \(.+\)"):
        open_studies(ADDRESS, LABELS, None)


def test_cache_that_may_not_be_written_is_said_in_a_sentence(set_variables, tmp_path):
    cache = tmp_path / "cache" / "inextremis" / NAME
    cache.mkdir(parents=True)
    (tmp_path / "data").mkdir()
    set_variables(XDG_CACHE_HOME=str(tmp_path / "cache"), XDG_DATA_HOME=str(tmp_path / "data"))

    def refused():
        cache.chmod(0o555)
        with pytest.raises(ProjectError, match=r"cannot be (made|written) \(Permission denied\); allow it"):
            open_studies(ADDRESS, LABELS, None)

    as_nobody(refused, tmp_path / "cache", tmp_path / "data")


# Annotations of earlier versions


@pytest.fixture
def old(home):
    """Where earlier versions kept the annotations of this archive."""
    labels = home / ".cache" / "monailabel" / "dicom" / NAME / "labels"
    (labels / "extreme_points").mkdir(parents=True)
    (labels / "final").mkdir()
    (labels / "extreme_points" / "1.2.lesion.json").write_bytes(b"clicks")
    (labels / "final" / "1.2.nii.gz").write_bytes(b"mask")
    return labels


def test_old_annotations_are_copied_and_stay_where_they_are(old, caplog):
    before = contents(old)

    studies = open_studies(ADDRESS, LABELS, None)

    assert contents(studies.project.labels) == before
    assert contents(old) == before
    assert "were copied to" in caplog.text


def test_old_annotations_are_copied_once(old):
    studies = open_studies(ADDRESS, LABELS, None)
    (studies.project.clicks / "1.2.lesion.json").unlink()
    (old / "extreme_points" / "1.3.lesion.json").write_bytes(b"later")

    again = open_studies(ADDRESS, LABELS, None)

    assert list(again.project.clicks.glob("*.json")) == []


def test_copying_that_was_cut_short_is_done_again(old, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(os, "rename", no_space)
        with pytest.raises(ProjectError, match="The annotations in .* cannot be copied"):
            open_studies(ADDRESS, LABELS, None)

    assert contents(open_studies(ADDRESS, LABELS, None).project.labels) == contents(old)


def test_other_archive_s_annotations_are_not_copied(old):
    studies = open_studies("http://127.0.0.1:9/other", LABELS, None)

    assert contents(studies.project.labels) == {}


def test_annotations_in_a_place_that_the_user_named_before_are_still_there(set_variables, tmp_path):
    """Earlier versions kept them in the folder that MONAI Label's variable named."""
    labels = tmp_path / "named" / NAME / "labels" / "extreme_points"
    labels.mkdir(parents=True)
    (labels / "1.2.lesion.json").write_bytes(b"clicks")
    set_variables(MONAI_LABEL_DICOMWEB_CACHE_PATH=str(tmp_path / "named"))

    assert open_studies(ADDRESS, LABELS, None).project.clicks == labels


# What is searched for


@pytest.mark.parametrize(("options", "modalities"), [({}, ["MR", "CT"]), ({"modalities": ("MR", "PT")}, ["MR", "PT"])])
def test_modalities_are_searched_by_the_server_and_by_the_processes_that_it_starts(home, options, modalities):
    studies = open_studies(ADDRESS, LABELS, None, **options)

    assert studies.archive._searches == [{"Modality": modality} for modality in modalities]
    assert {"Modality": ",".join(modalities)} == Settings().MONAI_LABEL_DICOMWEB_SEARCH_FILTER
    assert json.loads(os.environ[FILTER]) == {"Modality": ",".join(modalities)}


@pytest.mark.parametrize("own", [{"Modality": "CT"}, {}, {"PatientID": "7"}])
def test_filter_of_the_user_is_kept(set_variables, own):
    set_variables(**{FILTER: json.dumps(own)})

    assert open_studies(ADDRESS, LABELS, None).archive._searches == [own]
    assert json.loads(os.environ[FILTER]) == own
