"""Atlases as a file: what was saved comes back, and nothing else does."""

import numpy as np
import pytest

from lib.clickmask.atlas_file import load_atlases, save_atlases
from lib.clickmask.box_frame import SIDE
from lib.clickmask.shape_atlas import Shape, ShapeAtlas
from tests.clickmask.bodies import lopsided

LABELS = ("lesion", "left/../kidney", "Léber 2")


@pytest.fixture
def atlases():
    shapes = [Shape.of_mask(lopsided(scale=scale), np.eye(4)) for scale in (0.8, 1.0)]
    return {
        label: ShapeAtlas.mean_of(shapes, weight, mirrors=weight > 1)
        for label, weight in zip(LABELS, (0, 1, 2), strict=True)
    }


def test_what_was_saved_comes_back(tmp_path, atlases):
    save_atlases(tmp_path / "atlases.npz", atlases, {label: [f"image of {label}"] for label in LABELS})

    found = load_atlases(tmp_path / "atlases.npz")
    assert {label: images for label, (_, images) in found.items()} == {label: [f"image of {label}"] for label in LABELS}
    for label, (atlas, _) in found.items():
        np.testing.assert_array_equal(atlas.mean, atlases[label].mean)
        np.testing.assert_array_equal(atlas.extremes, atlases[label].extremes)
        for name in ("weight", "count", "mirrors"):
            assert getattr(atlas, name) == getattr(atlases[label], name)


def test_no_atlases_take_the_place_of_old_ones(tmp_path, atlases):
    save_atlases(tmp_path / "atlases.npz", atlases, dict.fromkeys(LABELS, []))
    save_atlases(tmp_path / "atlases.npz", {}, {})

    assert load_atlases(tmp_path / "atlases.npz") == {}


def test_without_a_file_there_are_none(tmp_path, caplog):
    assert load_atlases(tmp_path / "atlases.npz") == {} and not caplog.text


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def pickled(path):
    np.savez(path, figures=np.array([{"label": "lesion"}], dtype=object))


def with_mean(mean):
    def damage(path):
        with np.load(path) as file:
            arrays = dict(file)
        np.savez(path, **{**arrays, "mean_1": mean})

    return damage


not_finite, of_another_size = with_mean(np.full((SIDE,) * 3, np.nan)), with_mean(np.zeros((4, 4, 4)))


@pytest.mark.parametrize("damage", [cut, pickled, of_another_size, not_finite, lambda path: path.write_bytes(b"text")])
def test_file_that_cannot_be_used_is_told_and_left_out(tmp_path, atlases, damage, caplog):
    save_atlases(tmp_path / "atlases.npz", atlases, dict.fromkeys(LABELS, []))
    damage(tmp_path / "atlases.npz")

    assert load_atlases(tmp_path / "atlases.npz") == {}
    assert "cannot be read" in caplog.text
