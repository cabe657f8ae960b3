"""What a schedule may say, and its words."""

from datetime import UTC, datetime

import pytest
from cronsim import CronSim
from hypothesis import given
from hypothesis import strategies as st

from apothic.wire.schedules import ScheduleSpec
from apothic_server.domain.schedule_rules import fault_of, in_words
from apothic_server.domain.timing import next_due

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (ScheduleSpec("30 2 * * *", "Europe/Berlin"), "at 02:30 every day (Europe/Berlin)"),
        (ScheduleSpec("0 9,17 * * mon-fri"), "at 09:00 and 17:00 on Monday to Friday (UTC)"),
        (ScheduleSpec("*/15 * * * *"), "every 15 minutes (UTC)"),
        (ScheduleSpec("* * * * *"), "every minute (UTC)"),
        (ScheduleSpec("5 * * * *"), "every hour at minute 5 (UTC)"),
        (ScheduleSpec("0,30 * 1 * *"), "every hour at minutes 0 and 30 on day 1 of the month (UTC)"),
        (ScheduleSpec("0 */6 * * *"), "at minute 0 every 6 hours every day (UTC)"),
        (ScheduleSpec("*/5 9-17 * * 1"), "every 5 minutes in hours 9 to 17 on Monday (UTC)"),
        (ScheduleSpec("0 0 1 1,7 *"), "at 00:00 on day 1 of the month in January and July (UTC)"),
        (ScheduleSpec("0 0 L * *"), "at 00:00 on the last day of the month (UTC)"),
        (ScheduleSpec("0 0 * * 5L"), "at 00:00 on the last Friday of the month (UTC)"),
        (ScheduleSpec("0 0 * feb 1#2"), "at 00:00 on the second Monday of the month in February (UTC)"),
        (ScheduleSpec("0 0 13 * 5"), "at 00:00 on day 13 of the month and on Friday (UTC)"),
        (ScheduleSpec(period_s=3600), "every hour"),
        (ScheduleSpec(period_s=5400), "every 1 hour 30 minutes"),
        (ScheduleSpec(period_s=1.5), "every 1.5 seconds"),
        (ScheduleSpec(period_s=86_400 * 15), "every 2 weeks 1 day"),
    ],
)
def test_words(spec, words):
    assert fault_of(spec) is None
    assert in_words(spec) == words


@pytest.mark.parametrize(
    ("spec", "field", "place", "says"),
    [
        (ScheduleSpec(), "cron", None, "either cron or period_s"),
        (ScheduleSpec("* * * * *", period_s=1), "cron", None, "either"),
        (ScheduleSpec("* * * *"), "cron", None, "this one has 4"),
        (ScheduleSpec(""), "cron", None, "this one has 0"),
        (ScheduleSpec("0 * * * * *"), "cron", None, "seconds are not part of it"),
        (ScheduleSpec("@daily"), "cron", None, "for @daily `0 0 * * *`"),
        (ScheduleSpec("* " * 300), "cron", None, "at most 512 characters"),
        (ScheduleSpec("60 * * * *"), "cron", 0, "numbers from 0 to 59"),
        (ScheduleSpec("0 24 * * *"), "cron", 1, "'24' is not allowed"),
        (ScheduleSpec("0 0 0 * *"), "cron", 2, "from 1 to 31"),
        (ScheduleSpec("0 0 1 13 *"), "cron", 3, "JAN to DEC"),
        (ScheduleSpec("0 0 * * FUNDAY"), "cron", 4, "SUN to SAT"),
        (ScheduleSpec("0 0 * * FRI-MON"), "cron", 4, "runs backwards"),
        (ScheduleSpec("*/0 * * * *"), "cron", 0, "step '0'"),
        (ScheduleSpec("1,,2 * * * *"), "cron", 0, "an entry is empty"),
        (ScheduleSpec("0 0 1- * *"), "cron", 2, "'' is not allowed"),
        (ScheduleSpec("0 0 30 2 *"), "cron", 2, "never comes due"),
        (ScheduleSpec("* * 31 4,6 *", "Europe/Berlin"), "cron", 2, "never comes due"),
        (ScheduleSpec("0 0 * 2 1#9"), "cron", 4, "not allowed"),
        (ScheduleSpec("0 0 * * *", "Europe/Berln"), "timezone", None, "did you mean Europe/Berlin"),
        (ScheduleSpec("0 0 * * *", "../../etc/passwd"), "timezone", None, "IANA"),
        (ScheduleSpec("0 0 * * *", "Z" * 5_000), "timezone", None, "IANA"),
        (ScheduleSpec("0 0 * * *", "localtime"), "timezone", None, "IANA"),
        (ScheduleSpec(period_s=0), "period_s", None, "from 1 to"),
        (ScheduleSpec(period_s=-5), "period_s", None, "from 1 to"),
        (ScheduleSpec(period_s=1e300), "period_s", None, "from 1 to"),
        (ScheduleSpec(period_s=float("nan")), "period_s", None, "from 1 to"),
        (ScheduleSpec(period_s=1.00005), "period_s", None, "whole milliseconds"),
        (ScheduleSpec(period_s=60, jitter_s=60), "jitter_s", None, "less than the period"),
        (ScheduleSpec("* * * * *", jitter_s=3_601), "jitter_s", None, "from 0 to 3600"),
        (ScheduleSpec("* * * * *", jitter_s=-1), "jitter_s", None, "from 0 to 3600"),
        (ScheduleSpec("* * * * *", catch_up="some"), "catch_up", None, "latest or skip or all"),
        (ScheduleSpec("* * * * *", catch_up="all"), "catch_up", None, "needs overlap allow"),
        (ScheduleSpec("* * * * *", overlap="replace"), "overlap", None, "skip or queue_one"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(spec, field, place, says):
    fault = fault_of(spec)

    assert fault is not None
    assert (fault.field, fault.place) == (field, place)
    assert says in fault.text


@given(st.text(max_size=40) | st.text("0123456789*/,-L #MON", max_size=30))
def test_any_text_is_a_line_that_comes_due_and_has_words_or_a_fault(line):
    spec = ScheduleSpec(line)
    fault = fault_of(spec)

    if fault is None:
        assert next_due(spec, NOW, NOW) == CronSim(line, NOW).__next__()
        assert in_words(spec).endswith("(UTC)")
    else:
        assert fault.text
