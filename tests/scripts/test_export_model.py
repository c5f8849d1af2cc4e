"""scripts/export_model.sh: models as files that run without this repository, and what they say of themselves."""

import hashlib
import json
import os
import subprocess
import sys

import nibabel as nib
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from monai.data import load_net_with_metadata

from lib.data.grid import network_image
from lib.data.prepared_scans import PreparedVolume
from lib.exchange.seg_provenance import VERSION
from lib.geometry.volume import load_volume
from lib.inference.automatic_mask import automatic_mask
from lib.networks.checkpoint import load_checkpoint
from lib.networks.spec import NetworkSpec
from lib.server.audit import last_records
from lib.server.project import Project
from lib.server.review.readings import DECISION_KEY
from scripts.export_model import main
from tests.full_disk import full_after
from tests.modelexport.bundles import run_bundle
from tests.modelexport.models import AFTER, LABELS, PAPERS, clicked, masked, published, recorded, write_scans

SEGRESNET = NetworkSpec.of_monai(LABELS, (1.0, 1.0, 2.0), (16, 16, 16), "SegResNet", {"init_filters": 8})
DYNUNET = NetworkSpec.of_monai(
    LABELS,
    (1.0, 1.0, 2.0),
    (32, 32, 16),
    "DynUNet",
    {"kernel_size": [3, 3, 3], "strides": [1, 2, 2], "upsample_kernel_size": [2, 2], "filters": [4, 8, 16]},
)


@pytest.fixture
def studies(tmp_path):
    return tmp_path / "my studies"


def server_mask(model, path, *, crf):
    volume = load_volume(path)
    image, affine = network_image(volume, model.spec.spacing_mm)
    return automatic_mask(model, volume, PreparedVolume(image, affine, {}), crf=crf)


@pytest.mark.parametrize("spec", [PAPERS, SEGRESNET], ids=["UNet2d5", "SegResNet"])
def test_bundle_gives_the_automatic_mask_voxel_by_voxel_with_and_without_the_crf(tmp_path, studies, spec):
    checkpoint = published(studies, spec)
    scans = write_scans(tmp_path / "scans")
    bundle = tmp_path / "my bundle"

    assert main([str(studies), str(bundle)]) == 0
    run_bundle(bundle, tmp_path / "scans", tmp_path / "with")
    run_bundle(bundle, tmp_path / "scans", tmp_path / "without", "--crf", "False")

    model = load_checkpoint(checkpoint)
    changed = 0
    for path in scans:
        masks = {folder: server_mask(model, path, crf=folder == "with") for folder in ("with", "without")}
        changed += np.count_nonzero(masks["with"] != masks["without"])
        for folder, expected in masks.items():
            written = nib.load(tmp_path / folder / f"{path.name.partition('.')[0]}.nii.gz")
            np.testing.assert_array_equal(np.asarray(written.dataobj), expected)
            np.testing.assert_allclose(written.affine, load_volume(path).geometry.affine_ras, atol=1e-4)
            assert {1, 2} <= set(np.unique(expected))
    assert changed


def test_bundle_uses_the_crf_only_where_the_training_chose_it(tmp_path, studies):
    model = load_checkpoint(published(studies, crf=False))
    path, _ = write_scans(tmp_path / "scans")

    assert main([str(studies), str(tmp_path / "bundle")]) == 0
    run_bundle(tmp_path / "bundle", tmp_path / "scans", tmp_path / "masks")

    written = nib.load(tmp_path / "masks" / "mirrored.nii.gz")
    np.testing.assert_array_equal(np.asarray(written.dataobj), server_mask(model, path, crf=False))
    digest = hashlib.sha256((studies / "model" / "inextremis.pt").read_bytes()).hexdigest()
    assert written.header["descrip"].item().decode() == f"InExtremIS model 1, SHA-256 {digest[:32]}"


def test_bundle_without_scans_says_so(tmp_path, studies):
    published(studies)
    main([str(studies), str(tmp_path / "bundle")])

    with pytest.raises(AssertionError, match="name a folder of scans with --dataset_dir"):
        run_bundle(tmp_path / "bundle", tmp_path / "nowhere", tmp_path / "masks")


def test_bundle_is_one_by_monais_own_check_and_holds_weights_only(tmp_path, studies):
    published(studies)
    main([str(studies), str(bundle := tmp_path / "bundle")])

    command = [sys.executable, "-m", "monai.bundle", "verify_net_in_out", "network_def", "--device", "cpu"]
    command += ["--meta_file", "configs/metadata.json", "--config_file", "configs/inference.json"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    answer = subprocess.run(command, cwd=bundle, env=environment, capture_output=True, text=True)

    assert answer.returncode == 0, answer.stderr
    weights = torch.load(bundle / "models" / "model.pt", weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in weights.values())
    sources = [path.read_text() for path in bundle.rglob("*.py")]
    assert not any(line.lstrip().startswith(("from lib", "import lib")) for s in sources for line in s.splitlines())


def test_metadata_says_what_the_model_is_made_from(tmp_path, studies):
    checkpoint = published(studies)
    recorded(studies, trained_on=("one", "four"))
    clicked(studies, "one", "anna")
    clicked(studies, "one", "replaced anna later", AFTER)
    clicked(studies, "two", "held out, so not learnt from")
    info = {DECISION_KEY: {"reader": "carl"}, "accepted": {"lesion": {"annotator": "dora"}}}
    masked(studies, "four", "bert", info=info)
    masked(studies, "four", "unknown")

    main([str(studies), str(tmp_path / "bundle")])

    content = json.loads((tmp_path / "bundle" / "configs" / "metadata.json").read_text())
    said = content["inextremis"]
    assert said["software"] == {"name": "InExtremIS", "version": VERSION}
    assert said["model"]["version"] == 1
    assert said["model"]["sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert said["labels"] == {"lesion": 1, "cyst": 2}
    assert said["spacing_mm"] == [1, 1, 2] and "percentiles 0.5 and 99.5" in said["normalisation"]
    assert said["training"]["annotators"] == ["anna", "bert", "carl", "dora"]
    assert said["training"]["studies"] == 2 and said["training"]["ended"].startswith("2026-11-01T11")
    assert said["training"]["score"] == 0.81
    assert said["training"]["score_of"] == {"studies": 2, "kind": "held-out"}
    assert content["network_data_format"]["outputs"]["pred"]["channel_def"]["2"] == "cyst"
    assert '"four"' not in json.dumps(content)


def logits(network, patches):
    with torch.inference_mode():
        return network(torch.from_numpy(patches)).numpy()


SPECS = pytest.mark.parametrize("spec", [PAPERS, SEGRESNET, DYNUNET], ids=["UNet2d5", "SegResNet", "DynUNet"])


@SPECS
@pytest.mark.parametrize("n_patches", [1, 3])
def test_onnx_gives_the_logits(tmp_path, studies, spec, n_patches):
    network = load_checkpoint(published(studies, spec)).network
    patches = np.random.default_rng(1).normal(size=(n_patches, 1, *spec.roi_size)).astype(np.float32)

    assert main([str(studies), str(tmp_path / "model.onnx"), "--format", "onnx"]) == 0

    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    found = session.run(["logits"], {"image": patches})[0]
    assert found.shape == (n_patches, 3, *spec.roi_size)
    np.testing.assert_allclose(found, logits(network, patches), rtol=0, atol=1e-4)


@SPECS
def test_torchscript_gives_the_logits(tmp_path, studies, spec):
    network = load_checkpoint(published(studies, spec)).network
    patches = np.random.default_rng(1).normal(size=(2, 1, *spec.roi_size)).astype(np.float32)

    assert main([str(studies), str(tmp_path / "model.ts"), "--format", "torchscript"]) == 0

    found = logits(torch.jit.load(tmp_path / "model.ts"), patches)
    np.testing.assert_allclose(found, logits(network, patches), rtol=0, atol=1e-4)


def test_onnx_of_a_large_window_is_as_exact_as_of_a_small_one(tmp_path, studies):
    spec = NetworkSpec.plan(("lesion",), (0.5, 0.5, 1.5), (224, 224, 48), levels=3, base_channels=4)
    network = load_checkpoint(published(studies, spec)).network
    patch = np.random.default_rng(1).normal(size=(1, 1, *spec.roi_size)).astype(np.float32)

    assert main([str(studies), str(tmp_path / "model.onnx"), "--format", "onnx"]) == 0

    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    found = session.run(["logits"], {"image": patch})[0]
    np.testing.assert_allclose(found, logits(network, patch), rtol=0, atol=1e-4)


def test_files_of_all_formats_say_the_same_of_the_model(tmp_path, studies):
    published(studies)
    recorded(studies)
    clicked(studies, "one", "anna")

    for form in ("bundle", "onnx", "torchscript"):
        assert main([str(studies), str(tmp_path / form), "--format", form]) == 0

    bundle = json.loads((tmp_path / "bundle" / "configs" / "metadata.json").read_text())["inextremis"]
    (told,) = onnx.load(tmp_path / "onnx").metadata_props
    _, in_torchscript, _ = load_net_with_metadata(str(tmp_path / "torchscript"))
    assert (told.key, json.loads(told.value)) == ("inextremis", bundle)
    assert {name: in_torchscript[name] for name in bundle} == bundle
    assert bundle["training"]["annotators"] == ["anna"]


def test_version_that_is_not_published_is_exported_by_its_number(tmp_path, studies, capsys):
    first = published(studies)
    published(studies, seed=1)

    assert main([str(studies), str(tmp_path / "first"), "--version", "1"]) == 0

    weights = torch.load(tmp_path / "first" / "models" / "model.pt", weights_only=True)
    expected = load_checkpoint(first).network.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in expected.items())
    said = json.loads((tmp_path / "first" / "configs" / "metadata.json").read_text())["inextremis"]
    assert said["model"]["version"] == 1 and said["training"]["annotators"] is None
    assert "Its training is not in the record" in capsys.readouterr().out
    (record,) = last_records(Project(studies).audit, 5)
    assert (record.action, record.of) == ("export of the model", "version: 1; format: bundle")


def test_version_that_is_not_kept_is_refused(tmp_path, studies, capsys):
    published(studies)

    assert main([str(studies), str(tmp_path / "out"), "--version", "7"]) == 2

    assert "There is no version 7" in (said := capsys.readouterr().err) and "these are kept: 1" in said
    assert not (tmp_path / "out").exists()


def test_project_without_a_model_is_refused(tmp_path, studies, capsys):
    assert main([str(studies), str(tmp_path / "out")]) == 2

    assert "There is no model" in capsys.readouterr().err


def test_broken_model_is_refused(tmp_path, studies, capsys):
    published(studies)
    (studies / "model" / "inextremis.pt").write_bytes(b"half a mod")

    assert main([str(studies), str(tmp_path / "out")]) == 2

    assert "The model inextremis.pt cannot be used" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["bundle", "onnx"])
def test_what_is_there_is_left(tmp_path, studies, capsys, form):
    published(studies)
    (tmp_path / "out").write_text("mine")

    assert main([str(studies), str(tmp_path / "out"), "--format", form]) == 2

    assert (tmp_path / "out").read_text() == "mine"
    assert "delete it, or give another place" in capsys.readouterr().err


def test_bundle_is_whole_or_not_there(tmp_path, studies, monkeypatch, capsys):
    published(studies)
    monkeypatch.setattr(os, "fsync", full_after(3))

    assert main([str(studies), str(tmp_path / "place" / "out")]) == 2

    assert list((tmp_path / "place").iterdir()) == []
    assert "cannot be written" in (said := capsys.readouterr().err) and "No space left on device" in said


def test_network_that_no_graph_can_hold_is_refused(tmp_path, studies, monkeypatch, capsys):
    published(studies)
    monkeypatch.setattr("lib.modelexport.graph_files.LARGEST_DIFFERENCE", -1.0)

    assert main([str(studies), str(tmp_path / "out"), "--format", "onnx"]) == 2

    assert "use --format bundle" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_path_is_relative_to_the_caller(tmp_path, studies, monkeypatch):
    published(studies)
    monkeypatch.chdir(tmp_path)

    assert main([str(studies), "model.onnx", "--format", "onnx"]) == 0

    assert (tmp_path / "model.onnx").is_file()
