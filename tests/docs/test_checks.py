"""The documents explain the checks and notes of a result as the engine's registry has them."""

from tests.docs import pages

from distconv_engine.checks.registry import (
    CHECKS,
    MEASURES,
    NOTES,
    Check,
    Note,
    check_table,
    measure_table,
    note_table,
)

GUIDE = pages.section(pages.read("docs/user_guide.md"), "## What a result has passed")
VERIFICATION = pages.read("docs/verification.md")


def test_the_guide_has_every_check_and_note_of_a_result() -> None:
    assert check_table() in GUIDE
    assert note_table() in GUIDE


def test_the_page_on_verification_has_every_measure() -> None:
    assert measure_table("source") in VERIFICATION
    assert measure_table("output") in VERIFICATION


def test_every_check_and_note_has_its_row_and_every_check_a_measure() -> None:
    assert list(CHECKS) == list(Check)
    assert list(NOTES) == list(Note)
    assert {check for row in MEASURES for check in row.checks} == set(Check)
