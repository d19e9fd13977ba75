"""Define the types of fields that have bounds; each bound is stated once.

msgspec checks it when a message is decoded, the OpenAPI document shows it, and
`model.bound_words` says it to a person. `words` and `wrong_type` complete the sentence
"'job_size' …": the first for a value out of bounds, where the bound itself does not say enough, the
second for a value that has another type or is missing.

Only messages to the daemon and settings have these types. A stored record has none, because it must
stay readable whatever the bounds are by then; the structs that messages share with records (a job's
options and its output) have bounds that are only `shown`, and are checked when a job is submitted.
"""

from typing import Annotated, Any

from msgspec import Meta

from distconvd.model.ids import ID_RULE, WORD_PATTERN
from distconvd.model.limits import Limits

WORDS = "words"
WRONG_TYPE = "wrong_type"
RANGE = "range"


def sentence(words: str | None = None, *, wrong_type: str | None = None) -> dict[str, str]:
    """Return what `Meta.extra` says of a field, see the module."""
    said = {WORDS: words, WRONG_TYPE: wrong_type}
    return {kind: text for kind, text in said.items() if text is not None}


def matching(pattern: str, words: str, *, chars: tuple[int, int] | None = None) -> Meta:
    r"""Return the bound of a text that matches a pattern from its first to its last character.

    `chars` are its least and greatest length. The schema shows `$` for Python's `\Z`.
    """
    least, most = chars or (None, None)
    return Meta(pattern=rf"^{pattern}\Z", min_length=least, max_length=most, extra=sentence(words))


def shown(**schema: Any) -> Meta:
    """Return a bound that the schema shows and decoding does not check, in JSON Schema's words."""
    return Meta(extra_json_schema=schema)


def shown_range(least: float, most: float) -> Meta:
    """Return a range that the schema shows; `options.find_fault` checks it."""
    return Meta(extra_json_schema={"minimum": least, "maximum": most}, extra={RANGE: (least, most)})


# ---------------------------------------------------------------------------------------- numbers
Amount = Annotated[float, Meta(ge=0, le=1e15)]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]
JobSize = Annotated[
    float,
    Meta(
        ge=0,
        le=Limits.job_size_mb,
        extra=sentence(wrong_type="must be a non-negative number"),
    ),
]
Capacity = Annotated[Amount, Meta(extra=sentence(wrong_type="must be a non-negative number"))]
BenchmarkTime = Annotated[Seconds, Meta(extra=sentence(wrong_type="must be a non-negative number"))]
Flag = Annotated[bool, Meta(extra=sentence(wrong_type="must be a boolean"))]
MaxRetries = Annotated[
    int,
    Meta(
        ge=0,
        le=Limits.max_retries,
        extra=sentence(wrong_type="must be a non-negative integer"),
    ),
]
Priority = Annotated[
    int, Meta(ge=0, le=2, extra=sentence("must be 0 (normal), 1 (high) or 2 (urgent)"))
]
Slots = Annotated[
    int, Meta(ge=1, le=Limits.slots, extra=sentence(f"must be from 1 to {Limits.slots}"))
]
AttemptNumber = Annotated[
    int, Meta(ge=0, le=2**53 - 1, extra=sentence("must be a non-negative integer"))
]
TimeMs = Annotated[
    int, Meta(ge=0, le=2**53 - 1, extra=sentence("must be milliseconds since the epoch"))
]
ResultCount = Annotated[int, Meta(ge=0, le=2**53)]
ResultNumber = Annotated[float, Meta(ge=0, le=2**53)]

# ------------------------------------------------------------------------------------------ texts
EngineId = Annotated[str, matching(WORD_PATTERN, ID_RULE, chars=(1, Limits.id_chars))]
JobId = Annotated[str, Meta(max_length=Limits.id_chars)]
_CODEC_PATTERN = "[A-Za-z0-9][A-Za-z0-9._+-]*"
CodecName = Annotated[
    str,
    matching(
        _CODEC_PATTERN,
        f"must be one word of at most {Limits.codec_chars} characters (letters, digits, '.', '_',"
        " '+', '-'), such as h264, h265, vp9 or av1",
        chars=(1, Limits.codec_chars),
    ),
]
TargetCodec = Annotated[CodecName, Meta(extra=sentence(wrong_type="is missing or not a string"))]
ShownWord = Annotated[
    str, shown(minLength=1, maxLength=Limits.codec_chars, pattern=f"^{_CODEC_PATTERN}$")
]
"""A preset or a tune, which looks like a codec's name; only shown."""
Tag = Annotated[
    str,
    matching(
        WORD_PATTERN,
        f"must be a list of words of 1 to {Limits.tag_chars} characters without spaces",
        chars=(1, Limits.tag_chars),
    ),
]
ShortText = Annotated[str, Meta(max_length=256)]
Phase = Annotated[str, Meta(max_length=64)]
ResultText = Annotated[str, Meta(max_length=Limits.result_chars)]
Sha256 = Annotated[str, matching("[0-9a-fA-F]{64}", "must be 64 hexadecimal digits")]
SourceUrl = Annotated[
    str,
    Meta(
        max_length=Limits.url_chars,
        description="An absolute URL; the schemes are a setting (`source_schemes`).",
        extra=sentence(wrong_type="is missing or not a string"),
        extra_json_schema={
            "pattern": r"^(https?://[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[1-9][0-9]{0,3})?"
            r"(/[!-Z^-~]*)?|file:///[!-Z^-~]*)$"
        },
    ),
]
"""Its pattern is only shown, and narrower than what `api.validate.check_url` accepts."""
ReportedUrl = Annotated[
    str, Meta(max_length=Limits.url_chars, extra=sentence(wrong_type="must be a string"))
]

# ------------------------------------------------------------------------------ lists and objects
Tags = Annotated[list[Tag], Meta(max_length=Limits.tags)]
JobIds = Annotated[list[JobId], Meta(max_length=Limits.held_jobs)]
CodecNames = Annotated[list[CodecName], Meta(max_length=Limits.codecs)]
ByCodec = Annotated[dict[CodecName, Seconds], Meta(max_length=Limits.codecs)]
LabelName = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=Limits.label_key_chars,
        extra=sentence(f"must have names of 1 to {Limits.label_key_chars} characters"),
    ),
]
LabelValue = Annotated[str, Meta(max_length=Limits.label_value_chars)]
Labels = Annotated[dict[LabelName, LabelValue], Meta(max_length=Limits.labels)]
ResultList = Annotated[list[ResultText], Meta(max_length=Limits.result_entries)]

# --------------------------------------------------------------------------------------- settings
SETTING_MAX = 1e15
"""Settings are less than this, so that sums and clocks stay exact; infinity and NaN are not."""
Positive = Annotated[float, Meta(gt=0, lt=SETTING_MAX)]
PositiveCount = Annotated[int, Meta(gt=0, lt=int(SETTING_MAX))]
NotNegative = Annotated[float, Meta(ge=0, lt=SETTING_MAX)]
NotNegativeCount = Annotated[int, Meta(ge=0, lt=int(SETTING_MAX))]
"""For settings in which 0 means "never", "immediately" or "none"; in the others it would stop the
daemon's work."""
