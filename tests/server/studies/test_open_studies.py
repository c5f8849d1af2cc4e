"""What a server is started with: which folders are used where nobody names any, and what cannot be used."""

import hashlib
import json
import os
from pathlib import Path

import pytest
from monailabel.config import Settings

from lib.server.project import ProjectError
from lib.server.studies import open_studies as module
from lib.server.studies.archive_studies import ArchiveStudies
from lib.server.studies.folder_studies import FolderStudies
from lib.server.studies.open_studies import archive_login, open_studies
from tests.server.failures import no_space
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
    """Sets variables as a user would before the start."""

    def set_them(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(module, "settings", Settings())

    return set_them


# Folders


def test_annotations_lie_in_the_studies_folder(tmp_path):
    write_image(tmp_path / "scan.nii.gz")

    studies = open_studies(str(tmp_path), LABELS, None)

    assert isinstance(studies, FolderStudies)
    assert studies.project.folder == tmp_path


def test_annotations_lie_where_the_user_says(tmp_path):
    write_image(tmp_path / "studies" / "scan.nii.gz")

    studies = open_studies(str(tmp_path / "studies"), LABELS, tmp_path / "project")

    assert studies.project.folder == tmp_path / "project"
    assert studies.list_images() == ["scan"]


def test_relative_folder_is_that_of_the_start(tmp_path, monkeypatch):
    write_image(tmp_path / "studies" / "scan.nii.gz")
    monkeypatch.chdir(tmp_path)
    studies = open_studies("studies", LABELS, None)
    monkeypatch.chdir("/")

    assert studies.get_image_uri("scan") == str(tmp_path / "studies" / "scan.nii.gz")


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


def test_annotations_of_an_archive_lie_below_no_cache(home):
    studies = open_studies(ADDRESS, LABELS, None)

    assert studies.project.folder == home / ".local" / "share" / "inextremis" / NAME
    assert studies.cache == home / ".cache" / "inextremis" / NAME
    assert not studies.project.folder.is_relative_to(studies.cache)
    assert "cache" not in str(studies.project.folder.relative_to(home))


def test_folders_follow_the_user_s_conventions(set_variables, tmp_path):
    set_variables(XDG_DATA_HOME=str(tmp_path / "data"), XDG_CACHE_HOME=str(tmp_path / "c"))

    studies = open_studies(ADDRESS, LABELS, None)

    assert studies.project.folder == tmp_path / "data" / "inextremis" / NAME
    assert studies.cache == tmp_path / "c" / "inextremis" / NAME


@pytest.mark.parametrize("blank", ["", " "])
def test_empty_variables_are_as_if_they_were_not_set(set_variables, home, blank):
    set_variables(XDG_DATA_HOME="", XDG_CACHE_HOME="", MONAI_LABEL_DICOMWEB_CACHE_PATH=blank)

    assert open_studies(ADDRESS, LABELS, None).project.folder.is_relative_to(home)


@pytest.mark.parametrize("spelling", ["{}", " {} "])
def test_monai_label_s_variable_names_one_place_for_both(set_variables, tmp_path, spelling):
    set_variables(MONAI_LABEL_DICOMWEB_CACHE_PATH=spelling.format(tmp_path / "named"))

    studies = open_studies(ADDRESS, LABELS, None)

    assert studies.project.folder == tmp_path / "named" / NAME
    assert studies.cache == tmp_path / "named" / NAME / "cache"
    assert not studies.project.labels.is_relative_to(studies.cache)


def test_project_dir_is_the_project_s(home, tmp_path):
    studies = open_studies(ADDRESS, LABELS, tmp_path / "project")

    assert studies.project.folder == tmp_path / "project"
    assert studies.cache.is_relative_to(home)


@pytest.mark.parametrize("address", [ADDRESS, f"{ADDRESS}/", f"{ADDRESS}//"])
def test_slash_at_the_end_of_the_address_does_not_matter(home, address):
    assert open_studies(address, LABELS, None).project.folder.name == NAME


def test_two_archives_have_two_projects(home):
    one, two = (open_studies(f"http://127.0.0.1:9/{name}", LABELS, None) for name in ("a", "b"))

    assert one.project.folder != two.project.folder
    assert one.cache != two.cache


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


def test_mr_and_ct_are_searched_in_the_server_and_in_the_processes_that_it_starts(home):
    studies = open_studies(ADDRESS, LABELS, None)

    assert studies.archive._searches == [{"Modality": "MR"}, {"Modality": "CT"}]
    assert Settings().MONAI_LABEL_DICOMWEB_SEARCH_FILTER == {"Modality": "MR,CT"}
    assert json.loads(os.environ[FILTER]) == {"Modality": "MR,CT"}


def test_other_modalities_are_searched_where_the_user_names_them(home):
    studies = open_studies(ADDRESS, LABELS, None, modalities=("MR", "PT"))

    assert studies.archive._searches == [{"Modality": "MR"}, {"Modality": "PT"}]
    assert json.loads(os.environ[FILTER]) == {"Modality": "MR,PT"}


@pytest.mark.parametrize("own", [{"Modality": "CT"}, {}, {"PatientID": "7"}])
def test_filter_of_the_user_is_kept(set_variables, own):
    set_variables(**{FILTER: json.dumps(own)})

    assert open_studies(ADDRESS, LABELS, None).archive._searches == [own]
    assert json.loads(os.environ[FILTER]) == own


def test_home_is_not_touched_by_studies_in_a_folder(home, tmp_path):
    write_image(tmp_path / "studies" / "scan.nii.gz")

    open_studies(str(tmp_path / "studies"), LABELS, None)

    assert not Path(home).exists()
