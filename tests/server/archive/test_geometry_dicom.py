"""A click reaches the voxel under the mouse and the mask comes back there, however a series is acquired and stored.

An object unlike its mirror images lies where the headers say; its place is compared with that of the stored clicks
and of the returned mask, in millimetres.
"""

import itertools

import numpy as np
import pytest

from lib.demo.dicom import upload
from lib.demo.orthanc import Orthanc
from tests.installed import need_orthanc
from tests.physical import (
    ORDERS,
    PLANES,
    assert_same_place,
    extreme_voxels,
    header_lps_mm,
    mask_lps_mm,
    object_lps_mm,
    read_mask,
    series,
)
from tests.server.archive.archive_server import Archive
from tests.server.asking import infer

# Every plane and every order; tests/geometry/test_dicom_series.py reads each plane in each order.
CASES = [*zip(PLANES, itertools.cycle(ORDERS), strict=False), ("axial", "descending"), ("axial", "shuffled")]


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    need_orthanc()
    root = tmp_path_factory.mktemp("archive")
    with Orthanc(root / "orthanc") as orthanc:
        for plane, order in CASES:
            upload(orthanc.dicomweb_url, series(plane, order))
        for fault, spoil in FAULTS.items():
            upload(orthanc.dicomweb_url, spoil(series(series=fault)))
        yield Archive(orthanc, root)


@pytest.fixture(scope="module")
def server(archive):
    with archive.server() as server:
        yield server


def stacked_by_position(instances):
    """As OHIF stacks them: by position along the cross product of row and column direction."""
    normal = np.cross(*np.array(instances[0].ImageOrientationPatient, dtype=float).reshape(2, 3))
    return sorted(instances, key=lambda instance: np.array(instance.ImagePositionPatient, dtype=float) @ normal)


def clicks_on(stack):
    """Voxel indices (column, row, slice) of the object's extreme points, and where the headers place them."""
    clicks = extreme_voxels(np.stack([instance.pixel_array.T > 500 for instance in stack], axis=-1))
    return clicks, [header_lps_mm(stack[k], row, column).tolist() for column, row, k in clicks]


@pytest.mark.parametrize(("plane", "order"), CASES)
def test_clicks_and_mask_lie_where_the_headers_say(archive, server, tmp_path, plane, order):
    instances = series(plane, order)
    uid = instances[0].SeriesInstanceUID
    clicks, clicks_mm = clicks_on(stacked_by_position(instances))

    answer = infer(server, uid, {"lesion": clicks, "background": []})

    stored = archive.annotation(uid)
    stored_mm = stored.geometry.voxel_to_lps(stored.points.foreground_voxel)
    assert stored.points.foreground_voxel.tolist() == clicks
    np.testing.assert_allclose(stored_mm, clicks_mm, atol=0.01)
    assert_same_place(mask_lps_mm(read_mask(answer, tmp_path)), object_lps_mm(instances))


@pytest.mark.parametrize(("plane", "order"), CASES[-3:])
def test_clicks_in_millimetres_reach_the_same_voxels(archive, server, plane, order):
    instances = series(plane, order)
    uid = instances[0].SeriesInstanceUID
    clicks, clicks_mm = clicks_on(stacked_by_position(instances))

    infer(server, uid, {"cyst": clicks_mm, "coordinates": "lps"})

    assert archive.annotation(uid, "cyst").points.foreground_voxel.tolist() == clicks


def tilted(instances):
    for n, instance in enumerate(instances):
        x, y, z = instance.ImagePositionPatient
        instance.ImagePositionPatient = [x, f"{y + n * 2.5 * np.tan(np.radians(15)):.6f}", z]
    return instances


def gapped(instances):
    return [instance for n, instance in enumerate(instances) if n != 4]


FAULTS = {"tilted gantry": tilted, "missing slice": gapped}
SENTENCES = {
    "tilted gantry": "The slices of the series are tilted, and OHIF shows and clicks them as if they were not.",
    "missing slice": "unevenly spaced, from 2.50 to 5.00 mm",
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("model", ["extreme_points", "inextremis"])
def test_series_that_is_no_even_grid_is_refused(archive, server, fault, model):
    uid = series(series=fault)[0].SeriesInstanceUID

    answer = infer(server, uid, {"lesion": [[4, 6, 4]] * 6}, model=model)

    assert answer.status_code == 422
    assert SENTENCES[fault] in answer.json()["detail"]
    assert not archive.volume(uid).exists()
