"""The packages of lib/ import in one direction, and only those that serve MONAI Label import it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = [
    {"geometry", "jit", "metrics"},
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
# The demo is a client of the app and may import all of it; of MONAI Label it uses the client.
# The report reads what a server has stored.
TOP = {"demo", "report"}
PACKAGES = sorted(set.union(*LAYERS))
FOUND = {path.stem for path in (ROOT / "lib").iterdir() if path.stem.isidentifier() and path.stem[0] != "_"}


def imported(package):
    place = ROOT / "lib" / package
    for path in place.rglob("*.py") if place.is_dir() else [place.with_suffix(".py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                yield path.name, node.module
            elif isinstance(node, ast.Import):
                yield from ((path.name, alias.name) for alias in node.names)


def test_every_package_has_a_layer():
    assert set(PACKAGES) | TOP == FOUND


@pytest.mark.parametrize("package", PACKAGES)
def test_no_layer_imports_one_above_it(package):
    level = next(n for n, layer in enumerate(LAYERS) if package in layer)
    below = set.union(*LAYERS[: level + 1])

    wrong = [(f, m) for f, m in imported(package) if m.startswith("lib.") and m.split(".")[1] not in below]
    assert wrong == []


@pytest.mark.parametrize(("package", "user"), ONE_WAY)
def test_what_the_server_uses_does_not_import_it(package, user):
    assert [(f, m) for f, m in imported(package) if m.split(".")[:2] == ["lib", user]] == []


@pytest.mark.parametrize("package", sorted(FOUND - FACING_MONAI_LABEL))
def test_only_some_packages_import_monai_label(package):
    allowed = ("monailabel.client",) if package in TOP else ()
    server = [(f, m) for f, m in imported(package) if m.split(".")[0] in ("monailabel", "fastapi")]
    assert [(f, m) for f, m in server if not m.startswith(allowed)] == []
