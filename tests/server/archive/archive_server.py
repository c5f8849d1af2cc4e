"""A DICOMweb archive with a server process on it."""

from dataclasses import dataclass
from pathlib import Path

from lib.annotations.store import AnnotationStore
from lib.demo.local_server import LocalServer
from lib.demo.orthanc import Orthanc
from lib.server.project import Project

# On the object of tests.physical.series, whatever its planes.
CLICKS = [[4, 6, 4], [16, 6, 4], [5, 5, 6], [5, 16, 8], [10, 6, 3], [5, 14, 9]]


@dataclass
class Archive:
    orthanc: Orthanc
    root: Path

    def server(self, name="server", conf=None, **environment):
        conf = {"labels": "lesion,cyst", "model_dir": str(self.root / "model"), **(conf or {})}
        environment = {"MONAI_LABEL_DICOMWEB_CACHE_PATH": str(self.root / "cache"), **environment}
        return LocalServer(self.orthanc.dicomweb_url, conf, self.root / f"{name}.log", environment=environment)

    @property
    def project(self):
        (folder,) = (self.root / "cache").iterdir()
        return Project(folder)

    def volume(self, uid):
        return self.project.folder / "cache" / "volumes" / f"{uid}.nii.gz"

    def annotation(self, uid, label="lesion"):
        return AnnotationStore(self.project.clicks).load(uid, label)
