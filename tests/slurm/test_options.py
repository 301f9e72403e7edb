"""Time limits and memory are read as Slurm reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm.options import megabytes, minutes

WHOLE = st.integers(0, 10**6)


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (90, 90),
        ("90", 90),
        ("1:30", 2),
        ("90:00", 90),
        ("4:00:00", 240),
        ("04:00:01", 241),
        ("0:00:01", 1),
        ("1-0", 1440),
        ("1-2", 1560),
        ("1-2:3", 1563),
        ("1-02:03:04", 1564),
        ("10-00:00:00", 14400),
    ],
)
def test_every_form_of_a_time_limit_is_read(time: str | int, expected: int) -> None:
    assert minutes(time) == expected


@given(WHOLE, st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_days_hours_minutes_and_seconds_add_up_and_are_rounded_up(days: int, hours: int, mins: int, secs: int) -> None:
    total = 60 * (24 * days + hours) + mins + (secs > 0)
    texts = [f"{days}-{hours}:{mins}:{secs}", f"{days}-{hours:02}:{mins:02}:{secs:02}"]
    texts += [f"{24 * days + hours}:{mins}:{secs}", f"{60 * (24 * days + hours) + mins}:{secs}"]
    if total:
        assert {minutes(text) for text in texts} == {total}
    else:
        with pytest.raises(ValueError, match="no time at all"):
            minutes(texts[0])


@given(st.integers(1, 10**7))
def test_what_slurm_is_told_in_minutes_is_read_back(total: int) -> None:
    hours, mins = divmod(total, 60)
    assert minutes(total) == minutes(str(total)) == minutes(f"{hours}:{mins:02}:00") == total
    assert minutes(f"{hours // 24}-{hours % 24}:{mins}") == total


@pytest.mark.parametrize(
    "time", ["", "4h", "4.5", "-5", "1:2:3:4", "1-", "-1:00", "1-2-3", "1 - 2", "4:", ":30", " 5", "UNLIMITED", "now"]
)
def test_what_is_no_time_limit_is_refused_with_the_forms(time: str) -> None:
    with pytest.raises(ValueError, match="is no time limit: write minutes, HH:MM:SS or D-HH:MM:SS") as caught:
        minutes(time)
    assert repr(time) in str(caught.value)


@pytest.mark.parametrize("time", [0, "0", "0:00", "0-0", "00:00:00"])
def test_no_time_at_all_is_refused(time: str | int) -> None:
    with pytest.raises(ValueError, match="no time at all: give at least a minute"):
        minutes(time)


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        ("64G", 65536),
        ("64g", 65536),
        ("64GB", 65536),
        ("2T", 2 * 1024**2),
        ("500M", 500),
        ("500MB", 500),
        ("500", 500),
        ("2048K", 2),
        ("2049K", 3),
        ("1K", 1),
    ],
)
def test_every_form_of_an_amount_of_memory_is_read(memory: str, expected: int) -> None:
    assert megabytes(memory) == expected


@given(st.integers(1, 10**9), st.sampled_from("KMGT"))
def test_memory_is_whole_megabytes_rounded_up_and_read_back(number: int, unit: str) -> None:
    found = megabytes(f"{number}{unit}")
    kilobytes = number * 1024 ** "KMGT".index(unit)
    assert 1024 * (found - 1) < kilobytes <= 1024 * found
    assert megabytes(f"{found}M") == megabytes(str(found)) == found


@pytest.mark.parametrize("memory", ["", "64 G", "64X", "G", "-1G", "64GiB", "a lot", "1e3M", "1G2"])
def test_what_is_no_amount_of_memory_is_refused_with_an_example(memory: str) -> None:
    with pytest.raises(
        ValueError, match="is no amount of memory: write a number with K, M, G or T, e.g. 64G"
    ) as caught:
        megabytes(memory)
    assert repr(memory) in str(caught.value)


def test_a_fraction_is_refused_as_slurm_refuses_it() -> None:
    with pytest.raises(ValueError, match="is no amount of memory"):
        megabytes("1.5G")
