"""Leases of studies: limited numbers of people, across servers, restarts, clocks and damaged files."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.activelearning.leases import LEASE_S, Leases
from lib.annotations.json_file import JsonFile


@pytest.fixture
def file(tmp_path):
    return tmp_path / "leases.json"


@pytest.fixture
def clock():
    return SimpleNamespace(now=1e9)


def server(file, people=1, clock=None, **options):
    """Make the leases of one of the servers of a project."""
    return Leases(JsonFile(file), people, **({"now": lambda: clock.now} if clock else {}), **options)


def by_name(image_ids, seconds_ago):
    return sorted(image_ids)


def test_lease_expires(file, clock):
    leases = server(file, clock=clock, lease_s=60)

    def take(after_s):
        clock.now += after_s
        return leases.take(["a", "b"], "anna", by_name)

    assert [take(0), take(30)] == ["a", "b"]
    assert take(31) == "a"
    assert [take(1), take(0.1), take(0.1)] == ["b", "a", "b"]


def test_leases_expire_after_the_clock_was_set_back(file, clock):
    leases, orders = server(file, clock=clock, lease_s=60), []

    def take():
        return leases.take(["a"], "anna", lambda ids, ages: orders.append(ids) or ids)

    take()
    clock.now -= 3600
    assert take() == "a"
    assert orders == [["a"], ["a"]]


@pytest.mark.parametrize(
    ("people", "studies", "expected"),
    [(("anna", "bert", "carl"), ["a"], ["a", "a", None]), (("anna",) * 3, ["a", "b"], ["a", "b", None])],
    ids=["two people and no third", "nobody twice"],
)
def test_study_is_lent_to_two_readers(file, people, studies, expected):
    leases = server(file, people=2)

    assert [leases.take(studies, who, by_name) for who in people] == expected


def test_reader_does_not_get_a_study_again(file, clock):
    leases = server(file, people=2, clock=clock)
    clock.now += 10 * LEASE_S

    assert leases.take(["a"], "anna", by_name, {"a": {"anna"}}) is None
    assert leases.take(["a"], "bert", by_name, {"a": {"anna"}}) == "a"


def test_study_with_enough_readers_is_not_lent(file):
    assert server(file, people=2).take(["a"], "carl", by_name, {"a": {"anna", "bert"}}) is None


def test_reader_with_a_lease_is_counted_once(file):
    leases = server(file, people=2)
    leases.take(["a"], "anna", by_name)

    assert leases.take(["a"], "bert", by_name, {"a": {"anna"}}) == "a"


def test_study_with_a_reader_comes_first(file):
    assert server(file, people=2).take(["a", "b", "c"], "bert", by_name, {"b": {"anna"}}) == "b"


def test_work_renews_a_lease(file, clock):
    leases = server(file, people=2, clock=clock)
    for who in ("anna", "bert"):
        leases.take(["a"], who, by_name)
    clock.now += LEASE_S - 1
    leases.renew("a", "anna")
    clock.now += 2

    assert [leases.take(["a"], who, by_name) for who in ("carl", "dora")] == ["a", None]


def test_leases_survive_a_restart(file):
    server(file, people=2).take(["a"], "anna", by_name)

    assert server(file, people=2).take(["a"], "anna", by_name) is None
    assert server(file, people=1).take(["a", "b"], "bert", by_name) == "b"


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"a": 5}', b"\xff", b""])
def test_damaged_file_is_renamed_and_replaced(file, content, caplog):
    file.write_bytes(content)

    assert server(file, people=2).take(["a"], "anna", by_name) == "a"
    assert [kept.read_bytes() for kept in file.parent.glob("*.corrupt")] == [content]
    assert "it is kept as" in caplog.text


@pytest.mark.parametrize("at", [None, "noon", [], {}])
def test_lease_without_a_time_is_ignored(file, at):
    JsonFile(file).change("a", lambda kept: {"anna": at})

    assert server(file).take(["a"], "bert", lambda ids, ages: ids) == "a"


@pytest.mark.parametrize("people", [1, 2, 3])
def test_parallel_requests_never_lend_a_study_to_too_many(file, people):
    servers, studies = [server(file, people) for _ in range(4)], [f"study {n}" for n in range(12)]
    start = threading.Barrier(8)

    def person(number):
        start.wait()
        return [(servers[(number + n) % 4].take(studies, f"person {number}", by_name)) for n in range(6)]

    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(person, range(8)))

    lent = Counter(study for of in got for study in of if study is not None)
    if people > 1:
        assert max(lent.values()) <= people
        assert all(len(set(of)) == len(of) for of in ([s for s in of if s] for of in got))
        assert sum(lent.values()) == people * len(studies)
    else:
        assert set(lent) == set(studies)


@settings(max_examples=60, deadline=None)
@given(
    people=st.integers(2, 3),
    steps=st.lists(
        st.tuples(st.sampled_from(["take", "finish", "wait"]), st.sampled_from(["anna", "bert", "carl", "dora"])),
        max_size=40,
    ),
)
def test_any_sequence_of_steps_respects_the_number_of_readers(tmp_path_factory, people, steps):
    clock, studies = SimpleNamespace(now=1e9), ["a", "b", "c"]
    leases = server(tmp_path_factory.mktemp("leases") / "leases.json", people, clock)
    lent, done = {study: {} for study in studies}, {study: set() for study in studies}
    for step, who in steps:
        clock.now += 1
        busy = {s: {n for n, at in lent[s].items() if clock.now - at < LEASE_S} | done[s] for s in studies}
        if step == "take":
            study = leases.take(studies, who, by_name, done)
            open_to_them = [s for s in studies if len(busy[s]) < people and who not in busy[s]]
            assert study in open_to_them if open_to_them else study is None
            if study is not None:
                lent[study][who] = clock.now
        elif step == "finish":
            for study in studies:
                if who in busy[study]:
                    done[study].add(who)
        else:
            clock.now += LEASE_S
        assert all(len(lent[s].keys() & busy[s]) <= people for s in studies)
