"""Compress data that is mostly 0, such as masks, quickly with gzip."""

from __future__ import annotations

import os
import struct
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache

PIECE_BYTES = 2**20

_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"  # deflate, no name, no time, fastest, unknown system
_LEVEL = 1
_RAW_DEFLATE = -15


def gzipped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Compress pieces, ideally of `PIECE_BYTES`, to one gzip file.

    Each piece is compressed independently, up to a byte boundary (RFC 1951, a full flush), so that the code of a piece
    of zeros is always the same.
    """
    checksum, length = 0, 0
    yield _HEADER
    for piece in pieces:
        checksum, length = zlib.crc32(piece, checksum), length + len(piece)
        is_zero = piece == bytes(len(piece))
        yield _deflated_zeros(len(piece)) if is_zero else _deflated(piece)
    yield _trailer(checksum, length)


def gzipped_in_threads(pieces: Iterable[bytes], threads: int | None = None) -> Iterator[bytes]:
    """Compress pieces like `gzipped`, several at once; only a few pieces are in memory at a time.

    Args:
        threads: default: number of processors, at most 4.
    """
    checksum, length = 0, 0
    threads = threads or min(4, os.cpu_count() or 1)
    waiting: deque[Future[bytes]] = deque()
    yield _HEADER
    with ThreadPoolExecutor(threads, thread_name_prefix="gzip") as pool:
        for piece in pieces:
            checksum, length = zlib.crc32(piece, checksum), length + len(piece)
            waiting.append(pool.submit(_deflated, piece))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    yield _trailer(checksum, length)


def pieces_of(content: memoryview) -> Iterator[bytes]:
    """Yield the bytes of an array in pieces of `PIECE_BYTES`."""
    octets = content.cast("B") if content.nbytes else content
    for first in range(0, content.nbytes, PIECE_BYTES):
        yield octets[first : first + PIECE_BYTES].tobytes()


def _deflated(piece: bytes) -> bytes:
    compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, _RAW_DEFLATE)
    return compressor.compress(piece) + compressor.flush(zlib.Z_FULL_FLUSH)


def _trailer(checksum: int, length: int) -> bytes:
    end = zlib.compressobj(_LEVEL, zlib.DEFLATED, _RAW_DEFLATE)
    return end.flush() + struct.pack("<LL", checksum, length % 2**32)


@lru_cache(maxsize=4)
def _deflated_zeros(length: int) -> bytes:
    return _deflated(bytes(length))
