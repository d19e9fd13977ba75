"""What may be submitted, and by whom: rules by the name of the key that a submission comes with.

    [plugin.submission-rules]
    caller_label = "submitted_by"

    [[plugin.submission-rules.rules]]
    callers = ["web-*"]
    codecs = ["h264", "hevc"]
    priority_max = 0
    job_size_mb_max = 5000
    labels = ["project"]

The first rule whose `callers` fit a key's name holds for it; a caller that fits none may submit anything.
With `caller_label`, each job has that label with the name of its key, whatever was sent: `fair-share` can
then take turns by key. The spool and hot folders submit as `local`.

These are rails, not walls: who may submit may also change the priority and labels of a job that waits
(`PATCH`), which is not looked at here.
"""

from fnmatch import fnmatchcase

import msgspec

from distconvd import hookimpl
from distconvd.errors import BadRequest
from distconvd.hookspecs import PluginContext, SettingsRegistrar
from distconvd.model import Submission, canonical_codec

NAME = "submission-rules"


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What some callers may submit; what is left out is not limited."""

    callers: list[str]
    """Names of keys, or patterns such as `web-*`."""
    codecs: list[str] = []
    """The codecs that they may ask for; none named: any."""
    priority_max: int = 2
    """The highest priority that they may ask for."""
    job_size_mb_max: float | None = None
    """The largest `job_size`."""
    labels: list[str] = []
    """Labels that each of their jobs must have."""

    def refuse_what_breaks_it(self, submission: Submission, caller: str) -> None:
        """Raise `BadRequest` that names the field for what this rule does not let in."""
        if self.codecs and canonical_codec(submission.target_codec) not in self._codecs():
            raise BadRequest(
                f"{caller!r} may ask for {', '.join(self.codecs)}, not {submission.target_codec}.",
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
                f"Jobs of {caller!r} need the label {missing[0]!r}: say for what they are.",
                field="labels",
            )

    def _codecs(self) -> set[str]:
        return {canonical_codec(name) for name in self.codecs}


class SubmissionRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Table `[plugin.submission-rules]`."""

    caller_label: str | None = None
    """The label that tells the name of the key that a job came with."""
    rules: list[Rule] = []
    """The first whose `callers` fit holds."""


@hookimpl
def distconvd_register_settings(registrar: SettingsRegistrar) -> None:
    """Declare `[plugin.submission-rules]`."""
    registrar.add(NAME, SubmissionRules)


@hookimpl
def distconvd_review_submission(
    submission: Submission, caller: str, context: PluginContext
) -> Submission | None:
    """Refuse what the caller's rule does not let in; note whose it is."""
    settings = context.settings(NAME, SubmissionRules)
    for rule in settings.rules:
        if any(fnmatchcase(caller, pattern) for pattern in rule.callers):
            rule.refuse_what_breaks_it(submission, caller)
            break
    if settings.caller_label is None:
        return None
    labels = {**submission.labels, settings.caller_label: caller}
    return msgspec.structs.replace(submission, labels=labels)
