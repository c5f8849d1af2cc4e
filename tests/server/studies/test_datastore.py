"""Annotations of studies: which images are annotated, whose annotations count, and deletion."""

import gzip
import json
import os
import shutil

import pytest

from lib.activelearning.leases import Leases
from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.json_file import JsonFile
from lib.annotations.store import Annotation
from lib.data.prepared_scans import PreparedScans
from lib.inference.opened_images import OpenedImages
from lib.server.studies.removal import removals, restore
from tests.server.refusals import refusal
from tests.server.studies.images import (
    CLICKS,
    LABELS,
    click,
    contents,
    geometry,
    in_another_format,
    open_folder,
    say_absent,
    submit,
    tags_of,
    write_image,
)

# Which images are annotated


def answers(*given):
    """Make a function that annotates an image with clicks, absent labels and final masks."""
    ways = {"clicks": click, "absent": say_absent, "mask": lambda s, image, *labels: submit(s, image, labels=labels)}

    def annotate(studies, image):
        for way, *labels in given:
            ways[way](studies, image, *labels)

    return annotate


@pytest.mark.parametrize(
    ("annotate", "tags", "is_annotated"),
    [
        (answers(), [], False),
        (click, ["extreme_points"], True),
        (submit, ["final"], True),
        (lambda studies, image: submit(studies, image, "original"), ["original"], False),
        (lambda studies, image: (click(studies, image), submit(studies, image)), ["extreme_points", "final"], True),
        (
            lambda studies, image: (submit(studies, image), submit(studies, image, "original")),
            ["final", "original"],
            True,
        ),
    ],
)
def test_clicks_and_final_masks_make_an_image_annotated(studies, folder, annotate, tags, is_annotated):
    write_image(folder / "other.nii.gz", patient=1)
    annotate(studies, "scan")

    for found in (studies, open_folder(folder)):
        assert found.get_labeled_images() == (["scan"] if is_annotated else [])
        assert found.get_unlabeled_images() == (["other"] if is_annotated else ["other", "scan"])
        assert found.status() == {"total": 2, "completed": int(is_annotated), "label_tags": dict.fromkeys(tags, 1)}
        assert sorted(found.json()["objects"]["scan"]["labels"]) == tags
        assert tags_of(found, "scan") == tags


@pytest.mark.parametrize(
    ("annotate", "unanswered", "has_answers"),
    [
        (answers(), ["tumour", "cyst"], False),
        (answers(("clicks", "vessel")), ["tumour", "cyst"], False),
        (answers(("mask", "vessel")), ["tumour", "cyst"], False),
        (answers(("clicks", "tumour")), ["cyst"], True),
        (answers(("absent", "cyst")), ["tumour"], True),
        (answers(("mask", "cyst")), ["tumour"], True),
        (answers(("clicks", "tumour"), ("clicks", "cyst")), [], True),
        (answers(("clicks", "tumour"), ("absent", "cyst")), [], True),
        (answers(("absent", "tumour", "cyst")), [], True),
        (answers(("mask", "tumour"), ("clicks", "cyst")), [], True),
        (answers(("mask", "tumour"), ("absent", "cyst")), [], True),
        (answers(("mask", "tumour", "cyst")), [], True),
        (answers(("clicks", "vessel"), ("absent", "bone"), ("clicks", "cyst")), ["tumour"], True),
        (answers(("mask", "vessel", "tumour")), ["cyst"], True),
    ],
)
def test_image_is_annotated_when_every_label_of_the_app_is_answered(studies, folder, annotate, unanswered, has_answers):
    annotate(studies, "scan")

    for found in (studies, open_folder(folder)):
        assert found.json()["objects"]["scan"]["unanswered"] == unanswered
        assert found.get_labeled_images() == ([] if unanswered else ["scan"])
        assert found.get_unlabeled_images() == (["scan"] if unanswered else [])
        assert found.status()["completed"] == (0 if unanswered else 1)
        assert found.has_answers() is has_answers


def test_label_that_is_added_to_the_app_opens_its_images_again(folder):
    click(open_folder(folder), "scan")
    submit(open_folder(folder), "scan")

    assert open_folder(folder, (*LABELS, "vessel")).json()["objects"]["scan"]["unanswered"] == ["vessel"]
    assert open_folder(folder, LABELS[:1]).get_labeled_images() == ["scan"]


def test_mask_that_names_no_labels_covers_those_that_the_project_began_with(folder):
    studies = open_folder(folder)
    write_image(studies.project.masks() / "scan.nii.gz")

    assert studies.get_labeled_images() == ["scan"]
    assert open_folder(folder, (*LABELS, "vessel")).json()["objects"]["scan"]["unanswered"] == ["vessel"]


def test_mask_that_cannot_be_read_covers_nothing(studies):
    (studies.project.masks() / "scan.nii.gz").write_bytes(b"garbage")

    assert studies.json()["objects"]["scan"]["unanswered"] == list(LABELS)


def test_annotations_of_another_process_count_at_once(studies, folder):
    click(open_folder(folder), "scan")

    assert studies.status() == {"total": 1, "completed": 1, "label_tags": {"extreme_points": 1}}


def test_two_masks_within_a_tick_of_the_clock_are_two(studies, folder):
    """The time of a file may be that of a clock which ticks 250 times a second."""
    submit(studies, "scan", labels=LABELS[:1])
    path = studies.masks().path("scan")
    time = path.stat().st_mtime_ns
    before = studies.get_unlabeled_images()
    submit(studies, "scan")
    os.utime(studies.masks().path("scan"), ns=(time, time))

    assert (before, studies.get_unlabeled_images()) == (["scan"], [])


@pytest.mark.parametrize("annotate", [click, submit])
def test_annotations_of_an_image_that_is_away_count_when_it_is_back_until_somebody_takes_them_away(
    studies, folder, annotate
):
    path = annotate(studies, "scan")
    (folder / "scan.nii.gz").rename(folder.parent / "away.nii.gz")
    assert studies.get_labeled_images() == []
    assert studies.status() == {"total": 0, "completed": 0, "label_tags": {}}

    (folder.parent / "away.nii.gz").rename(folder / "scan.nii.gz")
    assert studies.get_labeled_images() == ["scan"]
    path.unlink()
    assert studies.get_labeled_images() == []


def test_annotations_and_deletions_lie_in_the_project_where_it_has_a_folder_of_its_own(folder, tmp_path):
    before = contents(folder)
    studies = open_folder(folder, project_dir=tmp_path / "project")

    click(studies, "scan")
    submit(studies, "scan")

    assert contents(folder) == before
    assert studies.get_labeled_images() == ["scan"]
    studies.remove_image("scan")
    assert contents(folder) == {}
    restore(next(removals(studies.project, folder)))
    assert contents(folder) == before
    assert studies.get_labeled_images() == ["scan"]
    assert open_folder(folder).get_labeled_images() == []


def test_damaged_annotation_files_never_keep_the_list_from_anybody(studies, folder):
    write_image(folder / "other.nii.gz", patient=1)
    for name in ("scan.tumour.json", "other.a.b.c.json", "gone.tumour.json", "x.json", "scan.json"):
        (studies.project.clicks / name).write_bytes(b"{")
    (studies.project.clicks / "scan.cyst.json").mkdir()
    (studies.project.masks() / "scan.nii.gz").write_bytes(b"garbage")
    (studies.project.labels / "not a tag!").mkdir()
    (studies.project.labels / "file").write_bytes(b"")

    for found in (studies, open_folder(folder)):
        assert found.status()["total"] == 2
        assert json.dumps(found.json())
        assert "scan" in found.get_labeled_images()
        assert found.get_label_info("scan", "extreme_points") == {}
        assert refusal(found.get_label_uri, "scan", "final")[0] == 422


def test_labels_folder_that_somebody_took_away_is_no_error(studies):
    shutil.rmtree(studies.project.labels)

    assert studies.get_labeled_images() == []
    click(studies, "scan")
    assert studies.get_labeled_images() == ["scan"]


def test_list_and_label_info_tell_the_labels_of_an_annotation_and_who_made_it(studies):
    click(studies, "scan", "cyst")
    say_absent(studies, "scan", "tumour")
    submit(studies, "scan", labels=("cyst",))

    labels = studies.json()["objects"]["scan"]["labels"]
    assert {tag: of_tag["info"]["labels"] for tag, of_tag in labels.items()} == {
        "extreme_points": ["cyst", "tumour"],
        "final": ["cyst"],
    }
    info = studies.get_label_info("scan", "extreme_points")
    assert {label: (of["annotator"], of["absent"]) for label, of in info.items()} == {
        "cyst": ("reader", False),
        "tumour": ("reader", True),
    }
    final = studies.get_label_info("scan", "final")
    assert (final["labels"], final["annotator"]) == ({"cyst": 1}, "reader")


@pytest.mark.parametrize("tag", ["extreme_points", "final", "original", "", "../final"])
def test_annotation_that_is_not_there_is_not_found(studies, tag):
    for ask in (studies.get_label_uri, studies.get_label_info, studies.remove_label):
        assert refusal(ask, "scan", tag)[0] == 404


def test_information_of_clients_is_kept_but_does_not_replace_the_facts(studies, folder):
    studies.update_image_info("scan", {"note": "a", "name": "other"})
    studies.update_image_info("scan", {"priority": 1})

    info = open_folder(folder).get_image_info("scan")

    assert info == {"note": "a", "priority": 1} | studies.image_facts("scan")
    assert refusal(studies.update_image_info, "gone", {})[0] == 404


# Annotations belong to voxels


def replaced_in_place(folder):
    write_image(folder / "scan.nii.gz", patient=1)


def replaced_by_a_rename(folder):
    os.replace(write_image(folder / ".new.nii.gz", patient=1), folder / "scan.nii.gz")


def replaced_by_a_nrrd(folder):
    in_another_format(folder, patient=1)


@pytest.mark.parametrize("annotate", [click, submit])
@pytest.mark.parametrize("replace", [replaced_in_place, replaced_by_a_rename, replaced_by_a_nrrd])
@pytest.mark.parametrize("restarted", [True, False])
def test_annotations_count_only_while_their_image_has_the_same_voxels(studies, folder, annotate, replace, restarted):
    """Also on the same grid, as all images of some data sets have."""
    path = annotate(studies, "scan")
    assert studies.get_labeled_images() == ["scan"]
    replace(folder)
    studies = open_folder(folder) if restarted else studies

    assert studies.get_labeled_images() == []
    assert studies.get_unlabeled_images() == ["scan"]
    assert studies.status() == {"total": 1, "completed": 0, "label_tags": {}}
    assert studies.json()["objects"]["scan"]["labels"] == {}
    assert refusal(studies.get_label_uri, "scan", "final")[0] == 404
    assert path.exists()
    write_image(folder / "scan.nii.gz", patient=0)
    assert studies.get_labeled_images() == ["scan"]


def test_new_clicks_on_the_new_image_count(studies, folder):
    click(studies, "scan")
    replaced_in_place(folder)
    click(studies, "scan", "cyst")
    assert studies.json()["objects"]["scan"]["unanswered"] == ["tumour"]

    click(studies, "scan", "tumour")

    assert studies.get_labeled_images() == ["scan"]


def recompressed(folder):
    array = (folder / "scan.nii.gz").read_bytes()
    (folder / "scan.nii.gz").write_bytes(gzip.compress(gzip.decompress(array), 1, mtime=7))


def unpacked(folder):
    content = gzip.decompress((folder / "scan.nii.gz").read_bytes())
    (folder / "scan.nii.gz").unlink()
    (folder / "scan.nii").write_bytes(content)


def touched(folder):
    os.utime(folder / "scan.nii.gz", (1, 1))


def damaged(folder):
    (folder / "scan.nii.gz").write_bytes(b"half")


@pytest.mark.parametrize("annotate", [click, submit])
@pytest.mark.parametrize("change", [recompressed, unpacked, in_another_format, touched, damaged])
def test_image_keeps_its_annotations_in_another_file_and_where_it_cannot_be_read(studies, folder, annotate, change):
    annotate(studies, "scan")

    change(folder)

    assert studies.get_labeled_images() == ["scan"]


def test_annotations_without_a_checksum_count_as_those_of_earlier_versions_have_none(folder):
    studies = open_folder(folder, ("tumour",))
    points = ExtremePoints.from_clicks("tumour", CLICKS)
    studies.clicks.save(Annotation.now("scan", points, geometry(), "reader"))
    replaced_in_place(folder)

    assert studies.get_labeled_images() == ["scan"]


def test_image_id_with_dots_does_not_take_another_image_s_clicks(studies, folder):
    write_image(folder / "scan.1.nii.gz", patient=1)
    click(studies, "scan.1")

    assert studies.get_labeled_images() == ["scan.1"]
    studies.remove_image("scan")
    assert studies.get_labeled_images() == ["scan.1"]


# Deletion


@pytest.fixture
def annotated(studies, folder):
    """Two images, each with clicks on two labels, and final and other masks with others before them."""
    write_image(folder / "other.nii.gz", patient=1)
    for image_id in ("scan", "other"):
        studies.update_image_info(image_id, {"note": image_id})
        Leases(JsonFile(studies.project.leases)).renew(image_id, "reader")
        for label in LABELS:
            click(studies, image_id, label)
        for tag in ("final", "final", "original"):
            submit(studies, image_id, tag)
    return studies


def of_image(folder, image_id):
    """Return the files of an image: its own, clicks on two labels, three masks, and the checks of two of these."""
    return {
        path: content
        for path, content in contents(folder).items()
        if path.parts[0] != "removed" and (path.name.startswith(f"{image_id}.") or path.parent.name == image_id)
    }


def test_everything_of_an_image_is_moved_and_nothing_of_another(annotated, folder):
    other = of_image(folder, "other")
    assert len(of_image(folder, "scan")) == len(other) == 8

    annotated.remove_image("scan")

    assert of_image(folder, "other") == other
    assert of_image(folder, "scan") == {}
    assert annotated.list_images() == annotated.get_labeled_images() == ["other"]
    assert JsonFile(annotated.project.leases).items().keys() == {"other"}
    assert annotated.json()["objects"]["other"]["image"]["info"] == {"note": "other"}
    assert refusal(annotated.get_image_uri, "scan")[0] == 404
    assert refusal(annotated.remove_image, "scan")[0] == 404


def test_everything_comes_back_byte_for_byte(annotated, folder):
    before = {path: content for path, content in contents(folder).items() if path.parts[0] != ".inextremis"}
    annotated.remove_image("scan")

    (removal,) = removals(annotated.project, folder)
    restore(removal)

    assert {path: content for path, content in contents(folder).items() if path.parts[0] != ".inextremis"} == before
    assert annotated.get_labeled_images() == ["other", "scan"]


def test_next_patient_of_the_same_name_begins_with_nothing(annotated, folder):
    annotated.remove_image("scan")
    write_image(folder / "scan.nii.gz", patient=9)

    for found in (annotated, open_folder(folder)):
        assert found.get_unlabeled_images() == ["scan"]
        assert tags_of(found, "scan") == []
        assert found.get_image_info("scan").keys() == {"name", "checksum"}
        assert JsonFile(found.project.leases).get("scan") == {}


def test_deleted_link_leaves_the_original(studies, folder, tmp_path):
    original = write_image(tmp_path / "store" / "x.nii.gz").rename(tmp_path / "store" / "ab12")
    content = original.read_bytes()
    (folder / "linked.nii.gz").symlink_to(original)

    studies.remove_image("linked")

    assert original.read_bytes() == content
    assert studies.list_images() == ["scan"]
    restore(next(removals(studies.project, folder)))
    assert (folder / "linked.nii.gz").readlink() == original


def test_deletion_leaves_nothing_of_the_image_in_the_cache(studies, folder):
    write_image(folder / "other.nii.gz", patient=1)
    images = OpenedImages(PreparedScans(studies.project.prepared), studies.identities)
    for image_id in ("scan", "other"):
        opened_image = images.open(studies.image_path(image_id))
        images.on_grid(opened_image, (1.0, 1.0, 1.0))
    before = set(studies.project.prepared.glob("*"))

    studies.remove_image("scan")

    left = set(studies.project.prepared.glob("*"))
    assert len(before) == 4 and len(left) == 2
    studies.remove_image("other")
    assert not list(studies.project.prepared.glob("*"))


@pytest.mark.parametrize("image_id", ["", ".", "..", "labels", "../x", "gone", "scan.nii.gz", "*"])
def test_deletion_of_what_is_not_there_removes_nothing(annotated, folder, image_id):
    before = contents(folder)

    assert refusal(annotated.remove_image, image_id)[0] == 404
    assert refusal(annotated.remove_label, image_id, "final")[0] == 404
    assert contents(folder) == before


def test_clicks_of_all_labels_go_together(annotated, folder):
    annotated.remove_label("scan", "extreme_points")

    assert tags_of(annotated, "scan") == ["final", "original"]
    assert annotated.clicks.paths_of("scan") == []
    assert len(annotated.clicks.paths_of("other")) == 2
    restore(next(removals(annotated.project, folder)))
    assert len(annotated.clicks.paths_of("scan")) == 2


def test_deleted_mask_does_not_bring_back_an_older_one(annotated):
    annotated.remove_label("scan", "final")

    assert refusal(annotated.get_label_uri, "scan", "final")[0] == 404
    assert annotated.masks().path("scan") is None
    assert tags_of(annotated, "scan") == ["extreme_points", "original"]
