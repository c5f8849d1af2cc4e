"""scripts/import_annotations.py: every format into the store of a studies folder, and what it says when it cannot."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from lib.annotations.store import AnnotationStore
from lib.server.project import images_of, project_of
from scripts.import_annotations import main
from tests.exchange.studies import (
    CLICKS,
    GEOMETRIES,
    all_files,
    clicks_lps_mm,
    stored,
    stored_clicks,
    write_studies,
    write_volume,
)
from tests.exchange.test_paper_label_maps import paper_label_map
from tests.physical import l_shape

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def studies(tmp_path):
    return write_studies(tmp_path / "studies")


def write_table(path, studies, coordinates, label="lesion", images=GEOMETRIES):
    rows = ["image,label,x,y,z,coordinates"]
    for image in images:
        lps_mm = clicks_lps_mm(studies / f"{image}.nii.gz")
        points = {"voxel": np.array(CLICKS), "lps": lps_mm, "ras": lps_mm * [-1, -1, 1]}[coordinates]
        rows += [f"{image},{label},{x:.4f},{y:.4f},{z:.4f},{coordinates}" for x, y, z in points]
    path.write_text("\n".join(rows))
    return path


def write_markups(folder, studies, system):
    folder.mkdir()
    for image in GEOMETRIES:
        positions = clicks_lps_mm(studies / f"{image}.nii.gz") * {"LPS": [1, 1, 1], "RAS": [-1, -1, 1]}[system]
        points = [{"label": f"lesion-{n}", "position": p.tolist()} for n, p in enumerate(positions, start=1)]
        content = {"markups": [{"type": "Fiducial", "coordinateSystem": system, "controlPoints": points}]}
        (folder / f"{image}.mrk.json").write_text(json.dumps(content))
    return folder


def write_label_maps(folder):
    for image, affine in GEOMETRIES.items():
        write_volume(folder / f"{image}_Extremes.nii.gz", paper_label_map(), affine)
    return folder


FORMATS = {
    "points, voxel": lambda root, studies: ["--points", write_table(root / "points.csv", studies, "voxel")],
    "points, lps": lambda root, studies: ["--points", write_table(root / "points.csv", studies, "lps")],
    "points, ras": lambda root, studies: ["--points", write_table(root / "points.csv", studies, "ras")],
    "markups, LPS": lambda root, studies: ["--markups", write_markups(root / "markups", studies, "LPS")],
    "markups, RAS": lambda root, studies: ["--markups", write_markups(root / "markups", studies, "RAS")],
    "label maps": lambda root, studies: [
        *("--label-maps", write_label_maps(root / "maps"), "--file-suffix", "_Extremes"),
    ],
}


def run(studies, *arguments):
    return main([str(argument) for argument in (studies, *arguments)])


@pytest.mark.parametrize("arguments", FORMATS.values(), ids=FORMATS)
def test_clicks_of_every_format_lie_where_itk_says(studies, tmp_path, arguments):
    assert run(studies, *arguments(tmp_path, studies)) == 0

    for image in GEOMETRIES:
        voxel, lps_mm = stored_clicks(studies, image)
        assert sorted(voxel) == sorted(CLICKS)
        told_mm = clicks_lps_mm(studies / f"{image}.nii.gz", voxel)
        np.testing.assert_allclose(lps_mm, told_mm, atol=1e-3)


def test_the_store_reads_what_was_imported(studies, tmp_path):
    run(studies, "--points", write_table(tmp_path / "points.csv", studies, "lps"), "--annotator", "reader 7")

    annotations = list(AnnotationStore(studies / "labels" / "extreme_points"))
    assert [a.image_id for a in annotations] == sorted(GEOMETRIES)
    assert {a.annotator for a in annotations} == {"reader 7"}


class TestMasks:
    @pytest.fixture
    def masks(self, tmp_path):
        array = (l_shape() > 500).astype(np.uint8)
        array[18:22, 14:18, 2:6] = 2
        for image, affine in GEOMETRIES.items():
            write_volume(tmp_path / "masks" / f"{image}.nii.gz", array, affine)
        return tmp_path / "masks"

    @pytest.mark.parametrize("image", GEOMETRIES)
    def test_clicks_touch_the_ends_of_the_structure(self, studies, masks, image):
        assert run(studies, "--masks", masks, "--labels", "lesion,cyst") == 0

        clicks, lps_mm = stored_clicks(studies, image)
        voxels = np.argwhere(l_shape() > 500)
        np.testing.assert_array_equal(np.min(clicks, axis=0), voxels.min(axis=0))
        np.testing.assert_array_equal(np.max(clicks, axis=0), voxels.max(axis=0))
        np.testing.assert_allclose(lps_mm, clicks_lps_mm(studies / f"{image}.nii.gz", clicks), atol=1e-3)
        assert stored(studies, image, "cyst")["current"]["annotator"] == "simulated"

    def test_error_of_a_hand_is_drawn_from_the_seed(self, studies, masks, tmp_path):
        def clicks(seed):
            run(studies, "--masks", masks, "--label", "lesion", "--error-voxels", "1", "--seed", seed, "--overwrite")
            return stored_clicks(studies, "straight")[0]

        assert clicks(1) == clicks(1)
        assert clicks(1) != clicks(2)

    def test_labels_json_beside_the_masks_tells_the_indices(self, studies, masks):
        (masks / "labels.json").write_text('{"cyst": 1, "lesion": 2}')

        run(studies, "--masks", masks, "--labels", "lesion,cyst")

        assert np.min(stored_clicks(studies, "straight", "lesion")[0], axis=0).tolist() == [18, 14, 2]

    def test_mask_on_another_grid_is_refused(self, studies, masks, capsys):
        write_volume(masks / "flipped.nii.gz", (l_shape() > 500).astype(np.uint8), GEOMETRIES["straight"])

        assert run(studies, "--masks", masks, "--label", "lesion") == 2

        assert "flipped.nii.gz: image 'flipped', label 'lesion': the file is not on the grid" in capsys.readouterr().err
        assert not (studies / "labels").exists()


def test_published_names_are_matched_by_suffixes(tmp_path):
    studies = tmp_path / "studies"
    write_volume(studies / "vs_1_T2.nii.gz", l_shape(), GEOMETRIES["oblique"])
    maps = tmp_path / "maps"
    write_volume(maps / "vs_1_Extremes_man.nii.gz", paper_label_map(), GEOMETRIES["oblique"])
    write_volume(maps / "vs_1_Sobel_man.nii.gz", l_shape(), GEOMETRIES["oblique"])

    assert run(studies, "--label-maps", maps, "--file-suffix", "_Extremes_man", "--image-suffix", "_T2") == 0

    assert len(stored_clicks(studies, "vs_1_T2")[0]) == 6


def test_nrrd_and_names_with_dots_and_blanks_are_images_too(tmp_path):
    studies = tmp_path / "my studies"
    path = write_volume(studies / "scan 1.2.nrrd", l_shape(), GEOMETRIES["oblique_flipped"])
    table = tmp_path / "points.csv"
    rows = [f"scan 1.2,lesion,{x},{y},{z},lps" for x, y, z in clicks_lps_mm(path)]
    table.write_text("\n".join(["image,label,x,y,z,coordinates", *rows]))

    assert run(studies, "--points", table) == 0

    assert stored_clicks(studies, "scan 1.2")[0] == CLICKS


# What stays as it is


def test_dry_run_writes_nothing(studies, tmp_path, capsys):
    before = all_files(studies)

    assert run(studies, "--points", write_table(tmp_path / "points.csv", studies, "voxel"), "--dry-run") == 0

    assert all_files(studies) == before
    assert "oblique: lesion: 6 clicks" in capsys.readouterr().out


def test_dry_run_refuses_what_an_import_refuses(studies, tmp_path, capsys):
    table = write_table(tmp_path / "points.csv", studies, "voxel", label="tumour", images=["oblique"])

    assert run(studies, "--points", table, "--dry-run") == 2
    assert "label 'tumour': the app's labels are lesion" in capsys.readouterr().err


def test_existing_clicks_are_kept_unless_told_otherwise(studies, tmp_path, capsys):
    table = write_table(tmp_path / "points.csv", studies, "voxel")
    run(studies, "--points", table)
    table.write_text(table.read_text().replace("16.0000", "17.0000"))
    before = all_files(studies)

    assert run(studies, "--points", table) == 0
    assert all_files(studies) == before
    assert "5 that exist were kept (--overwrite replaces them)" in capsys.readouterr().out

    assert run(studies, "--points", table, "--overwrite") == 0
    assert stored_clicks(studies, "oblique")[0][0] == [17, 6, 4]
    assert len(stored(studies, "oblique")["history"]) == 1


# Refusals


def test_one_bad_row_stops_the_whole_import(studies, tmp_path, capsys):
    table = write_table(tmp_path / "points.csv", studies, "voxel")
    table.write_text("\n".join(table.read_text().splitlines()[:-1]))

    assert run(studies, "--points", table) == 2

    told = capsys.readouterr().err
    assert (
        "points.csv, lines 26 to 30: image 'oblique_flipped', label 'lesion': 5 clicks; expected at least six" in told
    )
    assert "Nothing was imported." in told
    assert not (studies / "labels").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--points", "none.csv"], "none.csv: cannot be read as CSV"),
        (["--markups", "none"], "none does not exist"),
        (["--label-maps", "studies", "--labels", "a,b"], "give one of a, b with --label"),
        (["--masks", "studies", "--file-suffix", "_x"], "holds no file that ends in _x.nii.gz or _x.nii or _x.nrrd"),
        (["--masks", "studies"], "holds the value 100; expected 0, 1 for lesion"),
        (["--masks", "studies", "--labels", "a/b"], "'a/b' is not a label name"),
    ],
)
def test_wrong_arguments_are_a_sentence(studies, monkeypatch, capsys, arguments, sentence):
    monkeypatch.chdir(studies.parent)

    assert run("studies", *arguments) == 2

    assert sentence in capsys.readouterr().err
    assert not (studies / "labels").exists()


def test_studies_folder_that_is_not_there_is_a_sentence(tmp_path, capsys):
    assert run(tmp_path / "none", "--points", "points.csv") == 2
    assert "none does not exist; expected a folder of images" in capsys.readouterr().err


def test_address_of_an_archive_stands_for_its_images_that_were_opened(studies, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    address = "http://localhost:8042/dicom-web"
    table = write_table(tmp_path / "points.csv", studies, "voxel")

    assert run(address, "--points", table) == 2
    assert "does not exist" in capsys.readouterr().err
    shutil.copytree(studies, images_of(address))
    assert run(address, "--points", table) == 0
    assert len(list(AnnotationStore(project_of(address).clicks))) == len(GEOMETRIES)


@pytest.mark.parametrize("option", [["--error-voxels", "-1"], ["--error-voxels", "nan"], ["--seed", "-1"], []])
def test_options_that_cannot_be_are_refused(studies, option):
    with pytest.raises(SystemExit) as end:
        run(studies, *(["--masks", studies, *option] if option else []))

    assert end.value.code == 2


def test_images_that_are_not_there_are_refused_or_left_out(studies, tmp_path, capsys):
    table = write_table(tmp_path / "points.csv", studies, "voxel")
    (studies / "oblique.nii.gz").unlink()

    assert run(studies, "--points", table) == 2
    assert "image 'oblique', label 'lesion': there is no such image in" in capsys.readouterr().err
    assert run(studies, "--points", table, "--skip-missing-images") == 0
    assert len(list((studies / "labels" / "extreme_points").glob("*.json"))) == len(GEOMETRIES) - 1


def test_nothing_to_import_is_said(studies, tmp_path, capsys):
    table = write_table(tmp_path / "points.csv", studies, "voxel", images=["oblique"])
    table.write_text(table.read_text().replace("oblique", "other"))

    assert run(studies, "--points", table, "--skip-missing-images") == 2
    assert "There is nothing to import for the images in" in capsys.readouterr().err


@pytest.mark.parametrize("image", ["../outside", "/etc/passwd", "a/b"])
def test_no_name_in_a_file_leaves_the_folder(studies, tmp_path, image):
    table = write_table(tmp_path / "points.csv", studies, "voxel", images=["oblique"])
    table.write_text(table.read_text().replace("oblique", image))
    before = all_files(tmp_path)

    assert run(studies, "--points", table) == 2
    assert all_files(tmp_path) == before


def test_paths_are_relative_to_the_caller(studies, tmp_path, monkeypatch, capsys):
    write_table(tmp_path / "points.csv", studies, "voxel")
    monkeypatch.chdir(tmp_path)

    assert main(["studies", "--points", "points.csv"]) == 0

    assert f"{len(GEOMETRIES)} annotations imported into {studies}/labels/extreme_points." in capsys.readouterr().out
