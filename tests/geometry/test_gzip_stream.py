"""Gzip that any reader reads, and small where there are zeros."""

import gzip
import zlib

import numpy as np
import pytest

from lib.geometry.gzip_stream import PIECE_BYTES, gzipped, gzipped_in_threads, pieces_of

RNG = np.random.default_rng(0)
PIECES = {
    "nothing": [],
    "zeros": [bytes(1000)] * 3,
    "noise": [RNG.bytes(5000), RNG.bytes(1)],
    "both": [bytes(700), RNG.bytes(300), bytes(700), bytes(300), b"\0\0\1"],
    "an empty piece": [b"", b"abc", b""],
}


MANY = {**PIECES, "many": [RNG.bytes(n) for n in range(1, 50)]}


@pytest.mark.parametrize("compress", [gzipped, gzipped_in_threads])
@pytest.mark.parametrize("pieces", MANY.values(), ids=MANY)
def test_every_reader_gets_what_was_written(pieces, compress):
    written = b"".join(compress(pieces))

    assert gzip.decompress(written) == b"".join(pieces)
    # As one stream, for readers that stop after the first of several.
    reader = zlib.decompressobj(wbits=31)
    assert reader.decompress(written) + reader.flush() == b"".join(pieces)
    assert reader.eof and not reader.unused_data


def test_runs_of_zeros_are_small():
    pieces = [bytes(PIECE_BYTES)] * 20

    assert len(b"".join(gzipped(pieces))) < 20 * PIECE_BYTES / 200


def test_an_array_is_cut_into_pieces_in_its_order_in_memory():
    array = RNG.integers(0, 1000, size=(3, PIECE_BYTES // 4), dtype=np.int16)

    pieces = list(pieces_of(array.data))

    assert b"".join(pieces) == array.tobytes()
    assert {len(piece) for piece in pieces[:-1]} == {PIECE_BYTES}


def test_few_pieces_are_in_memory_at_a_time():
    taken = 0

    def pieces():
        nonlocal taken
        for _ in range(100):
            taken += 1
            yield bytes(1000)

    for given, _ in enumerate(gzipped_in_threads(pieces(), threads=2)):
        assert taken - given <= 6


def test_what_the_pieces_raise_is_raised():
    def pieces():
        yield b"abc"
        raise ValueError("a damaged file")

    with pytest.raises(ValueError, match="a damaged file"):
        list(gzipped_in_threads(pieces()))
