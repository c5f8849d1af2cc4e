"""Run work in thread pools, one for each limiting resource."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")

# A few permanent threads: each thread that has run a network keeps tens of megabytes of buffers.
_INFERENCE = ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="inference")
_VIEWS = ThreadPoolExecutor(2, thread_name_prefix="views")
_THUMBNAILS = ThreadPoolExecutor(1, thread_name_prefix="thumbnails")
_ARCHIVE = ThreadPoolExecutor(32, thread_name_prefix="archive")


async def compute(function: Callable[..., Result], *arguments: object) -> Result:
    """Run work that is limited by the processor."""
    return await asyncio.get_running_loop().run_in_executor(_INFERENCE, function, *arguments)


async def wait_for_archive(function: Callable[..., Result], *arguments: object) -> Result:
    """Run work that may wait for an archive."""
    return await asyncio.get_running_loop().run_in_executor(_ARCHIVE, function, *arguments)


async def make_view(function: Callable[..., Result], *arguments: object) -> Result:
    """Run work that reads and writes a whole scan."""
    return await asyncio.get_running_loop().run_in_executor(_VIEWS, function, *arguments)


async def make_thumbnail(function: Callable[..., Result], *arguments: object) -> Result:
    """Run work that reads a slice of a scan; pages request many at once."""
    return await asyncio.get_running_loop().run_in_executor(_THUMBNAILS, function, *arguments)
