"""The tables of the docs say what the code does."""

import re
from pathlib import Path

import pytest

import lib
from benchmarks import architecture_picture
from lib.configs.settings import AppSettings, read_conf
from lib.server.project import project_of
from lib.training.hyperparameters import Hyperparameters
from scripts import routes
from scripts import settings as settings_page

ROOT = Path(__file__).parents[2]


def tables(markdown):
    """Yield every Markdown table, as rows that map its headings to its cells, both without backquotes."""
    block = []
    for line in [*markdown.splitlines(), ""]:
        if line.startswith("|"):
            block.append([cell.strip().strip("`") for cell in line.strip("|").split("|")])
        elif block:
            heading, _, *rows = block
            yield [dict(zip(heading, row, strict=True)) for row in rows]
            block = []


def rows_by_name(*columns):
    """Return the rows of the one table that has these columns, by their first cell."""
    found = [t for t in tables((ROOT / "docs" / "settings.md").read_text()) if set(columns) <= t[0].keys()]
    assert len(found) == 1, f"expected one table with the columns {columns}"
    return {next(iter(row.values())): row for row in found[0]}


APP = rows_by_name("name", "default", "meaning")
TRAINING = rows_by_name("gpu", "cpu", "paper", "meaning")


def test_table_of_the_app_names_every_setting():
    assert set(APP) == set(AppSettings.model_fields)


def test_table_of_the_training_names_every_hyperparameter():
    assert set(TRAINING) == set(Hyperparameters.model_fields)


@pytest.mark.parametrize("name", sorted(set(AppSettings.model_fields) - {"project_dir", "model_dir", "users"}))
def test_default_is_the_one_of_the_code(name):
    stated, _ = read_conf({name: APP[name]["default"]})

    assert getattr(stated, name) == getattr(AppSettings(), name)


def test_annotations_and_models_are_kept_beside_the_studies_by_default():
    assert (AppSettings().project_dir, AppSettings().model_dir) == (None, None)
    studies = APP["project_dir"]["default"]
    assert Path(APP["model_dir"]["default"]) == project_of(studies).model.relative_to(Path.cwd())


def test_page_of_the_settings_is_made_from_the_code():
    assert (ROOT / "docs" / "settings.md").read_text() == settings_page.page()


def test_page_of_the_routes_is_made_from_their_list():
    assert (ROOT / "docs" / "routes.md").read_text() == routes.table()


@pytest.mark.parametrize("preset", ["gpu", "cpu", "paper"])
@pytest.mark.parametrize("name", Hyperparameters.model_fields)
def test_value_of_a_preset_is_the_one_of_the_code(name, preset):
    of_preset = Hyperparameters.of_preset(preset)

    assert of_preset.changed({name: TRAINING[name][preset]}) == of_preset


PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
EACH_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def headings(page):
    """Return the anchors of a page, as Markdown viewers derive them from its headings."""
    texts = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in texts}


@EACH_PAGE
def test_links_of_a_page_lead_somewhere(page):
    links = re.findall(r"\]\(((?!https?:)[^)#\s]*)(?:#([^)]*))?\)", page.read_text())
    for path, anchor in links:
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not anchor or anchor in headings(target), f"{path}#{anchor}"


@EACH_PAGE
def test_a_page_is_linked_from_the_readme_or_a_page_that_is(page):
    linked, new = set(), {ROOT / "README.md"}
    while new:
        linked |= new
        found = re.findall(r"\]\(((?!https?:)[^)#\s]+\.md)", "".join(p.read_text() for p in new))
        new = {p for p in PAGES if p.name in {Path(path).name for path in found}} - linked

    assert page in linked


FILE_NAMES = {
    path.name
    for folder in ("lib", "scripts", "benchmarks", "tests", "apps", "web/src")
    for path in (ROOT / folder).rglob("*.*")
}


@EACH_PAGE
def test_files_that_a_page_names_exist(page):
    """Also the functions and classes that are named beside a file, as "`name` in `lib/....py`"."""
    text = page.read_text()
    for path in re.findall(r"\b((?:lib|scripts|benchmarks|tests|apps|web/src)/[\w./-]*\w)", text):
        assert (ROOT / path).exists(), path
    for name in re.findall(r"`([\w-]+\.(?:py|sh|ts))`", text):
        assert name in FILE_NAMES, name
    for module in re.findall(r"python -m\s+((?:scripts|benchmarks|lib)\.[\w.]*\w)", text):
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), module
    for name, path in re.findall(r"`(\w+)`\s+in\s+`((?:lib|scripts|tests)/[\w/]+\.py)`", text):
        assert name in (ROOT / path).read_text(), f"{name} in {path}"


def test_files_of_the_map_lie_in_their_rooms():
    text = (ROOT / "docs" / "develop.md").read_text()
    (packages,) = [table for table in tables(text) if "begin with" in table[0]]
    for row in packages:
        folders = re.findall(r"[\w/]+/", row["package"])
        for name in re.findall(r"[\w./]+\w", row["begin with"]):
            assert any((ROOT / folder / name).exists() for folder in folders), f"{name} in {folders}"


def test_every_room_is_in_the_map():
    text = (ROOT / "docs" / "develop.md").read_text()
    folders = {path.name for path in (ROOT / "lib").iterdir() if (path / "__init__.py").exists()}

    assert folders <= set(re.findall(r"`lib/(\w+)/`", text))


@EACH_PAGE
def test_a_page_is_read_in_ten_minutes(page):
    """At some 200 words a minute; tables that are made from the code are looked up and not read."""
    if page.name in ("routes.md", "settings.md"):
        pytest.skip("a table")
    assert len(re.findall(r"\w[\w'.,-]*", page.read_text())) <= 2200


def test_pages_that_the_code_names_exist():
    folders = ("lib", "apps", "scripts", "benchmarks", "web/src")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".sh", ".ts")]
    named = {(path.name, page) for path in files for page in re.findall(r"docs/[\w/]+\.md", path.read_text())}
    assert {page for page in named if not (ROOT / page[1]).exists()} <= WRITTEN_BY_SCRIPTS


# A measurement of the GPU that is there, and the page of a model bundle.
WRITTEN_BY_SCRIPTS = {
    ("gpu_check.sh", "docs/results/gpu.md"),
    ("bundle.py", "docs/README.md"),
}


def test_picture_of_the_rooms_is_made_from_the_code():
    assert (ROOT / "docs" / "architecture.svg").read_text() == architecture_picture.svg()


def test_changelog_has_the_version():
    """The version stands in one place, and the newest section of the changelog is about it."""
    assert re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0] == lib.__version__
