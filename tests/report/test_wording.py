"""Times, durations and names of programs as readers know them."""

from datetime import timedelta, timezone

from lib.report.wording import duration, local_time, program_name


def test_times_are_those_of_the_reader_and_programs_have_names(in_utc):
    assert local_time("2026-11-05T23:30:00+01:00") == "5 Nov 2026, 22:30"
    assert local_time("2026-11-05T22:30:00.123+00:00", timezone(timedelta(hours=9))) == "6 Nov 2026, 07:30"
    assert local_time("2026-11-05T22:30") == "5 Nov 2026, 22:30"
    assert local_time("some day") == "some day"
    assert duration("2026-11-05T22:30:00+00:00", "2026-11-05T23:29:40+00:00") == "1 h 0 min"
    assert duration("2026-11-05T22:30:00+00:00", "2026-11-05T22:30:40+00:00") == "40 s"
    assert duration("2026-11-05T22:30:00+00:00", "some day") == ""
    chrome = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Safari/537.36"
    assert program_name(chrome) == "Chrome 138"
    assert program_name(f"{chrome} Edg/138.0.3351.95") == "Edge 138"
    assert program_name("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0") == "Firefox 140"
    assert program_name("python-requests/2.32") == "python-requests/2.32"
