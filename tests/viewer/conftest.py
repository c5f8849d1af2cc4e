import pytest

from tests.installed import need_chromium
from tests.viewer.ohif import browser_page


@pytest.fixture(scope="module")
def page(request):
    """Open a page of a headless browser; the module's `MAY_ASK` names hosts that other servers' pages may ask."""
    need_chromium()
    with browser_page(getattr(request.module, "MAY_ASK", ())) as page:
        yield page
