"""Encode an output into a file, and publish the file.

- `StoredFile`: in the attempt's folder, decoded while it is encoded, then moved or uploaded.
- `TargetDirectory`: next to its final name, so that nothing is stored on the engine; read back from
  there, and renamed.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import trio

from distconv_engine.attempts.context import Attempt
from distconv_engine.checks.decode import Decoded
from distconv_engine.checks.output import Evidence, Verified, read_evidence
from distconv_engine.checks.source import CheckedSource
from distconv_engine.encode.command import Request
from distconv_engine.encode.marks import correct_marks
from distconv_engine.encode.run import Encoded
from distconv_engine.host.disk_space import (
    keep_reserve,
    require_disk_space,
    require_space_for_output,
)
from distconv_engine.pipeline.decode_while_encoding import encode_and_decode
from distconv_engine.pipeline.encoder_choice import run_encode
from distconv_engine.pipeline.outputs import Published
from distconv_engine.tasks import open_tasks
from distconv_engine.transfer.destination import FileTarget, Target
from distconv_engine.transfer.folder import open_folder, path_of
from distconv_engine.transfer.publish import (
    directory_faults,
    publish_file,
    publish_http,
    require_free_name,
    temporary_of,
)


class StoredFile:
    """A sink: the output is stored by the engine until it is published."""

    streaming = False

    def __init__(
        self, attempt: Attempt, source: CheckedSource, suffix: str, target: Target
    ) -> None:
        self.path = attempt.folder / f"output{suffix}"
        self._attempt = attempt
        self._source = source
        self._target = target

    async def prepare(self) -> None:
        """Check that the output will fit here, and where it goes."""
        size = self._source.state.size_bytes
        require_space_for_output(self._attempt.config, self._target, size)
        if isinstance(self._target, FileTarget):
            await require_free_name(self._target, self._source.path)

    async def encode(self, request: Request) -> "FileOutput":
        """Encode, and decode at the same time; meanwhile record where a partial file may be."""
        config = self._attempt.config
        async with keep_reserve(config, config.work_dir), open_tasks() as tasks:
            tasks.start(self._record)
            encoded, decoded = await encode_and_decode(
                self._attempt, self._source, request, self.path
            )
        await trio.to_thread.run_sync(correct_marks, self.path, request.plan)
        return FileOutput(
            self._attempt,
            self._source,
            self._target,
            self.path,
            self.path,
            request,
            encoded,
            decoded,
        )

    async def _record(self) -> None:
        if isinstance(self._target, FileTarget):
            await self._attempt.record(temporary_of(self._target, self._attempt.token))


class TargetDirectory:
    """A sink: the output is written to the directory in which it is published."""

    streaming = False

    def __init__(self, attempt: Attempt, source: CheckedSource, target: FileTarget) -> None:
        self._partial = temporary_of(target, attempt.token)
        self._descriptor: int | None = None
        self._attempt = attempt
        self._source = source
        self._target = target

    @property
    def path(self) -> Path:
        """The partial file: the very one that `prepare` made, whatever has its name by now."""
        opened = None if self._descriptor is None else path_of(self._descriptor)
        return opened or self._partial

    async def prepare(self) -> None:
        """Check that the output will fit, and record and create its partial file."""
        directory = self._target.directory
        require_disk_space(self._attempt.config, (directory, self._source.state.size_bytes))
        await require_free_name(self._target, self._source.path)
        await self._attempt.record(self._partial)
        with directory_faults(self._target):
            self._descriptor = await trio.to_thread.run_sync(self._create)

    def _create(self) -> int:
        with open_folder(self._target.root, self._target.parts, create=True) as folder:
            return folder.create(self._partial.name)

    async def encode(self, request: Request) -> "FileOutput":
        """Encode; the file is decoded afterwards."""
        async with keep_reserve(self._attempt.config, self._target.directory):
            encoded = await run_encode(self._attempt, self._source, request)
        await trio.to_thread.run_sync(correct_marks, self.path, request.plan)
        return FileOutput(
            self._attempt, self._source, self._target, self.path, self._partial, request, encoded
        )

    def close(self) -> None:
        """Release the partial file's descriptor."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


@dataclass(frozen=True, slots=True)
class FileOutput:
    """An output in a file."""

    attempt: Attempt
    source: CheckedSource
    target: Target
    path: Path
    """Where it is read."""
    stored: Path
    """Its name on the disk."""
    request: Request
    encoded: Encoded
    decoded: Decoded | None = None
    """The result of a concurrent decode, if there is a valid one."""

    async def read_evidence(self) -> Evidence:
        """Read the file from the disk."""
        return await read_evidence(
            self.attempt.ffmpeg.using(self.request.tools),
            self.request,
            self.path,
            self.decoded,
            duration_s=self.source.duration_s,
            on_progress=self.attempt.tracker.part,
        )

    async def publish(self, verified: Verified) -> Published:
        """Move the file to its place, or upload it."""
        attempt, target = self.attempt, self.target
        if isinstance(target, FileTarget):
            temporary = temporary_of(target, attempt.token)
            url = await publish_file(
                self.stored, verified.sha256, target, temporary, self.source.path
            )
        else:
            url = await publish_http(
                attempt.context.client_for(media_store=target.is_media_store),
                self.path,
                verified.sha256,
                target,
                key=attempt.config.api_key,
                content_type=self.request.plan.container.rules.mime,
                on_progress=attempt.tracker.part,
            )
        return Published(url)
