"""Makes the pictures of docs/annotate.md: the annotation page in each state, with demo studies, in a headless browser.

python -m benchmarks.page_pictures [--out docs/annotate] [--work FOLDER]: about four minutes, most of it a training. A
folder that is kept makes the next run short.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

from lib.annotations.simulated_clicks import simulated_extreme_points
from lib.demo.demo_studies import write_demo_studies
from lib.demo.local_server import LocalServer
from lib.demo.walkthrough import ScriptedAnnotator, read_truth
from tests.viewer.annotation_page import AnnotationPage

CLICKED, STUDIES = 5, 9
SIZE = {"width": 1280, "height": 720}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/annotate"))
    parser.add_argument("--work", type=Path, help="folder for studies and model (default: a temporary one)")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        work = (arguments.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        names = write_demo_studies(work / "studies", work / "truth", STUDIES)
        shutil.rmtree(work / "studies" / "labels", ignore_errors=True)
        conf = {"labels": "lesion,cyst", "model_dir": str(work / "model"), "tracking": "None"}
        with LocalServer(work / "studies", conf, work / "server.log") as server, _browser() as browser:
            Photographer(server, browser, work, names, arguments.out).take_all()


@contextmanager
def _browser() -> Iterator[Any]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield browser
        browser.close()


class Photographer:
    """Bring the page into each state, and save pictures."""

    def __init__(self, server: LocalServer, browser: Any, work: Path, names: list[str], out: Path) -> None:
        self.server, self.browser, self.work, self.names, self.out = server, browser, work, names, out
        self.page = self._tab("dark")

    def _tab(self, theme: str) -> AnnotationPage:
        tab = self.browser.new_page(viewport=SIZE)
        tab.set_default_timeout(60_000)
        tab.add_init_script(f"localStorage.setItem('inextremis.theme', '{theme}')")
        return AnnotationPage(tab, self.server.url)

    def take_all(self) -> None:
        annotator = ScriptedAnnotator(self.server.url, self.work)
        rng = np.random.default_rng(0)
        for name in self.names[:CLICKED]:
            annotator.click(read_truth(self.work / "truth", name), rng)
        self.clicking(self.names[CLICKED])
        self.correcting(self.names[CLICKED])
        self.dialogs()
        self.training(annotator)
        self.proposal(self.names[CLICKED + 2])
        self.light(self.names[CLICKED])

    def clicks(self, name: str) -> list[list[int]]:
        truth = read_truth(self.work / "truth", name).truth
        return simulated_extreme_points(truth, np.random.default_rng(0)).tolist()

    def clicking(self, name: str) -> None:
        page, clicks = self.page, self.clicks(name)
        page.open(name)
        self.save("open")
        lowest = min(clicks, key=lambda voxel: voxel[2])
        for voxel in [voxel for voxel in clicks if voxel != lowest]:
            page.click(voxel)
        self.save("five_points")
        page.click(lowest)
        page.wait_for_mask()
        page.press("c")
        self.save("mask")

    def correcting(self, name: str) -> None:
        page = self.page
        middle = np.mean(self.clicks(name), axis=0).round().astype(int)
        page.click((middle + [9, 0, 0]).tolist(), button="right")
        page.wait_until_idle()
        self.save("corrected")
        page.press("Control+z")
        page.wait_until_idle()
        page.press("b")
        page.drag((middle + [8, -12, 0]).tolist(), (middle + [16, -8, 0]).tolist())
        self.save("brush")
        page.press("Control+z")
        page.press("q")
        page.press("a")
        page.wait_for_mask(source="final")
        page.press("x")
        page.says(f"{name}.nii.gz is done")
        self.save("accepted")

    def dialogs(self) -> None:
        page = self.page
        page.press("s")
        self.save("skip")
        page.press("Escape")
        page.press("?")
        self.save("keys")
        page.press("Escape")

    def training(self, annotator: ScriptedAnnotator) -> None:
        training = self.page.page.locator("#training details")
        training.evaluate("panel => panel.open = true")
        is_taken = False
        for figures in annotator.train({"iterations": 200, "seed": 0}):
            if not is_taken and figures.get("epoch"):
                self.page.page.wait_for_timeout(4000)
                self.save("training")
                is_taken = True

    def proposal(self, name: str) -> None:
        self.page.open(name)
        self.page.wait_for_mask(source="proposal")
        self.page.go_to(np.mean(self.clicks(name), axis=0).round().astype(int).tolist(), "coronal")
        self.page.go_to(np.mean(self.clicks(name), axis=0).round().astype(int).tolist(), "axial")
        self.save("proposal")

    def light(self, name: str) -> None:
        self.page = self._tab("light")
        self.page.open(name)
        self.save("light")

    def save(self, name: str) -> None:
        tab = self.page.page
        tab.wait_for_timeout(700)  # thumbnails, and what fades in
        picture = Image.open(io.BytesIO(tab.screenshot())).convert("RGB")
        with_palette(picture).save(self.out / f"{name}.png", optimize=True)
        print(f"{self.out / name}.png: {(self.out / f'{name}.png').stat().st_size // 1000} kB")


def with_palette(picture: Image.Image) -> Image.Image:
    """Reduce a picture to 256 colours, half of them greys for the scan, so that small marks keep their colour."""
    pixels = np.asarray(picture).reshape(-1, 3).astype(np.int16)
    coloured = np.unique(pixels[np.ptp(pixels, axis=1) > 8].astype(np.uint8), axis=0)
    greys = np.repeat(np.linspace(0, 255, 128).round().astype(np.uint8), 3)
    colours = Image.fromarray(coloured[None], "RGB").quantize(128).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette([*greys.tolist(), *colours[: 3 * 128]])
    return picture.quantize(palette=palette, dither=Image.Dither.NONE)


if __name__ == "__main__":
    main()
