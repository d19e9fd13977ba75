"""A drop is durable when `submit` returns, and never incomplete."""

import errno
import json
from pathlib import Path

import pytest

from distconv_spool import BadDrop, Layout, SpoolUnusable, create, mint_key, submit
from distconv_spool.testing import Fault, FaultyDisk, PowerCut

FIELDS = {"source_url": "file:///a.mov", "target_codec": "av1"}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return create(tmp_path / "spool")


def test_a_mapping_becomes_a_json_file_in_incoming(layout: Layout) -> None:
    drop = submit(layout.root, FIELDS)
    assert json.loads((layout.incoming / drop.name).read_bytes()) == FIELDS
    assert list(layout.tmp.iterdir()) == []


def test_a_json_text_is_dropped_as_it_is(layout: Layout) -> None:
    drop = submit(str(layout.root), '{"é": 1}')
    assert (layout.incoming / drop.name).read_text() == '{"é": 1}'


def test_a_toml_text_is_dropped_as_json(layout: Layout) -> None:
    drop = submit(layout.root, "priority = 1", toml=True)
    assert json.loads((layout.incoming / drop.name).read_bytes()) == {"priority": 1}


def test_the_group_can_read_a_drop_whatever_the_umask(layout: Layout) -> None:
    drop = submit(layout.root, FIELDS)
    assert (layout.incoming / drop.name).stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("fields", ["[]", b"\xff", "\ud800", '{"a": "' + "x" * 300_000 + '"}'])
def test_invalid_fields_are_rejected_before_anything_is_written(
    layout: Layout, fields: bytes | str
) -> None:
    with pytest.raises(BadDrop):
        submit(layout.root, fields)
    assert list(layout.tmp.iterdir()) == list(layout.incoming.iterdir()) == []


def test_a_folder_that_is_not_a_spool_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpoolUnusable):
        submit(tmp_path, FIELDS)


def test_a_key_of_another_form_is_refused(layout: Layout) -> None:
    with pytest.raises(ValueError, match="32 lower-case hex"):
        submit(layout.root, FIELDS, key="../../evil")


def test_submitting_twice_with_the_same_key_makes_one_drop(layout: Layout) -> None:
    key = mint_key()
    assert submit(layout.root, FIELDS, key=key) == submit(layout.root, FIELDS, key=key)
    assert [file.name for file in layout.incoming.iterdir()] == [f"{key}.json"]


@pytest.mark.parametrize("lose", [False, True])
@pytest.mark.parametrize("fault", [Fault.STOP_BEFORE, Fault.STOP_TORN, Fault.STOP_AFTER])
def test_a_power_cut_at_any_operation_leaves_a_whole_drop_or_none(
    tmp_path: Path, fault: Fault, lose: bool
) -> None:
    for at in range(1, 20):
        layout = create(tmp_path / f"spool{at}")
        disk, returned = FaultyDisk(at, fault), False
        try:
            submit(layout.root, FIELDS, key=mint_key(), disk=disk)
            returned = True
        except PowerCut:
            pass
        if lose:
            disk.lose_unsynced()
        contents = [json.loads(file.read_bytes()) for file in layout.incoming.iterdir()]
        assert contents == [FIELDS] or (contents == [] and not returned)
        if not disk.struck:
            assert returned
            assert at == 4, "a new step needs its row in docs/spool.md"
            return
    pytest.fail("every call of submit hit its fault: raise the number of operations?")


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES])
def test_a_disk_error_is_raised_and_leaves_nothing_behind(layout: Layout, error: int) -> None:
    for at in (1, 2):
        with pytest.raises(OSError) as caught:
            submit(layout.root, FIELDS, disk=FaultyDisk(at, Fault.FAIL, error))
        assert caught.value.errno == error
        assert list(layout.tmp.iterdir()) == list(layout.incoming.iterdir()) == []


def test_repeating_a_failed_submit_with_its_key_makes_one_drop(layout: Layout) -> None:
    key = mint_key()
    with pytest.raises(OSError):
        submit(layout.root, FIELDS, key=key, disk=FaultyDisk(3, Fault.FAIL, errno.EIO))
    submit(layout.root, FIELDS, key=key)
    assert len(list(layout.incoming.iterdir())) == 1
