import pytest

from lib.demo.orthanc import Orthanc
from tests.installed import need_orthanc
from tests.server.archive.archive_server import Archive


@pytest.fixture(scope="module")
def archive(request, tmp_path_factory):
    """An Orthanc for the tests of one file, which asks for the module's `LOGIN` if it has one."""
    need_orthanc()
    root = tmp_path_factory.mktemp("archive")
    with Orthanc(root / "orthanc", login=getattr(request.module, "LOGIN", None)) as orthanc:
        yield Archive(orthanc, root)
