"""List engines; drain, resume, benchmark or forget them: the command engines."""

import click

from distconv_client.display import tables, text
from distconv_client.display.terminal import print_json, stderr_console, stdout_console
from distconv_client.help_examples import Command, Group
from distconv_client.shared import Flags, each, pass_flags, shared_flags
from distconv_client.views import EngineView


@click.group(
    cls=Group,
    invoke_without_command=True,
    examples=(
        "distconv engines",
        "distconv engines --json | jq -r 'select(.status == \"idle\") | .engine_id'",
        "distconv engines drain attic-1",
    ),
)
@click.pass_context
@shared_flags
def engines(context: click.Context) -> None:
    """List engines; drain, resume, benchmark or forget them.

    With --json: one engine a line.
    """
    if context.invoked_subcommand is None:
        list_engines(context.ensure_object(Flags))


def list_engines(flags: Flags) -> None:
    """Print all engines, or say that none has registered."""
    with flags.client() as client:
        found = client.engines()
    if flags.as_json:
        for engine in found:
            print_json(engine)
    elif found:
        tables.print_table(stdout_console(), tables.ENGINE_COLUMNS, map(tables.engine_row, found))
        for engine in found:
            if engine.lacks is not None:
                stdout_console().out(text.clean(f"{engine.engine_id}: {engine.lacks}"))
    else:
        stderr_console().out(
            "No engine has registered. Start one: distconv-engine --server URL --output DIR"
        )


@engines.command(
    cls=Command,
    examples=(
        "distconv engines drain attic-1",
        "distconv engines drain attic-1 attic-2",
    ),
)
@click.argument("engine_ids", metavar="ENGINE...", nargs=-1, required=True)
@shared_flags
@pass_flags
def drain(flags: Flags, engine_ids: tuple[str, ...]) -> None:
    """Let engines finish their jobs, and assign them nothing new."""
    with flags.client() as client:
        each(engine_ids, client.drain_engine, lambda engine: print_engine(engine, flags))


@engines.command(cls=Command, examples=("distconv engines resume attic-1",))
@click.argument("engine_ids", metavar="ENGINE...", nargs=-1, required=True)
@shared_flags
@pass_flags
def resume(flags: Flags, engine_ids: tuple[str, ...]) -> None:
    """Let drained or quarantined engines work again."""
    with flags.client() as client:
        each(engine_ids, client.resume_engine, lambda engine: print_engine(engine, flags))


@engines.command(cls=Command, examples=("distconv engines benchmark attic-1",))
@click.argument("engine_ids", metavar="ENGINE...", nargs=-1, required=True)
@shared_flags
@pass_flags
def benchmark(flags: Flags, engine_ids: tuple[str, ...]) -> None:
    """Have engines measure their speed again.

    An engine accepts nothing new until its jobs have ended and the benchmark is done.
    """
    with flags.client() as client:
        each(engine_ids, client.benchmark_engine, lambda engine: print_engine(engine, flags))


@engines.command(cls=Command, examples=("distconv engines forget attic-1",))
@click.argument("engine_ids", metavar="ENGINE...", nargs=-1, required=True)
@shared_flags
@pass_flags
def forget(flags: Flags, engine_ids: tuple[str, ...]) -> None:
    """Remove engines from the list.

    One that still runs comes back with its next heartbeat.
    """
    with flags.client() as client:

        def forget_one(engine_id: str) -> str:
            client.forget_engine(engine_id)
            return engine_id

        each(engine_ids, forget_one, lambda engine_id: print_forgotten(engine_id, flags))


def print_engine(engine: EngineView, flags: Flags) -> None:
    """Print an engine's ID and present status."""
    if flags.as_json:
        return print_json(engine)
    line = f"{text.clean(engine.engine_id)}  {text.clean(engine.status)}"
    return stdout_console().out(line, highlight=False)


def print_forgotten(engine_id: str, flags: Flags) -> None:
    """Print that an engine was removed from the list."""
    if flags.as_json:
        return print_json({"engine_id": engine_id, "forgotten": True})
    return stdout_console().out(f"{text.clean(engine_id)}  forgotten", highlight=False)
