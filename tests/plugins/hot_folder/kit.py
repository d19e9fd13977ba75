"""Set up a watched folder, and a fake daemon that outlives every service on that folder."""

import json
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec
import trio

from distconv_plugins.hot_folder.plugin import HotFolder
from distconv_spool.disk import OsDisk
from distconvd.dispatch import Event
from distconvd.errors import BadRequest, NotFound, Unprocessable
from distconvd.model import FailureClass, Job, JobResult, JobStatus, Submission


class FakeDaemon:
    """Loses nothing: each key is one job; it outlives every service of a test."""

    def __init__(self) -> None:
        self.by_key: dict[str, tuple[bytes, str]] = {}
        self.jobs: dict[str, Job] = {}
        self.down: Exception | None = None
        self.refused_codecs: set[str] = set()

    async def submit(self, fields: bytes, *, idempotency_key: str) -> Job:
        await trio.lowlevel.checkpoint()
        if self.down is not None:
            raise self.down
        if idempotency_key not in self.by_key:
            submission = msgspec.json.decode(fields, type=Submission)
            if submission.target_codec in self.refused_codecs:
                raise BadRequest("There is no such codec.")
            job_id = f"1753_{len(self.jobs) + 1}"
            given = {name: getattr(submission, name) for name in Submission.__struct_fields__}
            self.jobs[job_id] = Job(job_id, **given)
            self.by_key[idempotency_key] = (fields, job_id)
        known, job_id = self.by_key[idempotency_key]
        if known != fields:
            raise Unprocessable("This Idempotency-Key was used before for a different request.")
        return self.jobs[job_id]

    async def job(self, job_id: str) -> Job:
        await trio.lowlevel.checkpoint()
        if job_id not in self.jobs:
            raise NotFound("Job not found")
        return self.jobs[job_id]

    def end(self, job_id: str, status: JobStatus = JobStatus.COMPLETED) -> Event:
        job = self.jobs[job_id]
        if status is JobStatus.COMPLETED:
            assert job.output
            ended = {"output_url": f"{job.output.url}out.mp4", "result": JobResult(size_bytes=7)}
        else:
            ended = {"error_message": "no such file", "error_class": FailureClass.INPUT}
        job = msgspec.structs.replace(job, status=status, assigned_engine="e1", **ended)
        self.jobs[job_id] = job
        record = msgspec.json.encode(job)
        if status is JobStatus.COMPLETED:
            return Event("job.completed", 0, job_id, record=record)
        return Event("job.failed", 0, job_id, record=record)

    @property
    def sources(self) -> list[str]:
        """The names of all sources, in the order of their jobs."""
        return [unquote(urlsplit(job.source_url).path).split("/watch/")[1] for job in self.all]

    @property
    def all(self) -> list[Job]:
        return list(self.jobs.values())


class Site:
    """A watched folder, and the service on it that a test starts and stops."""

    def __init__(self, root: Path) -> None:
        self.watch = root / "watch"
        self.records = root / "state.json.hot-folder"
        self.daemon = FakeDaemon()
        self.watch.mkdir(parents=True)
        self.output_roots = [self.watch.parent]
        self.now_s = 0.0

    def video(self, path: str, content: str = "video") -> Path:
        place = self.watch / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content)
        return place

    def settings(self, folder: str, text: str) -> Path:
        place = self.watch / folder / "distconv.toml"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        return place

    def service(self, disk: OsDisk | None = None) -> HotFolder:
        return HotFolder(
            self.watch, self.records, self.daemon, output_roots=self.output_roots, disk=disk
        )

    async def scan(self, service: HotFolder, times: int = 2) -> int:
        """Scan often enough that every file becomes stable."""
        made = 0
        for _ in range(times):
            self.now_s += 10.0
            made += await service.poll(self.now_s)
        return made

    async def live(
        self,
        disk: OsDisk | None = None,
        *,
        ends: bool = False,
        status: JobStatus = JobStatus.COMPLETED,
    ) -> None:
        """Run a service once: start, submit all videos, end the jobs if asked, report, stop."""
        service = self.service(disk)
        async with service.opened():
            await service.catch_up()
            await self.scan(service)
            if ends:
                for job in self.daemon.all:
                    if job.status is JobStatus.PENDING:
                        service.on_event(self.daemon.end(job.job_id, status))
            await service.publish()

    def report(self, path: str) -> dict[str, object]:
        found: dict[str, object] = json.loads((self.watch / f"{path}.report.json").read_bytes())
        return found
