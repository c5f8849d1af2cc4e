"""The studies of a folder: files that are listed, and uploads that are added."""

import hashlib
import json
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi import HTTPException

from lib.exchange.study_images import EXTENSIONS
from lib.geometry.volume import load_volume
from tests.full_disk import no_space
from tests.server.refusals import refusal
from tests.server.studies.images import (
    contents,
    in_another_format,
    open_folder,
    write_image,
    write_nrrd,
)
from tests.users import as_nobody

# Files


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
    assert open_folder(folder).list_images() == ["scan"]


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
    studies = open_folder(os.path.relpath(folder))
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

    assert open_folder(tmp_path / "link").list_images() == ["scan"]


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


# Checksums


def test_image_is_told_with_its_file_and_the_checksum_of_the_file_as_it_is_now(studies, folder):
    for patient in range(2):
        path = write_image(folder / "scan.nii.gz", patient)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert studies.get_image_info("scan") == {"name": "scan.nii.gz", "checksum": f"SHA256:{digest}"}


# Uploads


@pytest.fixture
def upload(tmp_path):
    return write_image(tmp_path / "upload.nii.gz", patient=5)


@pytest.mark.parametrize("image_id", ["new", "pat.1", "Müller 1", "[a]", "-x", "1.2.840", "x" * 150])
def test_upload_is_a_new_image(studies, folder, upload, image_id):
    """Also beside one whose name differs after a dot only."""
    write_image(folder / "pat.0.nii.gz", patient=1)

    studies.add_volume(image_id, upload, ".nii.gz")

    assert studies.list_images() == sorted(["scan", "pat.0", image_id])
    assert (folder / f"{image_id}.nii.gz").read_bytes() == upload.read_bytes()
    assert not [path for path in folder.iterdir() if path.name.endswith(".part")]


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
    servers = [open_folder(folder) for _ in range(n_servers)]
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
