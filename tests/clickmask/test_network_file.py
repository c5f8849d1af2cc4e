"""Click networks as a file: what was saved comes back, and nothing else does."""

import pickle

import numpy as np
import pytest
import torch

from lib.clickmask.click_network import INPUTS, ClickNetwork
from lib.clickmask.network_file import StoredNetwork, load_networks, save_networks

LABELS = ("lesion", "left/../kidney")


@pytest.fixture
def networks():
    torch.manual_seed(0)
    stored = {label: StoredNetwork(ClickNetwork().eval(), (f"scan of {label}", "two")) for label in LABELS}
    for of in stored.values():
        torch.nn.init.normal_(of.network.out.weight)
    return stored


def test_what_was_saved_comes_back(tmp_path, networks):
    save_networks(tmp_path / "networks.pt", networks)

    found = load_networks(tmp_path / "networks.pt")
    assert {label: of.images for label, of in found.items()} == {label: of.images for label, of in networks.items()}
    inputs = np.random.default_rng(0).normal(size=(INPUTS, 8, 8, 8)).astype(np.float32)
    for label in LABELS:
        expected = networks[label].network.correction(inputs)
        np.testing.assert_allclose(found[label].network.correction(inputs), expected, atol=1e-5)
    assert (tmp_path / "networks.pt").stat().st_size < 2 * 400_000


def test_without_a_file_there_are_none(tmp_path, caplog):
    assert load_networks(tmp_path / "networks.pt") == {} and not caplog.text


class Harmful:
    def __reduce__(self):
        return exec, ("raise SystemExit('code of a file was run')",)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1000])


def pickled(path):
    path.write_bytes(pickle.dumps({"lesion": Harmful()}))


def of_another_network(path):
    torch.save({"lesion": {"weights": torch.nn.Conv3d(1, 1, 1).state_dict(), "images": []}}, path)


def infinite(path):
    content = torch.load(path, weights_only=True)
    content["lesion"]["weights"]["out.weight"] *= torch.inf
    torch.save(content, path)


@pytest.mark.parametrize("damage", [cut, pickled, of_another_network, infinite])
def test_file_that_cannot_be_used_is_told_and_left_out(tmp_path, networks, damage, caplog):
    save_networks(tmp_path / "networks.pt", networks)
    damage(tmp_path / "networks.pt")

    assert load_networks(tmp_path / "networks.pt") == {}
    assert "cannot be read" in caplog.text
