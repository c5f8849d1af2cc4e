"""Which files are read, and which image each is of."""

from pathlib import Path

import pytest

from lib.exchange.annotation_files import NamingRule, read_all
from lib.exchange.click_records import ImportRefusedError
from lib.exchange.study_images import StudyImages

NIFTI = (".nii.gz", ".nii")


@pytest.fixture
def folder(tmp_path):
    for name in ("vs_1_Extremes.nii.gz", "vs_1_Sobel.nii.gz", "vs_2_Extremes.nii", "readme.txt"):
        (tmp_path / name).touch()
    return tmp_path


def test_suffix_picks_the_files_of_a_folder(folder):
    found = NamingRule("_Extremes").files([folder], NIFTI)

    assert [path.name for path in found] == ["vs_1_Extremes.nii.gz", "vs_2_Extremes.nii"]


def test_without_a_suffix_every_volume_is_taken(folder):
    assert len(NamingRule().files([folder], NIFTI)) == 3


@pytest.mark.parametrize(
    "name", ["._vs_1_Extremes.nii.gz", ".vs_3_Extremes.nii.gz", ".DS_Store", ".nii.gz", "Thumbs.db"]
)
def test_hidden_and_other_files_of_a_folder_are_no_volumes(folder, name):
    visible = NamingRule().files([folder], NIFTI)
    (folder / name).touch()

    assert NamingRule().files([folder], NIFTI) == visible
    assert set(StudyImages(folder).paths.values()) == set(visible)


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("gone")], ids=["folder", "broken link"])
def test_what_is_no_file_is_left_out(folder, make):
    make(folder / "vs_9.nii.gz")

    assert len(NamingRule().files([folder], NIFTI)) == len(StudyImages(folder).paths) == 3


def test_folder_of_hidden_files_is_refused(tmp_path):
    (tmp_path / "._case01.nii.gz").touch()

    with pytest.raises(ImportRefusedError, match="holds no file that ends in .nii.gz or .nii"):
        NamingRule().files([tmp_path], NIFTI)


@pytest.mark.parametrize("target", ["ab12cd", "store/SHA256E-s1--ab12cd.bin", ".annex/objects/ab12cd"])
def test_link_has_its_own_name(folder, target):
    (folder / target).parent.mkdir(parents=True, exist_ok=True)
    (folder / target).touch()
    (folder / "vs_4.nii.gz").symlink_to(folder / target)

    found = NamingRule().files([folder], NIFTI)

    assert found[-1] == folder / "vs_4.nii.gz"
    assert NamingRule().image_of(found[-1]) == "vs_4"
    assert StudyImages(folder).paths["vs_4"] == folder / "vs_4.nii.gz"


def test_file_that_is_given_is_taken_whatever_its_name(folder):
    assert NamingRule("_Extremes").files([folder / "readme.txt"], NIFTI) == [folder / "readme.txt"]


@pytest.mark.parametrize(
    ("rule", "name", "image"),
    [
        (NamingRule(), "scan.01.nii.gz", "scan.01"),
        (NamingRule("_Extremes", "_T2"), "vs_1_Extremes.nii.gz", "vs_1_T2"),
        (NamingRule("_Extremes"), "vs_1_Extremes.nrrd", "vs_1"),
    ],
)
def test_image_of_a_file(rule, name, image):
    assert rule.image_of(Path("anywhere", name)) == image


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("none", "none does not exist"), ("", "holds no file that ends in _mask.nii.gz or _mask.nii")],
)
def test_nothing_to_read_is_refused(folder, name, sentence):
    with pytest.raises(ImportRefusedError, match=sentence):
        NamingRule("_mask").files([folder / name], NIFTI)


def test_what_is_wrong_with_every_file_is_told():
    def refuse(sentence):
        raise ImportRefusedError([sentence])

    with pytest.raises(ImportRefusedError) as error:
        read_all([lambda: refuse("a.csv: wrong"), list, lambda: refuse("b.csv: wrong")])

    assert error.value.sentences == ("a.csv: wrong", "b.csv: wrong")
