import pytest

from tests.installed import need_chromium
from tests.viewer.ohif import browser_page


@pytest.fixture(scope="module")
def page():
    """A page of a headless browser."""
    need_chromium()
    with browser_page() as page:
        yield page
