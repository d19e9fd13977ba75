"""An owner has a safe name and a lock, and removes what a crash left in its folder."""

from pathlib import Path

import pytest

from distconv_spool import Layout, Owner, SpoolBusy, SpoolUnusable, create, submit


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return create(tmp_path / "spool")


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "a b", "a\n", "-rf", "x" * 65])
def test_an_owner_that_is_not_a_plain_folder_name_is_refused(layout: Layout, name: str) -> None:
    with pytest.raises(SpoolUnusable, match="cannot be a spool owner"):
        Owner(layout, name)


def test_an_owners_name_is_locked_until_it_is_closed(layout: Layout) -> None:
    owner = Owner(layout, "me")
    with pytest.raises(SpoolBusy, match="'me'"):
        Owner(layout, "me")
    Owner(layout, "you").close()
    owner.close()
    Owner(layout, "me").close()


def test_a_link_in_place_of_the_lock_is_not_followed(layout: Layout, tmp_path: Path) -> None:
    (layout.claimed / "me").mkdir()
    (layout.claimed / "me" / ".lock").symlink_to(tmp_path / "made")
    with pytest.raises(OSError):
        Owner(layout, "me")
    assert not (tmp_path / "made").exists()


def test_unfinished_writes_of_a_crash_are_removed_at_the_start(layout: Layout) -> None:
    (layout.claimed / "me").mkdir()
    (layout.claimed / "me" / ".part-1").write_text("half")
    Owner(layout, "me").close()
    assert [file.name for file in (layout.claimed / "me").iterdir()] == [".lock"]


def test_a_claimed_drop_is_out_of_reach_of_those_who_submit(layout: Layout) -> None:
    owner = Owner(layout, "me")
    assert (layout.claimed / "me").stat().st_mode & 0o077 == 0
    owner.close()


def test_a_drop_that_another_claimed_first_is_left_out(layout: Layout) -> None:
    submit(layout.root, {"a": 1})
    one, two = Owner(layout, "one"), Owner(layout, "two")
    seen = one.waiting()
    assert len(one.claim(seen)[0]) == 1
    assert two.claim(seen) == ([], [])
    one.close()
    two.close()


@pytest.mark.parametrize("job_id", ["../x", "a/b", "", "a.json", "x" * 65])
def test_a_job_id_that_could_be_a_path_is_refused(layout: Layout, job_id: str) -> None:
    submit(layout.root, {"a": 1})
    owner = Owner(layout, "me")
    claims, _ = owner.claim(owner.waiting())
    with pytest.raises(ValueError, match="file name"):
        owner.accept([(claims[0], job_id)])
    with pytest.raises(ValueError, match="file name"):
        owner.publish_results([(job_id, b"{}")])
    owner.close()
