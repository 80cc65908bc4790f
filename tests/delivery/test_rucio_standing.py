"""What the agent of an RSE says of itself, and when it tries again what failed."""

from __future__ import annotations

from pacmirror.delivery.rucio.standing import Standing, Trouble


def test_pauses_grow_to_an_hour_and_go_on_for_months():
    trouble, pauses = None, []
    for number in range(3000):
        trouble = Trouble.after(trouble, "sw:one", "nobody has it", number * 3600.0)
        pauses.append(trouble.next_at - trouble.tried_at)
    assert pauses[:4] == [60.0, 120.0, 240.0, 480.0]
    assert set(pauses[6:]) == {3600.0}
    assert trouble.attempts == 3000


def test_a_clock_that_was_set_back_keeps_nothing_from_being_tried():
    trouble = Trouble.after(None, "sw:one", "nobody has it", 1e12)
    assert not trouble.is_due(1e12 + 59)
    assert trouble.is_due(1e12 + 60)
    assert trouble.is_due(1e9)


def test_what_cannot_leave_is_among_the_warnings():
    standing = Standing("SITE", staying={"sw:one": Trouble.after(None, "sw:one", "Rucio does not know it", 0.0)})
    assert [line for line in standing.warnings() if "could not be let go" in line and "Rucio does not know it" in line]
