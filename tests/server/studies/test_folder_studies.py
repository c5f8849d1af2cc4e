"""The studies of a folder: what is listed, added and removed, and whose annotations count."""

import gzip
import hashlib
import json
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fastapi import HTTPException

from lib.activelearning.leases import Leases
from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.json_file import JsonFile
from lib.annotations.store import Annotation
from lib.data.prepared_scans import PreparedScans
from lib.exchange.study_images import EXTENSIONS
from lib.geometry.volume import load_volume
from lib.inference.opened_images import OpenedImages
from lib.server.studies.open_studies import open_studies
from lib.server.studies.removal import removals, restore
from tests.server.failures import no_space, refusal
from tests.server.studies.images import (
    CLICKS,
    LABELS,
    click,
    contents,
    geometry,
    say_absent,
    submit,
    tags_of,
    write_image,
    write_nrrd,
)
from tests.users import as_nobody


@pytest.fixture
def folder(tmp_path):
    """A folder with one image; its name holds a blank and brackets, as users' folders do."""
    folder = tmp_path / "[MR] 2024"
    write_image(folder / "scan.nii.gz")
    return folder


def opened(folder, labels=LABELS, project_dir=None):
    return open_studies(str(folder), labels, project_dir)


@pytest.fixture
def studies(folder):
    return opened(folder)


# What is listed


@pytest.mark.parametrize(
    ("name", "image_id"),
    [
        ("other.nii.gz", "other"),
        ("other.nii", "other"),
        ("pat.1.nii.gz", "pat.1"),
        ("pat.nii.nii.gz", "pat.nii"),
        ("Müller 1.nii.gz", "Müller 1"),
        ("[a] b.nii.gz", "[a] b"),
        ("a*?.nii.gz", "a*?"),
        ("腫瘍.nii.gz", "腫瘍"),
        ("a'b\"c.nii.gz", "a'b\"c"),
        ("-rf.nii.gz", "-rf"),
        ("a%2fb.nii.gz", "a%2fb"),
        ("other.nrrd", "other"),
    ],
)
def test_image_has_the_name_of_its_file_without_the_extension(studies, folder, name, image_id):
    path = (write_nrrd if name.endswith("nrrd") else write_image)(folder / name, patient=1)

    assert studies.list_images() == sorted(["scan", image_id])
    assert studies.get_image_uri(image_id) == str(path)
    assert studies.image_path(image_id) == path
    assert load_volume(studies.get_image_uri(image_id)).array.any()


@pytest.mark.parametrize(
    "name",
    [
        *("._scan.nii.gz", ".hidden.nii.gz", ".nii.gz", ".scan.nii.gz.Xa3", "thumbnail.png", "note.xml", "page.jpg"),
        *("film.tif", "scan.nii.gz.part", "scan.nii.gz~", "readme", "datastore_v2.json", "scan.json", "nii.gz"),
        *("SCAN.mha", "a\\b.nii.gz", "a\nb.nii.gz", "x" * 200 + ".nii.gz"),
    ],
)
def test_other_files_are_no_images(studies, folder, name):
    shutil.copy(folder / "scan.nii.gz", folder / name)

    assert studies.list_images() == ["scan"]
    assert studies.status()["total"] == 1


def test_folders_are_no_images_and_what_lies_in_them_neither(studies, folder):
    write_image(folder / "sub" / "other.nii.gz")
    (folder / "other.nii.gz").mkdir()

    assert studies.list_images() == ["scan"]


@pytest.mark.parametrize("name", [b"M\xfcller.nii.gz", b"\xff\xfe.nii.gz", b"a\xc3.nii.gz"])
def test_name_that_is_not_utf_8_is_left_out_with_a_warning_that_names_it(studies, folder, name, caplog):
    shutil.copy(folder / "scan.nii.gz", os.path.join(os.fsencode(folder), name))

    assert studies.list_images() == ["scan"]
    assert caplog.text.encode()
    assert ascii(os.fsdecode(name)) in caplog.text
    assert studies.get_unlabeled_images() == ["scan"]
    assert json.dumps(studies.json(), ensure_ascii=False).encode()
    assert opened(folder).list_images() == ["scan"]


def test_what_is_left_out_is_named_once(studies, folder, caplog):
    write_image(folder / "scan.nii")

    for _ in range(3):
        studies.list_images()

    assert caplog.text.count("The file 'scan.nii' is not listed. The image scan.nii.gz has the same id.") == 1


@pytest.mark.parametrize("names", [("a.nii.gz", "a.nii"), ("a.nii", "a.nrrd"), ("a.nrrd", "a.nii", "a.nii.gz")])
def test_of_two_files_with_one_id_it_is_always_the_same(studies, folder, names):
    for name in names:
        (folder / name).write_bytes(b"")

    first = min(names, key=lambda name: EXTENSIONS.index(name.removeprefix("a")))
    assert studies.list_images() == ["a", "scan"]
    assert studies.image_path("a").name == first


def in_another_format(folder, patient=0):
    (folder / "scan.nii.gz").unlink()
    write_nrrd(folder / "scan.nrrd", patient)


def moved(folder, place):
    (folder / place).parent.mkdir(exist_ok=True)
    (folder / "scan.nii.gz").rename(folder / place)


CHANGES = {
    "new": (lambda folder: write_image(folder / "other.nii.gz"), ["other", "scan"]),
    "renamed into place": (
        lambda folder: write_image(folder / ".other.nii.gz.Xa3.nii.gz").rename(folder / "other.nii.gz"),
        ["other", "scan"],
    ),
    "gone": (lambda folder: (folder / "scan.nii.gz").unlink(), []),
    "renamed": (lambda folder: moved(folder, "other.nii.gz"), ["other"]),
    "moved to a subfolder": (lambda folder: moved(folder, "done/scan.nii.gz"), []),
    "another format": (in_another_format, ["scan"]),
}


@pytest.mark.parametrize(("change", "expected"), CHANGES.values(), ids=CHANGES)
def test_change_of_the_folder_counts_at_once(studies, folder, change, expected):
    studies.list_images()

    change(folder)

    assert studies.list_images() == studies.get_unlabeled_images() == sorted(studies.json()["objects"]) == expected
    for image_id in expected:
        assert os.path.exists(studies.get_image_uri(image_id))


@pytest.mark.parametrize(
    "image_id", ["", ".", "..", "../x", "/etc/hostname", "scan.nii.gz", "sub/other", "Scan", "scan\0", "\ud800"]
)
def test_unknown_image_is_not_found(studies, folder, monkeypatch, image_id):
    write_image(folder / "sub" / "other.nii.gz")
    write_image(folder.parent / "x.nii.gz")
    monkeypatch.chdir(folder)
    before = contents(folder)

    for ask in (studies.get_image_uri, studies.get_image_info, studies.require_image):
        with pytest.raises(HTTPException) as error:
            ask(image_id)
        assert error.value.status_code == 404
    assert studies.image_path(image_id) is None
    assert contents(folder) == before


def test_image_is_that_of_the_studies_wherever_the_server_was_started(folder, tmp_path, monkeypatch):
    """Another image of that name lies in the working directory."""
    write_image(tmp_path / "work" / "scan.nii.gz", patient=7)
    monkeypatch.chdir(tmp_path)
    studies = opened(os.path.relpath(folder))
    monkeypatch.chdir(tmp_path / "work")

    assert studies.get_image_uri("scan") == str(folder / "scan.nii.gz")


def test_folder_that_is_away_is_said_in_a_sentence_and_comes_back(studies, folder):
    folder.rename(folder.with_name("away"))
    for ask in (studies.list_images, studies.get_unlabeled_images, studies.status):
        code, sentence = refusal(ask)
        assert code == 503
        assert str(folder) not in sentence

    folder.with_name("away").rename(folder)
    assert studies.list_images() == ["scan"]


# Links


def test_link_to_a_store_of_hashed_names_is_read_by_its_own_name(studies, folder, tmp_path):
    original = write_image(tmp_path / "store" / "x.nii.gz", patient=3).rename(tmp_path / "store" / "ab12cd")
    (folder / "linked.nii.gz").symlink_to(original)
    (folder / "relative.nii.gz").symlink_to(os.path.relpath(original, folder))

    for name in ("linked", "relative"):
        assert studies.get_image_uri(name) == str(folder / f"{name}.nii.gz")
        assert load_volume(studies.get_image_uri(name)).array.any()


@pytest.mark.parametrize("target", ["nowhere", "/nowhere/at/all", ".", "dangling.nii.gz"])
def test_link_that_leads_to_no_file_is_no_image_and_hides_no_file_of_its_name(studies, folder, target):
    (folder / "dangling.nii.gz").symlink_to(target)
    assert studies.list_images() == ["scan"]
    assert studies.status()["total"] == 1

    write_image(folder / "dangling.nii")
    assert studies.image_path("dangling").name == "dangling.nii"


def test_studies_folder_may_itself_be_a_link(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)

    assert opened(tmp_path / "link").list_images() == ["scan"]


def test_file_that_may_not_be_read_is_left_out_with_a_warning(studies, folder, caplog):
    write_image(folder / "secret.nii.gz").chmod(0)
    hidden = write_image(folder.parent / "hidden" / "x.nii.gz")
    (folder / "behind.nii.gz").symlink_to(hidden)
    hidden.parent.chmod(0)

    def look():
        assert studies.list_images() == ["scan"]
        assert "The file 'secret.nii.gz' is not listed. The server may not read it" in caplog.text

    as_nobody(look, folder)
    hidden.parent.chmod(0o755)


# What viewers are told


def test_image_is_told_with_its_file_and_the_checksum_of_the_file_as_it_is_now(studies, folder):
    for patient in range(2):
        path = write_image(folder / "scan.nii.gz", patient)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert studies.get_image_info("scan") == {"name": "scan.nii.gz", "checksum": f"SHA256:{digest}"}


def test_information_of_clients_is_kept_but_does_not_replace_the_facts(studies, folder):
    studies.update_image_info("scan", {"note": "a", "name": "other"})
    studies.update_image_info("scan", {"priority": 1})

    info = opened(folder).get_image_info("scan")

    assert info == {"note": "a", "priority": 1} | studies.image_facts("scan")
    assert refusal(studies.update_image_info, "gone", {})[0] == 404


# What is annotated


@pytest.mark.parametrize(
    ("annotate", "tags"),
    [
        (click, ["extreme_points"]),
        (submit, ["final"]),
        (lambda studies, image: (click(studies, image), submit(studies, image)), ["extreme_points", "final"]),
        (lambda studies, image: (submit(studies, image), submit(studies, image, "original")), ["final", "original"]),
    ],
)
def test_clicks_and_final_masks_make_an_image_annotated(studies, folder, annotate, tags):
    write_image(folder / "other.nii.gz", patient=1)
    annotate(studies, "scan")

    for found in (studies, opened(folder)):
        assert found.get_labeled_images() == ["scan"]
        assert found.get_unlabeled_images() == ["other"]
        assert found.status() == {"total": 2, "completed": 1, "label_tags": dict.fromkeys(tags, 1)}
        assert sorted(found.json()["objects"]["scan"]["labels"]) == tags
        assert tags_of(found, "scan") == tags


@pytest.mark.parametrize("tags", [[], ["original"]])
def test_mask_that_is_not_final_does_not(studies, tags):
    for tag in tags:
        submit(studies, "scan", tag)

    assert studies.get_labeled_images() == []
    assert studies.status() == {"total": 1, "completed": 0, "label_tags": dict.fromkeys(tags, 1)}


def answers(*given):
    """Annotates an image: clicks, labels said to be absent, and a final mask with the labels that it covers."""
    ways = {"clicks": click, "absent": say_absent, "mask": lambda s, image, *labels: submit(s, image, labels=labels)}

    def annotate(studies, image):
        for way, *labels in given:
            ways[way](studies, image, *labels)

    return annotate


@pytest.mark.parametrize(
    ("annotate", "unanswered"),
    [
        (answers(), ["tumour", "cyst"]),
        (answers(("clicks", "tumour")), ["cyst"]),
        (answers(("absent", "cyst")), ["tumour"]),
        (answers(("mask", "cyst")), ["tumour"]),
        (answers(("clicks", "tumour"), ("clicks", "cyst")), []),
        (answers(("clicks", "tumour"), ("absent", "cyst")), []),
        (answers(("absent", "tumour", "cyst")), []),
        (answers(("mask", "tumour"), ("clicks", "cyst")), []),
        (answers(("mask", "tumour"), ("absent", "cyst")), []),
        (answers(("mask", "tumour", "cyst")), []),
        (answers(("clicks", "vessel"), ("absent", "bone"), ("clicks", "cyst")), ["tumour"]),
        (answers(("mask", "vessel", "tumour")), ["cyst"]),
    ],
)
def test_image_is_annotated_when_every_label_of_the_app_is_answered(studies, folder, annotate, unanswered):
    annotate(studies, "scan")

    for found in (studies, opened(folder)):
        assert found.json()["objects"]["scan"]["unanswered"] == unanswered
        assert found.get_labeled_images() == ([] if unanswered else ["scan"])
        assert found.get_unlabeled_images() == (["scan"] if unanswered else [])
        assert found.status()["completed"] == (0 if unanswered else 1)


@pytest.mark.parametrize(
    ("annotate", "has"),
    [
        (answers(), False),
        (answers(("clicks", "vessel")), False),
        (answers(("mask", "vessel")), False),
        (answers(("clicks", "tumour")), True),
        (answers(("absent", "cyst")), True),
        (answers(("mask", "cyst", "vessel")), True),
    ],
)
def test_one_answer_to_a_label_of_the_app_is_something_to_learn_from(studies, annotate, has):
    annotate(studies, "scan")

    assert studies.has_answers() is has


def test_label_that_is_added_to_the_app_opens_its_images_again(folder):
    click(opened(folder), "scan")
    submit(opened(folder), "scan")

    assert opened(folder, (*LABELS, "vessel")).json()["objects"]["scan"]["unanswered"] == ["vessel"]
    assert opened(folder, LABELS[:1]).get_labeled_images() == ["scan"]


def test_mask_that_names_no_labels_covers_those_that_the_project_began_with(folder):
    studies = opened(folder)
    write_image(studies.project.masks() / "scan.nii.gz")

    assert studies.get_labeled_images() == ["scan"]
    assert opened(folder, (*LABELS, "vessel")).json()["objects"]["scan"]["unanswered"] == ["vessel"]


def test_mask_that_cannot_be_read_covers_nothing(studies):
    (studies.project.masks() / "scan.nii.gz").write_bytes(b"garbage")

    assert studies.json()["objects"]["scan"]["unanswered"] == list(LABELS)


def test_list_tells_which_labels_an_annotation_is_about(studies):
    click(studies, "scan", "tumour")
    say_absent(studies, "scan", "cyst")
    submit(studies, "scan", labels=("cyst",))

    labels = studies.json()["objects"]["scan"]["labels"]
    assert {tag: of_tag["info"]["labels"] for tag, of_tag in labels.items()} == {
        "extreme_points": ["cyst", "tumour"],
        "final": ["cyst"],
    }


def test_annotations_of_another_process_count_at_once(studies, folder):
    click(opened(folder), "scan")

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


def test_annotations_lie_in_the_project_where_it_has_a_folder_of_its_own(folder, tmp_path):
    before = contents(folder)
    studies = opened(folder, project_dir=tmp_path / "project")

    click(studies, "scan")
    submit(studies, "scan")

    assert contents(folder) == before
    assert studies.get_labeled_images() == ["scan"]
    assert opened(folder).get_labeled_images() == []


def test_damaged_annotation_files_never_keep_the_list_from_anybody(studies, folder):
    write_image(folder / "other.nii.gz", patient=1)
    for name in ("scan.tumour.json", "other.a.b.c.json", "gone.tumour.json", "x.json", "scan.json"):
        (studies.project.clicks / name).write_bytes(b"{")
    (studies.project.clicks / "scan.cyst.json").mkdir()
    (studies.project.masks() / "scan.nii.gz").write_bytes(b"garbage")
    (studies.project.labels / "not a tag!").mkdir()
    (studies.project.labels / "file").write_bytes(b"")

    for found in (studies, opened(folder)):
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


def test_label_info_says_who_and_when(studies):
    click(studies, "scan", "cyst")
    submit(studies, "scan")

    say_absent(studies, "scan", "tumour")
    info = studies.get_label_info("scan", "extreme_points")
    assert {label: (of["annotator"], of["absent"]) for label, of in info.items()} == {
        "cyst": ("reader", False),
        "tumour": ("reader", True),
    }
    assert studies.get_label_info("scan", "final")["labels"] == {"tumour": 1, "cyst": 2}
    assert studies.get_label_info("scan", "final")["annotator"] == "reader"


@pytest.mark.parametrize("tag", ["extreme_points", "final", "original", "", "../final"])
def test_annotation_that_is_not_there_is_not_found(studies, tag):
    for ask in (studies.get_label_uri, studies.get_label_info, studies.remove_label):
        assert refusal(ask, "scan", tag)[0] == 404


# Annotations belong to voxels


def replaced_in_place(folder):
    write_image(folder / "scan.nii.gz", patient=1)


def replaced_by_a_rename(folder):
    os.replace(write_image(folder / ".new.nii.gz", patient=1), folder / "scan.nii.gz")


def replaced_by_another_format(folder):
    in_another_format(folder, patient=1)


@pytest.mark.parametrize("annotate", [click, submit])
@pytest.mark.parametrize("replace", [replaced_in_place, replaced_by_a_rename, replaced_by_another_format])
@pytest.mark.parametrize("restarted", [True, False])
def test_annotations_of_another_image_under_the_same_name_do_not_count(studies, folder, annotate, replace, restarted):
    """Also on the same grid, as all images of some data sets have."""
    path = annotate(studies, "scan")
    assert studies.get_labeled_images() == ["scan"]
    replace(folder)
    studies = opened(folder) if restarted else studies

    assert studies.get_labeled_images() == []
    assert studies.get_unlabeled_images() == ["scan"]
    assert studies.status() == {"total": 1, "completed": 0, "label_tags": {}}
    assert studies.json()["objects"]["scan"]["labels"] == {}
    assert refusal(studies.get_label_uri, "scan", "final")[0] == 404
    assert path.exists()


@pytest.mark.parametrize("annotate", [click, submit])
def test_annotations_count_again_when_their_image_is_back(studies, folder, annotate):
    annotate(studies, "scan")
    replaced_in_place(folder)
    assert studies.get_labeled_images() == []

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
    studies = opened(folder, ("tumour",))
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


# Uploads


@pytest.fixture
def upload(tmp_path):
    return write_image(tmp_path / "upload.nii.gz", patient=5)


@pytest.mark.parametrize("image_id", ["new", "pat.1", "pat.2", "Müller 1", "[a]", "-x", "1.2.840", "x" * 150])
def test_upload_is_a_new_image(studies, folder, upload, image_id):
    studies.add_volume(image_id, upload, ".nii.gz")

    assert studies.list_images() == sorted(["scan", image_id])
    assert (folder / f"{image_id}.nii.gz").read_bytes() == upload.read_bytes()
    assert not [path for path in folder.iterdir() if path.name.endswith(".part")]


def test_uploads_whose_names_differ_after_a_dot_are_two(studies, folder, upload, tmp_path):
    studies.add_volume("pat.1", upload, ".nii.gz")
    studies.add_volume("pat.2", write_image(tmp_path / "b.nii.gz", patient=6), ".nii.gz")

    first, second = (load_volume(studies.get_image_uri(name)).array for name in ("pat.1", "pat.2"))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize("kind", ["file", "dangling link", "folder"])
def test_upload_never_replaces_whatever_the_extension(studies, folder, upload, tmp_path, extension, kind):
    place = folder / f"new{extension}"
    if kind == "file":
        place.write_bytes(b"before")
    elif kind == "folder":
        place.mkdir()
    else:
        place.symlink_to(tmp_path / "nowhere")
    before = contents(folder)

    code, sentence = refusal(studies.add_volume, "new", upload, ".nii.gz")

    assert code == 409
    assert "There is an image 'new' already" in sentence
    assert contents(folder) == before
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    "image_id",
    ["", ".", "..", ".hidden", "../escaped", "a/b", "/escaped", "a/", "a\\b", "a\0b", "a\nb", "x" * 151, "\ud800"],
)
def test_upload_with_a_name_that_is_none_is_refused(studies, folder, upload, tmp_path, image_id):
    before = contents(tmp_path)

    assert refusal(studies.add_volume, image_id, upload, ".nii.gz")[0] == 422
    assert contents(tmp_path) == before


@pytest.mark.parametrize("content", [b"", b"no volume", b"\x1f\x8b half"])
def test_upload_that_is_no_volume_is_refused_by_its_own_name(studies, folder, tmp_path, content):
    upload = tmp_path / "tmpab12.nii.gz"
    upload.write_bytes(content)

    code, sentence = refusal(studies.add_volume, "new", upload, ".nii.gz")

    assert code == 422
    assert "new.nii.gz" in sentence
    assert "tmpab12" not in sentence
    assert studies.list_images() == ["scan"]


@pytest.mark.parametrize(
    ("names", "n_servers"),
    [(["new.nii.gz"] * 8, 1), (["new.nii.gz", "new.nii", "new.nrrd"] * 3, 1), (["new.nii.gz"] * 8, 8)],
)
def test_of_uploads_of_one_name_at_once_one_is_taken_whole(folder, tmp_path, names, n_servers):
    """Of several servers on one folder, none knows another's lock: the file system decides."""
    servers = [opened(folder) for _ in range(n_servers)]
    files = [
        (write_nrrd if name.endswith("nrrd") else write_image)(tmp_path / f"{n}-{name}", patient=n)
        for n, name in enumerate(names)
    ]
    start = threading.Barrier(len(names))

    def add(n, file, name):
        start.wait()
        try:
            return servers[n % n_servers].add_volume("new", file, name.removeprefix("new"))
        except HTTPException as error:
            return error.status_code

    with ThreadPoolExecutor(len(names)) as clients:
        answers = list(clients.map(add, range(len(names)), files, names))

    assert sorted(answers, key=str) == [409] * (len(names) - 1) + [None]
    (taken,) = folder.glob("new.*")
    assert taken.read_bytes() == files[answers.index(None)].read_bytes()
    assert not list(folder.glob(".*.part"))


def test_file_system_without_hard_links_takes_uploads_and_replaces_nothing_either(studies, folder, upload, monkeypatch):
    """The file comes after the look whether there is one."""
    copy = shutil.copyfile
    monkeypatch.setattr(os, "link", no_space)  # which error it is does not matter
    studies.add_volume("other", upload, ".nii.gz")
    assert (folder / "other.nii.gz").read_bytes() == upload.read_bytes()
    assert not list(folder.glob(".*.part"))

    def copy_and_be_late(source, target):
        copy(source, target)
        (folder / "new.nii.gz").write_bytes(b"of somebody else")

    monkeypatch.setattr(shutil, "copyfile", copy_and_be_late)

    assert refusal(studies.add_volume, "new", upload, ".nii.gz")[0] == 409
    assert (folder / "new.nii.gz").read_bytes() == b"of somebody else"


def test_full_disk_leaves_no_half_image(studies, folder, upload, monkeypatch):
    monkeypatch.setattr(shutil, "copyfile", lambda _, target: target.write_bytes(b"half") and no_space())

    code, sentence = refusal(studies.add_volume, "new", upload, ".nii.gz")

    assert code == 507
    assert "No space left on device" in sentence
    assert not [path for path in folder.iterdir() if "new" in path.name or path.name.endswith(".part")]


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
    """What is in the files of an image: its own, clicks on two labels, three masks, and the checks of two of these."""
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

    for found in (annotated, opened(folder)):
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


def test_deletion_goes_into_the_project_s_folder(folder, tmp_path):
    studies = opened(folder, project_dir=tmp_path / "project")
    click(studies, "scan")

    studies.remove_image("scan")

    assert not (folder / "removed").exists()
    (removal,) = removals(studies.project, folder)
    restore(removal)
    assert studies.get_labeled_images() == ["scan"]


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
