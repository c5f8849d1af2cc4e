"""The net that is shipped, and its file."""

import numpy as np
import pytest
import torch

from lib.clickmask.structure_net import (
    FEATURES,
    MAX_DEVIATIONS,
    WEIGHTS,
    StructureNet,
    StructureNetError,
    shipped,
)
from lib.clickmask.voxel_features import StructureNumbers, VoxelFeatures, VoxelMaps

N_MAPS = len(VoxelMaps._fields)


@pytest.fixture
def net(rng):
    sizes = (len(FEATURES), 5, 4, 1)
    layers = list(zip(sizes, sizes[1:], strict=False))
    return StructureNet(
        rng.normal(size=len(FEATURES)).astype(np.float32),
        (1 + rng.random(len(FEATURES))).astype(np.float32),
        tuple(rng.normal(size=(m, n)).astype(np.float32) for n, m in layers),
        tuple(rng.normal(size=m).astype(np.float32) for _, m in layers),
    )


def some_features(rng, shape=(31, 32, 33)):
    maps = VoxelMaps(*rng.normal(0, 3, (N_MAPS, *shape)).astype(np.float32))
    return VoxelFeatures(maps, StructureNumbers(*rng.normal(size=len(StructureNumbers._fields))))


def test_log_odds_are_those_of_a_perceptron(net, rng):
    """As torch computes them, over more voxels than are done at once."""
    features = some_features(rng)
    voxels = np.stack([volume.ravel() for volume in features.maps], axis=1)
    together = np.concatenate([voxels, np.broadcast_to(features.numbers, (len(voxels), len(features.numbers)))], axis=1)
    layer = torch.from_numpy(np.clip((together - net.mean) / net.deviation, -MAX_DEVIATIONS, MAX_DEVIATIONS)).float()
    for n, (weight, bias) in enumerate(zip(net.weights, net.biases, strict=True)):
        layer = torch.nn.functional.linear(layer.relu() if n else layer, *map(torch.from_numpy, (weight, bias)))

    log_odds = net.log_odds(features)

    assert log_odds.dtype == np.float32
    np.testing.assert_allclose(log_odds, layer.numpy().reshape(log_odds.shape), atol=1e-3)


def test_a_file_gives_the_same_net(net, rng, tmp_path):
    features = some_features(rng, (4, 5, 6))

    net.save(tmp_path / "net.npz")

    np.testing.assert_array_equal(StructureNet.load(tmp_path / "net.npz").log_odds(features), net.log_odds(features))


def test_the_shipped_file_is_small_and_holds_plain_numbers():
    assert WEIGHTS.stat().st_size < 20_000
    with np.load(WEIGHTS, allow_pickle=False) as stored:
        for name in stored.files:
            assert stored[name].dtype.kind in "fiU" and (
                stored[name].dtype.kind == "U" or np.isfinite(stored[name]).all()
            )
    assert shipped() is shipped()


@pytest.mark.parametrize(
    ("name", "array", "sentence"),
    [
        ("features", np.array(["age", "weight"]), r"for the features \('age', 'weight'\); train it for"),
        ("mean", np.array([print], dtype=object), "holds no network"),  # pickled
    ],
)
def test_a_file_for_other_features_or_with_a_pickle_is_refused(net, tmp_path, name, array, sentence):
    net.save(tmp_path / "net.npz")
    with np.load(tmp_path / "net.npz") as stored:
        arrays = dict(stored)
    np.savez(tmp_path / "net.npz", **(arrays | {name: array}))

    with pytest.raises(StructureNetError, match=sentence):
        StructureNet.load(tmp_path / "net.npz")


@pytest.mark.parametrize("content", [None, b"no archive", b"PK\x03\x04cut off"])
def test_a_file_that_is_none_is_refused(content, tmp_path):
    path = tmp_path / "net.npz"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(StructureNetError, match="holds no network.*restore the file"):
        StructureNet.load(path)
