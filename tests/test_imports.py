"""The layers of lib/ import one way, and all but those turned to MONAI Label work without it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = [
    {"geometry", "machine_code", "metrics"},
    {"annotations"},
    {"supervision"},
    {"losses", "networks", "data", "clickmask", "exchange", "compile_kernels"},
    {"training", "inference", "clicktraining", "modelexport"},
    {"infers", "trainers", "activelearning", "server"},
    {"configs", "preannotation"},
]
# Within one layer, what the server uses and does not ask back.
ONE_WAY = [("activelearning", "server"), ("trainers", "server"), ("trainers", "infers")]
FACING_MONAI_LABEL = {"infers", "trainers", "activelearning", "configs", "server", "preannotation"}
# The demo is a client of the app, and may use all of it.
PACKAGES = sorted(set.union(*LAYERS) & {path.name for path in (ROOT / "lib").iterdir()})


def imported(package):
    for path in (ROOT / "lib" / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                yield path.name, node.module
            elif isinstance(node, ast.Import):
                yield from ((path.name, alias.name) for alias in node.names)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_layer_imports_one_above_it(package):
    level = next(n for n, layer in enumerate(LAYERS) if package in layer)
    below = set.union(*LAYERS[: level + 1])

    wrong = [(f, m) for f, m in imported(package) if m.startswith("lib.") and m.split(".")[1] not in below]
    assert wrong == []


@pytest.mark.parametrize(("package", "user"), ONE_WAY)
def test_what_the_server_uses_does_not_import_it(package, user):
    assert [(f, m) for f, m in imported(package) if m.split(".")[:2] == ["lib", user]] == []


@pytest.mark.parametrize("package", [p for p in PACKAGES if p not in FACING_MONAI_LABEL])
def test_method_does_not_need_monai_label(package):
    assert [(f, m) for f, m in imported(package) if m.split(".")[0] in ("monailabel", "fastapi")] == []
