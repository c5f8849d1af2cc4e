"""Share work among the processor's cores, one item each."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from threading import Barrier
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_turn(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """The results in the order of the items, which are worked on by as many threads as PyTorch has.

    In each of them PyTorch works with one thread. Threads that share the convolutions of one window wait for each other
    after each of them: on two idle cores that took a fifth more time, and beside other work five times as much.
    """
    threads = torch.get_num_threads()
    pool = _pool(threads)
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > threads:  # no more results than that are kept
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    pool = ThreadPoolExecutor(threads, thread_name_prefix="windows")
    all_there = Barrier(threads)

    def use_one_thread() -> None:
        torch.get_num_threads()  # or the number of all threads would be taken over at the first use
        all_there.wait()
        torch.set_num_threads(1)

    for started in [pool.submit(use_one_thread) for _ in range(threads)]:
        started.result()
    # It sets the number of the thread that calls it, and of all that are started later.
    torch.set_num_threads(threads)
    return pool


os.register_at_fork(after_in_child=_pool.cache_clear)  # threads stay behind
