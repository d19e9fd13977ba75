"""Limit what each caller may submit, by rules for the names of their keys.

    [plugin.submission-rules]
    caller_label = "submitted_by"

    [[plugin.submission-rules.rules]]
    callers = ["web-*"]
    codecs = ["h264", "hevc"]
    priority_max = 0
    job_size_mb_max = 5000
    labels = ["project"]

The first rule whose `callers` match a key's name applies to it; a caller that no rule matches may
submit anything. With `caller_label`, each job gets that label with the name of its key as the
value, whatever was sent, so that `fair-share` can take turns by key. The spool and hot folders
submit as `local`.

The rules prevent mistakes, not abuse: a caller who may submit may also change the priority and
labels of a pending job (`PATCH`), which is not checked here.
"""

from fnmatch import fnmatchcase

import msgspec

from distconvd import hookimpl
from distconvd.errors import BadRequest
from distconvd.hookspecs import PluginContext, SettingsRegistrar
from distconvd.model import Submission, canonical_codec

NAME = "submission-rules"


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What some callers may submit; a field that is left out limits nothing."""

    callers: list[str]
    """Names of keys, or patterns such as `web-*`."""
    codecs: list[str] = []
    """The codecs that they may request; if empty, any."""
    priority_max: int = 2
    """The highest priority that they may request."""
    job_size_mb_max: float | None = None
    """The largest `job_size`."""
    labels: list[str] = []
    """Labels that each of their jobs must have."""

    def refuse_what_breaks_it(self, submission: Submission, caller: str) -> None:
        """Raise `BadRequest`, naming the field, for a submission that this rule does not allow."""
        if self.codecs and canonical_codec(submission.target_codec) not in self._codecs():
            raise BadRequest(
                f"{caller!r} may request {', '.join(self.codecs)}, not {submission.target_codec}.",
                field="target_codec",
            )
        if submission.priority > self.priority_max:
            raise BadRequest(
                f"{caller!r} may submit with priority {self.priority_max} at most.",
                field="priority",
            )
        if self.job_size_mb_max is not None and submission.job_size > self.job_size_mb_max:
            raise BadRequest(
                f"{caller!r} may submit jobs of {self.job_size_mb_max:g} MB at most.",
                field="job_size",
            )
        missing = [name for name in self.labels if not submission.labels.get(name)]
        if missing:
            raise BadRequest(
                f"Jobs of {caller!r} need the label {missing[0]!r} with a value.",
                field="labels",
            )

    def _codecs(self) -> set[str]:
        return {canonical_codec(name) for name in self.codecs}


class SubmissionRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Table `[plugin.submission-rules]`."""

    caller_label: str | None = None
    """The label whose value is the name of the key that a job was submitted with."""
    rules: list[Rule] = []
    """The first whose `callers` match applies."""


@hookimpl
def distconvd_register_settings(registrar: SettingsRegistrar) -> None:
    """Declare `[plugin.submission-rules]`."""
    registrar.add(NAME, SubmissionRules)


@hookimpl
def distconvd_review_submission(
    submission: Submission, caller: str, context: PluginContext
) -> Submission | None:
    """Reject what the caller's rule does not allow; label the job with its caller."""
    settings = context.settings(NAME, SubmissionRules)
    for rule in settings.rules:
        if any(fnmatchcase(caller, pattern) for pattern in rule.callers):
            rule.refuse_what_breaks_it(submission, caller)
            break
    if settings.caller_label is None:
        return None
    labels = {**submission.labels, settings.caller_label: caller}
    return msgspec.structs.replace(submission, labels=labels)
