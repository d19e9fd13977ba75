"""Choose where an output goes, and how it gets there.

A source that is stored here has an output that is stored here, too. Where the source is proxied,
nothing is stored: the output goes directly to its directory, or is uploaded while it is encoded.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from distconv_engine.attempts.context import Attempt
from distconv_engine.checks.source import CheckedSource
from distconv_engine.encode.command import Request
from distconv_engine.encode.plan import Plan
from distconv_engine.pipeline.file_sinks import StoredFile, TargetDirectory
from distconv_engine.pipeline.outputs import Output
from distconv_engine.pipeline.upload_while_encoding import open_upload, why_not_streamed
from distconv_engine.transfer.destination import FileTarget, choose_target
from distconv_engine.transfer.range_reader import NotStreamable


class Sink(Protocol):
    """The place of one output."""

    @property
    def path(self) -> Path:
        """The file or named pipe that ffmpeg writes to."""
        ...

    @property
    def streaming(self) -> bool:
        """Whether no part of the output can be rewritten once it is written."""
        ...

    async def prepare(self) -> None:
        """Make it ready, once, before the first encode; raises if the output cannot fit."""
        ...

    async def encode(self, request: Request) -> Output:
        """Run one encode; after a failure, another one may be tried."""
        ...


@asynccontextmanager
async def open_sink(attempt: Attempt, source: CheckedSource, plan: Plan) -> AsyncGenerator[Sink]:
    """Open the sink for what is planned.

    Raises:
        NotStreamable: the output needs what a streaming upload cannot write.
    """
    config = attempt.config
    target = choose_target(
        attempt.job,
        plan.container.suffix,
        output=config.output,
        server=config.server,
        roots=config.source_root,
    )
    if source.path is not None:
        yield StoredFile(attempt, source, plan.container.suffix, target)
    elif isinstance(target, FileTarget):
        directory = TargetDirectory(attempt, source, target)
        try:
            yield directory
        finally:
            directory.close()
    elif reason := why_not_streamed(plan, attempt.job.options):
        raise NotStreamable(reason)
    else:
        async with open_upload(attempt, source, target) as upload:
            yield upload
