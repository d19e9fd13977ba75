"""The folders of a spool are created safe, and an unsafe spool is rejected."""

import os
import stat
from pathlib import Path

import pytest

from distconv_spool import SpoolUnusable, check, create


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_spool_is_private(tmp_path: Path) -> None:
    layout = create(tmp_path / "spool")
    assert {mode(folder) for folder in [layout.root, *layout.root.iterdir()]} == {0o700}
    assert sorted(folder.name for folder in layout.root.iterdir()) == [
        "accepted", "claimed", "incoming", "rejected", "results", "tmp",
    ]  # fmt: skip


def test_the_umask_does_not_matter(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        layout = create(tmp_path / "spool")
    finally:
        os.umask(before)
    assert mode(layout.incoming) == 0o700


def test_a_group_may_add_drops_and_read_what_became_of_them(tmp_path: Path) -> None:
    layout = create(tmp_path / "spool", group=os.getgid())
    assert mode(layout.root) == 0o2750
    assert mode(layout.tmp) == mode(layout.incoming) == 0o3770
    assert mode(layout.claimed) == 0o2700
    assert mode(layout.accepted) == mode(layout.rejected) == mode(layout.results) == 0o2750


def test_making_a_spool_again_changes_nothing(tmp_path: Path) -> None:
    layout = create(tmp_path / "spool")
    layout.incoming.chmod(0o750)
    (layout.incoming / "a.json").touch()
    create(tmp_path / "spool")
    assert mode(layout.incoming) == 0o750
    assert (layout.incoming / "a.json").exists()


@pytest.mark.parametrize("folder", ["", "tmp", "incoming", "claimed", "accepted", "results"])
def test_a_world_writable_folder_is_refused(tmp_path: Path, folder: str) -> None:
    root = create(tmp_path / "spool").root
    (root / folder).chmod(0o777)
    with pytest.raises(SpoolUnusable, match="Anybody may write"):
        check(root)
    with pytest.raises(SpoolUnusable, match="Anybody may write"):
        create(root)


def test_a_root_whose_folders_a_group_could_replace_is_refused(tmp_path: Path) -> None:
    root = create(tmp_path / "spool").root
    root.chmod(0o770)
    with pytest.raises(SpoolUnusable, match="chmod g-w"):
        check(root)


def test_a_link_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    layout = create(tmp_path / "spool")
    layout.results.rmdir()
    layout.results.symlink_to(tmp_path)
    with pytest.raises(SpoolUnusable, match="a symbolic link"):
        check(layout.root)
    with pytest.raises(SpoolUnusable, match="a symbolic link"):
        create(layout.root, group=os.getgid())


def test_a_file_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    layout = create(tmp_path / "spool")
    layout.results.rmdir()
    layout.results.touch()
    with pytest.raises(SpoolUnusable, match="must be a folder"):
        check(layout.root)


def test_a_folder_that_is_not_a_spool_is_refused_with_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(SpoolUnusable, match="tmp is missing"):
        check(tmp_path)


def test_a_spool_reached_through_a_link_to_its_root_is_fine(tmp_path: Path) -> None:
    layout = create(tmp_path / "spool")
    (tmp_path / "link").symlink_to(layout.root)
    assert check(tmp_path / "link").root == layout.root
