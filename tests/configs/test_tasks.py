"""The tasks of the app, made from its settings."""

from types import SimpleNamespace

import numpy as np

from lib.annotations.extreme_points import ExtremePoints
from lib.annotations.store import Absence, Annotation, AnnotationStore
from lib.configs.settings import AppSettings
from lib.configs.tasks import auto_train
from lib.geometry.image_geometry import ImageGeometry
from lib.training.model_folder import ModelFolder

GEOMETRY = ImageGeometry((10, 9, 8), np.eye(4))
CLICKS = np.array([[1, 4, 4], [8, 4, 4], [4, 1, 4], [4, 7, 4], [4, 4, 1], [4, 4, 6]])


def test_trainings_that_start_by_themselves_count_clicks_and_absent_labels_from_before_the_start(tmp_path):
    store, started = AnnotationStore(tmp_path), []
    store.save(Annotation.now("scan", ExtremePoints.from_clicks("lesion", CLICKS), GEOMETRY, "reader"))
    store.save(Absence.now("scan", "cyst", GEOMETRY, "reader"))
    trainers = {"inextremis": SimpleNamespace(models=ModelFolder(tmp_path))}

    counting = auto_train(AppSettings(auto_train=3), store, trainers, lambda *task, **how: started.append(task))
    counting.annotated("scan.lesion.json")
    assert started == []
    counting.annotated("other.lesion.json")

    assert started == [("inextremis", {})]
