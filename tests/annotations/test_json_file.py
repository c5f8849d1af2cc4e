"""Facts in a JSON file: kept, never half, and never a reason not to start."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from lib.annotations.json_file import JsonFile


@pytest.fixture
def path(tmp_path):
    return tmp_path / "own" / "facts.json"


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_what_is_kept_is_there_after_a_restart(path):
    JsonFile(path).change("scan", lambda kept: kept | {"a": 1})
    JsonFile(path).change("scan", lambda kept: kept | {"b": [1, 2]})
    JsonFile(path).change("Müller", lambda kept: {"c": None})

    assert JsonFile(path).items() == {"scan": {"a": 1, "b": [1, 2]}, "Müller": {"c": None}}


def test_nothing_is_kept_of_what_was_never_there(path):
    assert JsonFile(path).get("scan") == {}
    assert JsonFile(path).items() == {}
    assert not path.exists()


def test_what_is_removed_is_gone(path):
    facts = JsonFile(path)
    facts.change("scan", lambda kept: {"a": 1})
    facts.change("scan", lambda kept: None)
    facts.change("never there", lambda kept: None)

    assert facts.items() == JsonFile(path).items() == {}


@pytest.mark.parametrize("ask", [lambda facts: facts.get("scan"), lambda facts: facts.items()["scan"]])
def test_what_is_handed_out_is_a_copy(path, ask):
    facts = JsonFile(path)
    facts.change("scan", lambda kept: {"a": [1]})

    ask(facts)["a"].append(2)

    assert facts.get("scan") == {"a": [1]}


UNREADABLE = {
    "empty": b"",
    "half": b'{"scan": {"a": ',
    "no JSON": b"half a fi",
    "not UTF-8": b'{"scan": {"a": "M\xfcller"}}',
    "a list": b"[1]",
    "null": b"null",
    "object of numbers": b'{"scan": 1}',
    "object of an object and a list": b'{"a": {}, "b": []}',
    "nested": b"[" * 100_000,
}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE)
def test_file_that_cannot_be_read_is_set_aside_and_begun_anew(path, content, caplog):
    put(path, content)

    facts = JsonFile(path)
    facts.change("scan", lambda kept: kept | {"a": 1})

    assert JsonFile(path).items() == {"scan": {"a": 1}}
    assert [kept.read_bytes() for kept in path.parent.glob("facts.json.*.corrupt")] == [content]
    assert "facts.json cannot be read" in caplog.text


def test_folder_in_its_place_is_set_aside(path):
    (path / "inside").mkdir(parents=True)

    JsonFile(path).change("scan", lambda kept: {"a": 1})

    assert JsonFile(path).get("scan") == {"a": 1}
    assert len(list(path.parent.glob("facts.json.*.corrupt/inside"))) == 1


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_full_disk_leaves_the_old_content_in_the_file_and_in_memory(path, failing, function):
    facts = JsonFile(path)
    facts.change("scan", lambda kept: {"a": 1})
    before = path.read_bytes()

    with failing(function), pytest.raises(OSError, match="No space"):
        facts.change("scan", lambda kept: {"a": 2})

    assert path.read_bytes() == before
    assert facts.get("scan") == {"a": 1}
    facts.change("other", lambda kept: {"b": 1})
    assert JsonFile(path).items() == {"scan": {"a": 1}, "other": {"b": 1}}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, object()])
def test_what_cannot_be_read_again_is_not_written(path, value):
    facts = JsonFile(path)
    facts.change("scan", lambda kept: {"a": 1})

    with pytest.raises((ValueError, TypeError)):
        facts.change("scan", lambda kept: {"a": value})

    assert facts.get("scan") == JsonFile(path).get("scan") == {"a": 1}


def test_many_threads_lose_nothing(path):
    facts = JsonFile(path)

    def add(number):
        facts.change(f"scan {number % 3}", lambda kept: kept | {str(number): number})

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(add, range(60)))

    for found in (facts, JsonFile(path)):
        assert sorted(n for kept in found.items().values() for n in kept.values()) == list(range(60))


def test_reader_of_the_file_never_finds_half_of_it(path):
    facts = JsonFile(path)
    facts.change("scan", lambda kept: {"n": 0})
    done, contents = threading.Event(), []

    def read():
        while not done.is_set():
            contents.append(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(30):
        facts.change("scan", lambda kept, number=number: {"n": number, "padding": "x" * 10_000})
    done.set()
    reader.join()

    assert all("n" in json.loads(content)["scan"] for content in set(contents))


def test_unchanged_facts_are_not_written(path):
    facts = JsonFile(path)
    facts.change("scan", lambda kept: {"a": 1})
    before = path.stat()

    facts.change("scan", lambda kept: {"a": 1})

    assert path.stat().st_ino == before.st_ino
