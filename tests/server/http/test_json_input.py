"""Accepted JSON can be stored, sent and computed with."""

import json
import time

import pytest

from lib.annotations.json_check import MAX_DEPTH
from lib.server.http.json_input import MAX_BYTES, check_text, json_object
from tests.server.refusals import refusal


def nested(depth, opening="[", closing="]"):
    return opening * depth + closing * depth


GOOD = [
    *(("{}", {}), ("", {}), (b"", {}), ("null", {})),
    ('{"a": 1, "b": [1.5, -2, true, null, "x"]}', {"a": 1, "b": [1.5, -2, True, None, "x"]}),
    ('{"M\u00fcller": "\u817a\u760d"}', {"Müller": "腺瘍"}),
    ('{"Müller": "腫瘍"}'.encode(), {"Müller": "腫瘍"}),
    ('{"a": "\\ud83d\\ude00"}', {"a": "😀"}),
    (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
    (' \n {"a": 1} ', {"a": 1}),
    ('{"a": 9223372036854775807}', {"a": 2**63 - 1}),
    ('{"a": 1e308}', {"a": 1e308}),
    ('{"a": 1, "a": 2}', {"a": 2}),
    ('{"a": ' + nested(MAX_DEPTH - 1) + "}", None),
]


@pytest.mark.parametrize(("text", "expected"), GOOD)
def test_objects_are_accepted(text, expected):
    found = json_object(text, "params")

    assert expected is None or found == expected
    assert json.dumps(found, allow_nan=False, ensure_ascii=False).encode()


BAD = {
    "NaN": '{"a": NaN}',
    "Infinity": '{"a": [Infinity]}',
    "-Infinity": '{"a": {"b": -Infinity}}',
    "beyond a double": '{"a": 1e999}',
    "half a surrogate pair": '{"client_id": "\\ud800"}',
    "half a pair as a key": '{"\\udfff": 1}',
    "half a pair, deep": '{"a": [{"b": ["\\ud800x"]}]}',
    "half a pair unescaped": '{"a": "\ud800"}',
    "900 objects": '{"a":' * 900 + "1" + "}" * 900,
    "100,000 lists": nested(100_000),
    "one list too deep": '{"a": ' + nested(MAX_DEPTH + 1) + "}",
    "huge whole number": '{"a": ' + "9" * 30 + "}",
    "whole number of 10,000 digits": '{"a": ' + "9" * 10_000 + "}",
    "blank": "  ",
    "half": '{"a": ',
    "two": "{}{}",
    "Latin-1": '{"a": "Müller"}'.encode("latin-1"),
    "zero bytes": b"\0\0\0\0\0",
    "a list": "[1, 2]",
    "a number": "5",
    "a list of a long string": json.dumps(["x" * 10_000]),
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_other_texts_are_refused_by_a_sentence(text):
    status, sentence = refusal(json_object, text, "params")

    assert status == 422
    assert sentence.startswith("The params are ") and len(sentence) < 300


@pytest.mark.parametrize("size", [MAX_BYTES + 1, 2_000_000])
@pytest.mark.parametrize("kind", [str, str.encode])
def test_large_text_is_refused_before_it_is_parsed(size, kind):
    begin = time.perf_counter()
    found = refusal(json_object, kind("[" * size), "info")

    assert found == (413, f"The info have {size} bytes; expected at most 1000000.")
    assert time.perf_counter() - begin < 0.5


def test_largest_text_is_parsed_fast():
    text = json.dumps({"a": [[0, 0]] * 90_000})
    assert 500_000 < len(text) <= MAX_BYTES
    begin = time.perf_counter()

    json_object(text, "params")

    assert time.perf_counter() - begin < 2


def test_size_is_that_in_bytes():
    text = json.dumps({"a": "ü" * 400_000}, ensure_ascii=False)

    assert json_object(text, "params")
    refusal(json_object, json.dumps({"a": "ü" * 600_000}, ensure_ascii=False), "params")


def test_text_has_to_be_valid_unicode():
    for text in ("", "Müller 1", "腫瘍", "\0", "a\nb"):
        check_text(text, "image")
    for text in ("\ud800", "M\udcfcller"):
        assert refusal(check_text, text, "image")[0] == 422
