"""Send an annotator's requests for the one label of the app to a running server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import requests

from benchmarks.evidence.dataset import LABEL
from benchmarks.evidence.training import write_mask
from lib.annotations.extreme_points import ExtremePoints
from lib.geometry.volume import Volume, load_volume

TIMEOUT_S = 600
ANNOTATOR = "scripted annotator"


class ServedAppError(RuntimeError):
    """The server refused a request, or a training failed; its text is the server's."""


class ServedApp:
    """A server at an address.

    Args:
        scratch: folder for files of masks on their way.
    """

    def __init__(self, url: str, scratch: Path) -> None:
        self.url, self.scratch = url, scratch

    def click_mask(self, image: str, points: ExtremePoints) -> np.ndarray:
        """Send clicks, which the server stores, and return their mask (X, Y, Z) bool."""
        clicks = {LABEL: points.foreground_voxel.tolist(), "background": points.background_voxel.tolist()}
        return self._mask("extreme_points", image, {**clicks, "client_id": ANNOTATOR})

    def accept(self, image: str) -> None:
        """Accept the click mask that was shown last."""
        self._ask("POST", f"/annotations/{image}/accept", json={"client_id": ANNOTATOR})

    def submit(self, image: str, mask: Volume) -> None:
        """Upload a mask (X, Y, Z) bool that was drawn by hand as the image's final mask."""
        path = self.scratch / f"{image}.nii.gz"
        write_mask(path, mask.array, mask.geometry)
        query = {"image": image, "tag": "final"}
        form = {"params": json.dumps({"client_id": ANNOTATOR})}
        self._ask("PUT", "/datastore/label", params=query, data=form, files={"label": (path.name, path.read_bytes())})

    def automatic_mask(self, image: str) -> np.ndarray:
        """Return the mask (X, Y, Z) bool of the published network."""
        return self._mask("inextremis", image, {})

    def model_version(self, image: str) -> int | None:
        """Return the version of the published network in the answer on an image; None before the first."""
        query = {"image": image, "output": "json"}
        answer = requests.post(f"{self.url}/infer/inextremis", params=query, timeout=TIMEOUT_S)
        if answer.status_code == 409:
            return None
        version: int | None = _checked(answer).json()["model_version"]
        return version

    def start_training(self) -> None:
        self._ask("POST", "/train/inextremis", json={})

    def is_training(self) -> bool:
        """Check the end of the training. Raises: ServedAppError: it failed."""
        task: dict[str, Any] = self._ask("GET", "/train/").json()
        if task["status"] in ("SUBMITTED", "RUNNING"):
            return True
        if task["status"] != "DONE":
            raise ServedAppError("\n".join([f"The training ended as {task['status']}:", *task["details"]]))
        return False

    def _mask(self, model: str, image: str, parameters: dict[str, Any]) -> np.ndarray:
        form = {"params": json.dumps({**parameters, "result_extension": ".nii.gz"})}
        answer = self._ask("POST", f"/infer/{model}", params={"image": image, "output": "image"}, data=form)
        path = self.scratch / "answer.nii.gz"
        path.write_bytes(answer.content)
        return np.asarray(load_volume(path, sentinels=False).array > 0)

    def _ask(self, method: str, path: str, **request: Any) -> requests.Response:
        return _checked(requests.request(method, self.url + path, timeout=TIMEOUT_S, **request))


def _checked(answer: requests.Response) -> requests.Response:
    if not answer.ok:
        raise ServedAppError(f"{answer.request.method} {answer.request.path_url}: {answer.status_code}, {answer.text}")
    return answer
