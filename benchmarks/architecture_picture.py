"""Make docs/architecture.svg: the packages of the code in the order in which they import each other.

python -m benchmarks.architecture_picture. Packages and layers are those that tests/test_imports.py holds.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PATH = ROOT / "docs" / "architecture.svg"
RULES = ROOT / "tests" / "test_imports.py"

CAPTIONS = {
    "geometry": "volumes, grids",
    "annotations": "clicks, masks, stores",
    "supervision": "geodesics, label sets",
    "losses": "partial loss, CRF",
    "networks": "U-Net, versions",
    "data": "scans, patches",
    "clickmask": "six clicks to a mask",
    "exchange": "files in and out",
    "training": "objective, loop, gate",
    "inference": "automatic masks",
    "clicktraining": "trains structure net",
    "modelexport": "bundle, ONNX",
    "infers": "tasks for masks",
    "trainers": "training task",
    "activelearning": "the next study",
    "server": "routes, studies, login",
    "configs": "settings, tasks",
    "preannotation": "masks in advance",
    "report": "one HTML page",
    "demo": "demo studies",
}
OUTSIDE = [("web/", "annotation page"), ("OHIF", "viewer"), ("3D Slicer", "viewer"), ("scripts/", "commands")]
STORAGE = [
    ("project's folder", "labels, model, audit"),
    ("DICOMweb archive", "series, SEG"),
    ("studies folder", "scans"),
]

ABOVE = ["report", "demo"]
"""Packages that may import all others."""

WIDTH, BOX, GAP, ROW = 970, (158, 50), 12, 66
FACING, PLAIN, OTHER = "#dbe9ff", "#e6f4e1", "#f2f2f2"


def svg() -> str:
    """Draw the picture."""
    layers, facing = _rule("LAYERS"), _rule("FACING_MONAI_LABEL")
    rows: list[tuple[str, str | None, Sequence[tuple[str, str]]]] = [("who asks", OTHER, OUTSIDE)]
    rows.append(("above", FACING, [("main.py", "wires the app"), *((name, CAPTIONS[name]) for name in ABOVE)]))
    rows += [(f"layer {n + 1}", None, _rooms(layer)) for n, layer in reversed(list(enumerate(layers)))]
    rows.append(("what is kept", OTHER, STORAGE))
    height = 60 + ROW * len(rows)
    body = [line for n, row in enumerate(rows) for line in _row(*row, facing, y=50 + n * ROW)]
    legend = [
        *_box(WIDTH - 436, 6, 18, FACING, "", ""),
        _text(WIDTH - 436 + 26, 20, "knows MONAI Label"),
        *_box(WIDTH - 216, 6, 18, PLAIN, "", ""),
        _text(WIDTH - 190, 20, "NumPy and torch only"),
        _text(16, 20, "A package imports only those below it.", weight="bold"),
    ]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="13">\n'
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>\n'
    )
    return head + "\n".join([*legend, *body]) + "\n</svg>\n"


def _rooms(layer: set[str]) -> list[tuple[str, str]]:
    """Return the folders of a layer with their captions, without single files."""
    return [(package, CAPTIONS[package]) for package in sorted(layer) if (ROOT / "lib" / package).is_dir()]


def _rule(name: str) -> Any:
    """Return a constant of the test that holds the order of the packages."""
    nodes = [node for node in ast.parse(RULES.read_text()).body if isinstance(node, ast.Assign)]
    return next(ast.literal_eval(node.value) for node in nodes if ast.unparse(node.targets[0]) == name)


def _row(title: str, colour: str | None, boxes: Sequence[tuple[str, str]], facing: set[str], y: int) -> Iterator[str]:
    yield _text(16, y + 26, title, colour="#555")
    for n, (name, caption) in enumerate(boxes):
        fill = colour or (FACING if name in facing else PLAIN)
        yield from _box(110 + n * (BOX[0] + GAP), y, BOX[1], fill, name, caption)


def _box(x: int, y: int, high: int, fill: str, name: str, caption: str) -> Iterator[str]:
    wide = BOX[0] if name else 18
    yield f'<rect x="{x}" y="{y}" width="{wide}" height="{high}" rx="6" fill="{fill}" stroke="#888"/>'
    if name:
        yield _text(x + wide // 2, y + 21, name, weight="bold", anchor="middle")
        yield _text(x + wide // 2, y + 39, caption, colour="#333", anchor="middle")


def _text(x: int, y: int, text: str, weight: str = "normal", colour: str = "black", anchor: str = "start") -> str:
    place = f'x="{x}" y="{y}" fill="{colour}" font-weight="{weight}" text-anchor="{anchor}"'
    return f"<text {place}>{escape(text, quote=False)}</text>"


if __name__ == "__main__":
    PATH.write_text(svg())
