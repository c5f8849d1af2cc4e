from itertools import count

import pytest

from lib.demo.local_server import LocalServer
from tests.exchange.studies import write_studies, write_volume
from tests.physical import l_shape
from tests.server.review.reading import AFFINES, Site, settings

NUMBERS = count()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    root = tmp_path_factory.mktemp("readings")
    studies = write_studies(root / "studies", ["straight"])
    with LocalServer(studies, settings(root), root / "server.log") as server:
        yield Site(server, studies)


@pytest.fixture(scope="module")
def people(site):
    return {name: site.person(name) for name in ("uma", "anna", "bert", "carl", "rené", "rita", "ada")}


@pytest.fixture
def image(site):
    """Study that nobody has read."""
    name = f"scan {next(NUMBERS)}"
    AFFINES[name] = AFFINES["oblique"]
    array = l_shape()
    array[0, 0, 0] = next(NUMBERS)  # no other image has these voxels
    write_volume(site.studies / f"{name}.nii.gz", array, AFFINES[name])
    return name
