"""Hold what was learnt of the structures of one label."""

from __future__ import annotations

from typing import NamedTuple

from lib.clickmask.click_network import ClickNetwork
from lib.clickmask.shape_atlas import ShapeAtlas


class Learnt(NamedTuple):
    """Shape atlas and click network of a label; the network requires the atlas."""

    atlas: ShapeAtlas
    network: ClickNetwork | None = None
