"""The annotation page in a headless browser, worked by mouse and keys as a person would."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image


class AnnotationPage:
    """The page of one server; planes are "axial", "coronal" and "sagittal"."""

    def __init__(self, page: Any, server_url: str) -> None:
        self.page = page
        self.server_url = server_url
        self.refused: list[str] = []
        self.asked_hosts: set[str] = set()
        page.on("console", lambda said: self.refused.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.refused.append(str(error)))
        page.on("request", lambda request: self.asked_hosts.add(request.url.split("/")[2]))

    def open(self, study: str, name: str = "anna") -> None:
        """Open a study by its address; the name is one that was typed before."""
        self.page.add_init_script(f"localStorage.setItem('inextremis.name', {name!r})")
        self.page.goto(f"{self.server_url}/annotate#{quote(study)}")
        self.wait_until_ready(study)

    def wait_until_ready(self, study: str) -> None:
        self.wait_until("id => window.inextremis?.ready && window.inextremis.study === id", study)

    def wait_until_idle(self) -> None:
        self.wait_until("() => window.inextremis.idle")

    def wait_until(self, function: str, argument: Any = None, timeout_s: float = 20) -> None:
        """Playwright's own wait would need 'unsafe-eval', which the page's policy forbids."""
        end = time.monotonic() + timeout_s
        while not self.page.evaluate(function, argument):
            assert time.monotonic() < end, f"not so after {timeout_s} s: {function}"
            self.page.wait_for_timeout(30)

    def fact(self, expression: str, *arguments: Any) -> Any:
        """`work('lesion')`, `crosshair`, ... of the page's own hook."""
        return self.page.evaluate(f"args => window.inextremis.{expression}", list(arguments))

    def work(self, label: str = "lesion") -> Any:
        return self.fact("work(args[0])", label)

    def go_to(self, voxel: Sequence[int], plane: str) -> tuple[float, float]:
        """Brings a plane to the slice of a voxel; where it is then on the page.

        By the wheel, or from afar by Alt and a click into another plane.
        """
        slices = int(self._place(voxel, plane)["slices"])
        if abs(slices) > 2:
            other = self._place(voxel, "coronal" if plane == "axial" else "axial")
            self.page.keyboard.down("Alt")
            self.page.mouse.click(other["x"], other["y"])
            self.page.keyboard.up("Alt")
        else:
            self.page.mouse.move(*self._over(plane))
            for _ in range(abs(slices)):
                self.page.mouse.wheel(0, -100 if slices > 0 else 100)
        self.wait_until(
            "([voxel, plane]) => window.inextremis.screenOf(voxel, plane).slices === 0", [list(voxel), plane]
        )
        place = self._place(voxel, plane)
        return place["x"], place["y"]

    def click(self, voxel: Sequence[int], plane: str = "axial", **how: Any) -> Any:
        """Click on the middle of a voxel; `button="right"` places a point outside the structure."""
        x, y = self.go_to(voxel, plane)
        self.page.mouse.click(x, y, **how)
        return self.fact("voxelAt(args[0], args[1])", x, y)

    def drag(
        self, voxel: Sequence[int], to: Sequence[int], plane: str = "axial", steps: int = 8, button: str = "left"
    ) -> None:
        x, y = self.go_to(voxel, plane)
        end = self._place(to, plane)
        self.page.mouse.move(x, y)
        self.page.mouse.down(button=button)
        self.page.mouse.move(end["x"], end["y"], steps=steps)
        self.page.mouse.up(button=button)

    def press(self, key: str) -> None:
        self.page.keyboard.press(key)

    def mask(self, shape: Sequence[int], label: str = "lesion") -> np.ndarray:
        """(X, Y, Z) bool: what the page shows of a label, in the order of the file."""
        mask = np.zeros(int(np.prod(shape)), bool)
        mask[self.fact("maskVoxels(args[0])", label)] = True
        return mask.reshape(shape, order="F")

    def wait_for_mask(self, label: str = "lesion", source: str = "clicks") -> None:
        self.wait_until(
            "([label, source]) => window.inextremis.idle && window.inextremis.work(label)?.source === source",
            [label, source],
        )

    def button(self, name: str) -> Any:
        return self.page.locator("#structure, #tools").get_by_role("button", name=name, exact=True)

    def says(self, text: str) -> None:
        self.page.locator("#status").get_by_text(text).wait_for()

    def pixels(self) -> np.ndarray:
        """(rows, columns, 3) of the page as it is drawn now."""
        self.fact("voxelAt(0, 0)")  # draws
        return np.asarray(Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")).astype(int)

    def _place(self, voxel: Sequence[int], plane: str) -> Any:
        place = self.fact("screenOf(args[0], args[1])", [int(index) for index in voxel], plane)
        assert place is not None, f"the {plane} plane is not shown"
        return place

    def _over(self, plane: str) -> tuple[float, float]:
        box = self.page.evaluate(
            "plane => document.querySelector(`#overlay [data-plane=${plane}]`).getBoundingClientRect().toJSON()", plane
        )
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
