"""Starting point of a training: an interrupted training, the published network, or an untrained one."""

import pytest
import torch

from lib.networks.checkpoint import TrainedModel, TrainingState, save_checkpoint
from lib.networks.spec import NetworkSpec
from lib.training.starting_point import StartingPoint
from tests.training.phantoms import spec, untrained


@pytest.fixture
def paths(tmp_path):
    return tmp_path / "inextremis.pt", tmp_path / "unfinished.pt"


def save(path, version, iterations, progress=0.0, seed=7, **kinds):
    model = untrained(seed, version, **kinds)
    save_checkpoint(path, model, TrainingState({"state": {}}, iterations, progress))
    return model.network


def start(paths, pretrained=True, spacing_mm=(1.0, 1.0, 1.0), **planned):
    return StartingPoint.find(
        lambda spacing_mm: spec(**planned, spacing_mm=spacing_mm), spacing_mm, *paths, pretrained=pretrained
    )


def same_weights(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_without_models_the_network_is_untrained(paths):
    found = start(paths, spacing_mm=(1.0, 1.0, 6.5))

    assert (found.base, found.state) == (0, None)
    assert found.spec == spec(spacing_mm=(1.0, 1.0, 6.5))


def test_published_network_is_continued(paths):
    network = save(paths[0], version=3, iterations=700)

    found = start(paths)

    assert same_weights(found.network, network)
    assert (found.base, found.state.iterations) == (3, 700)


@pytest.mark.parametrize("version", [0, 3])
def test_interrupted_training_is_continued(paths, version):
    if version:
        save(paths[0], version, iterations=700)
    network = save(paths[1], version, iterations=760, progress=0.25, seed=8)

    found = start(paths)

    assert same_weights(found.network, network)
    assert (found.base, found.state.iterations, found.state.progress) == (version, 760, 0.25)


def test_interrupted_training_from_another_version_is_ignored(paths):
    network = save(paths[0], version=2, iterations=500)
    save(paths[1], version=3, iterations=760, progress=0.25, seed=8)

    assert same_weights(start(paths).network, network)


@pytest.mark.parametrize("interrupted", [False, True])
@pytest.mark.parametrize("roi_size", [(32, 16, 16), (8, 8, 8)])
def test_size_of_patches_is_the_planned_one(paths, interrupted, roi_size):
    network = save(paths[0], version=3, iterations=700)
    if interrupted:
        network = save(paths[1], version=3, iterations=760, progress=0.25, seed=8)

    found = start(paths, roi_size=roi_size)

    assert found.spec.roi_size == roi_size
    assert same_weights(found.network, network)


@pytest.mark.parametrize("planned", [{"levels": 3}, {"labels": ("cyst",)}, {"labels": ("lesion", "cyst")}])
def test_models_of_another_network_or_other_labels_are_ignored(paths, caplog, planned):
    save(paths[0], version=3, iterations=700)
    save(paths[1], version=3, iterations=760, progress=0.25, seed=8)

    found = start(paths, **planned)

    assert found.state is None
    assert found.spec == spec(**planned)
    assert found.base == 3
    assert "The published model has other labels, or is another network; it is not trained on." in caplog.text


@pytest.mark.parametrize(("dropout", "is_continued"), [(0.0, True), (0.5, False)])
def test_other_arguments_are_another_network_although_its_weights_fit(paths, dropout, is_continued):
    def of_monai(dropout):
        arguments = {"channels": [2, 4, 8], "strides": [2, 2], "dropout": dropout}
        return NetworkSpec.of_monai(("lesion",), (1.0, 1.0, 1.0), (16, 16, 16), "UNet", arguments)

    published = of_monai(0.0)
    save_checkpoint(paths[0], TrainedModel(published, published.build(), 3), TrainingState({"state": {}}, 700))

    found = StartingPoint.find(lambda _: of_monai(dropout), (1.0, 1.0, 1.0), *paths, pretrained=True)

    assert (found.state is not None) is is_continued
    assert found.spec.arguments["dropout"] == dropout


@pytest.mark.parametrize("spacing_mm", [(1.1, 1.1, 1.1), (1.0, 1.0, 6.5)])
def test_published_network_keeps_its_grid(paths, spacing_mm):
    network = save(paths[0], version=3, iterations=700)

    found = start(paths, spacing_mm=spacing_mm)

    assert found.spec.spacing_mm == (1.0, 1.0, 1.0)
    assert same_weights(found.network, network)


@pytest.mark.parametrize("which", [0, 1])
def test_broken_file_is_logged_and_ignored(paths, caplog, which):
    paths[which].write_bytes(b"half a mod")

    found = start(paths)

    assert (found.base, found.state) == (0, None)
    assert f"{paths[which].name} cannot be used" in caplog.text


def test_untrained_network_on_request(paths):
    published = save(paths[0], version=3, iterations=700)
    interrupted = save(paths[1], version=3, iterations=760, progress=0.25, seed=8)

    found = start(paths, pretrained=False)

    assert (found.base, found.state) == (3, None)
    assert not same_weights(found.network, published)
    assert not same_weights(found.network, interrupted)
