"""Where a training starts: at one that was interrupted, at the published network, or at nothing."""

import pytest
import torch

from lib.networks.checkpoint import TrainedModel, TrainingState, save_checkpoint
from lib.networks.spec import NetworkSpec
from lib.trainers.starting_point import StartingPoint


def spec(labels=("lesion",), levels=2, spacing_mm=(1.0, 1.0, 1.0)):
    return NetworkSpec.plan(labels, spacing_mm, (16, 16, 16), levels, 2)


@pytest.fixture
def paths(tmp_path):
    return tmp_path / "inextremis.pt", tmp_path / "unfinished.pt"


def save(path, version, iterations, progress=0.0, of=None):
    of = of or spec()
    network = of.build()
    save_checkpoint(path, TrainedModel(of, network, version), TrainingState({"state": {}}, iterations, progress))
    return network


def start(paths, pretrained=True, spacing_mm=(1.0, 1.0, 1.0), **wanted):
    return StartingPoint.find(
        lambda spacing_mm: spec(**wanted, spacing_mm=spacing_mm), spacing_mm, *paths, pretrained=pretrained
    )


def same_weights(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_nothing_there(paths):
    found = start(paths)

    assert (found.published, found.state) == (None, None)


def test_published_network_is_gone_on_from(paths):
    network = save(paths[0], version=3, iterations=700)

    found = start(paths)

    assert same_weights(found.network, network)
    assert (found.published.version, found.state.iterations) == (3, 700)


def test_training_does_not_change_the_published_network_that_it_is_compared_with(paths):
    save(paths[0], version=3, iterations=700)
    found = start(paths)

    with torch.no_grad():
        next(found.network.parameters()).add_(1)

    assert not same_weights(found.network, found.published.network)


@pytest.mark.parametrize("version", [0, 3])
def test_interrupted_training_goes_on(paths, version):
    if version:
        save(paths[0], version, iterations=700)
    network = save(paths[1], version, iterations=760, progress=0.25)

    found = start(paths)

    assert same_weights(found.network, network)
    assert (found.state.iterations, found.state.progress) == (760, 0.25)


def test_one_that_started_from_another_version_is_left_aside(paths):
    """As after a roll-back."""
    network = save(paths[0], version=2, iterations=500)
    save(paths[1], version=3, iterations=760, progress=0.25)

    assert same_weights(start(paths).network, network)


def test_other_network_is_left_aside_but_still_compared_with(paths, caplog):
    save(paths[0], version=3, iterations=700)

    found = start(paths, levels=3)

    assert found.state is None
    assert found.published.version == 3
    assert "another network; the training starts from nothing" in caplog.text


def test_other_labels_are_left_aside(paths, caplog):
    save(paths[0], version=3, iterations=700)

    found = start(paths, labels=("cyst",))

    assert (found.published, found.state) == (None, None)
    assert "has other labels" in caplog.text


@pytest.mark.parametrize("spacing_mm", [(1.1, 1.1, 1.1), (1.0, 1.0, 6.5)])
def test_grid_of_the_published_network_stays(paths, spacing_mm):
    """Scans of thick slices would be planned with other kernels, whose weights do not fit."""
    network = save(paths[0], version=3, iterations=700)

    found = start(paths, spacing_mm=spacing_mm)

    assert found.spec.spacing_mm == (1.0, 1.0, 1.0)
    assert same_weights(found.network, network)


def test_network_that_starts_from_nothing_has_the_grid_of_the_scans(paths):
    assert start(paths, spacing_mm=(1.0, 1.0, 6.5)).spec == spec(spacing_mm=(1.0, 1.0, 6.5))


@pytest.mark.parametrize("which", [0, 1])
def test_broken_file_is_named_and_done_without(paths, caplog, which):
    paths[which].write_bytes(b"half a mod")

    assert start(paths).state is None
    assert f"{paths[which].name} cannot be used" in caplog.text


def test_start_from_nothing_where_that_is_asked_for(paths):
    network = save(paths[0], version=3, iterations=700)
    save(paths[1], version=3, iterations=760, progress=0.25)

    found = start(paths, pretrained=False)

    assert found.state is None
    assert not same_weights(found.network, network)
    assert found.published.version == 3
