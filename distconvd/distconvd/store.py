"""Declare what the ledger needs of a store, and the types that they share.

A store is a plugin (hook `distconvd_register_stores`). It keeps four tables of records that are
already encoded as JSON, and looks inside a record only as far as its file format needs.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol, runtime_checkable

Table = Literal["jobs", "engines", "attempts", "meta"]
TABLES: tuple[Table, ...] = ("jobs", "engines", "attempts", "meta")


class Change(NamedTuple):
    """Put (`record` is the encoded record) or delete (`record` is None) one record."""

    table: Table
    key: str
    record: bytes | None


class Snapshot(NamedTuple):
    """Everything that a store contains: each table's records by key, in order of first insertion.

    The dictionaries belong to the caller from then on.
    """

    jobs: dict[str, bytes]
    engines: dict[str, bytes]
    attempts: dict[str, bytes]
    meta: dict[str, bytes]


class RecordName(NamedTuple):
    """Which record of a store."""

    table: Table
    key: str

    def __str__(self) -> str:
        """Return the name as messages show it."""
        return f"{self.table}/{self.key}"


class Damage(NamedTuple):
    """What a disk or a person has damaged, so that the store has lost something.

    Attributes:
        text: what was damaged and what is lost, in one sentence for the operator.
        touched: records of which a change is lost: they are older than what was acknowledged, or missing.
    """

    text: str
    touched: tuple[RecordName, ...] = ()


class Store(Protocol):
    """Durable tables. One task at a time calls it, and it is opened by one daemon at a time.

    Error handling: `load` raises `StoreError` (or a subclass) with a message for the operator.
    `commit` raises `OSError` or `StoreError` when the batch is not durable; then none of the batch
    may be visible to a later `load`, and the next `commit` starts from the state before it.
    """

    async def load(self) -> Snapshot:
        """Lock the store, recover what a crash left, and return everything. Called once, first."""
        ...

    async def commit(self, changes: Sequence[Change]) -> None:
        """Make the changes durable, all or none, in order; they survive a power cut on return."""
        ...

    async def aclose(self) -> None:
        """Make a checkpoint if it is worth it, release the lock. The store is not used
        afterwards."""
        ...


@runtime_checkable
class DamageReporter(Protocol):
    """What a store has besides `Store` if it goes on with what is whole after damage.

    `/readyz` warns as long as there is damage, and `distconvd audit` names the touched records.
    """

    @property
    def damage(self) -> Sequence[Damage]:
        """The damage that has been found and not been acknowledged, also by earlier runs; known once
        `load` has returned."""
        ...

    async def acknowledge_damage(self) -> None:
        """Forget the damage, durably: the operator has read it. Raises `OSError`."""
        ...
