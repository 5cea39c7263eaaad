"""The errors of requests, independent of transport.

AttendantError
├── InvalidRequest           a value of the request is bad; names the field and the limit
│   ├── CallTooLarge         the texts of a call exceed a limit that fewer texts may keep
│   └── LanguageUnknown      the model or the detector lacks a language of the request
├── ModelNotFound            no model of this name
│   └── NoModelForLanguages  no model has the languages of the request
├── ModelNotLoaded           a bundle cannot be loaded while the server runs
├── ModelWithoutHead         the model lacks the head that a call needs
├── GlossaryNotFound         no glossary of this name
├── GlossaryUnreadable       the file of a glossary is broken
├── NotInstalled             a method needs an extra of the package that is not installed
├── Unsupported              a part of another protocol that this server does not have
├── Unavailable              loading, draining, or the worker has died
├── QueueFull                the queue is full; says after how many seconds to retry
│   └── WaitTooLong          the call would wait for most of its time, or longer
├── QuotaExceeded            a limit of the caller is used up; says when to retry
├── DeadlineExceeded         the deadline of the call has passed
└── ModelFailed              the model raised, or returned NaN or infinity

`grpc/interceptors/status.py` holds the one table from these classes to gRPC status codes.
"""

from collections.abc import Mapping


class AttendantError(Exception):
    """Base of all errors whose message may be shown to the caller, and is logged.

    A message holds numbers, and names of fields, limits, and existing models, controls and other
    things of the server. Of the request, it repeats language tags at most, which
    `language_tags.check_tag` has bounded, and names of unknown parameters in other protocols, which
    `grpc/kserve/parameters.py` bounds.
    """

    @property
    def reason(self) -> str:
        """The reason for the log."""
        return str(self)


class Unauthenticated(AttendantError):
    """The caller sent no valid credentials.

    The message is always the same, so that it does not help to guess; ``reason`` is for the log.
    """

    def __init__(self, reason: str) -> None:
        super().__init__('not authenticated: send valid credentials as "authorization: Bearer ..."')
        self._reason = reason

    @property
    def reason(self) -> str:
        """The fault of the credentials, without any part of them."""
        return self._reason


class PermissionDenied(AttendantError):
    """The caller is known, but may not use this method or model."""


class InvalidRequest(AttendantError):
    """A value of the request is bad; ``field`` is its name in the request."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class CallTooLarge(InvalidRequest):
    """A call has too many texts, or asks for too much; with fewer texts it may succeed.

    ``max_texts`` is the maximum number of texts; None if another limit is exceeded.
    """

    def __init__(self, field: str, problem: str, max_texts: int | None = None) -> None:
        super().__init__(field, problem)
        self.max_texts = max_texts


class LanguageUnknown(InvalidRequest):
    """The model of a call, or the language detector, lacks a language of the request.

    ``languages`` is its tag, by the name of its field.
    """

    def __init__(self, field: str, problem: str, tag: str) -> None:
        super().__init__(field, problem)
        self.languages = {field: tag}


class ModelNotFound(AttendantError):
    """No model of this name is loaded."""


class NoModelForLanguages(ModelNotFound):
    """No model has all of ``languages``: tags, by the names of their fields in the request."""

    def __init__(self, message: str, languages: Mapping[str, str]) -> None:
        super().__init__(message)
        self.languages = languages


class ModelNotLoaded(AttendantError):
    """A bundle, or its attention graph, cannot be loaded; the served models stay as they are."""


class ModelWithoutHead(AttendantError):
    """The model lacks the head that the call needs."""


class GlossaryNotFound(AttendantError):
    """No glossary of this name is stored."""


class GlossaryUnreadable(AttendantError):
    """The file of a glossary cannot be read, or has a bad line, which the message names."""


class NotInstalled(AttendantError):
    """The method needs an extra of the package that is not installed."""


class Unsupported(AttendantError):
    """The call asks for a part of its protocol that this server does not have."""


class Unavailable(AttendantError):
    """This server cannot take the call now, but another server might."""


class QueueFull(AttendantError):
    """Too many texts are waiting; try again after ``retry_after_seconds``."""

    def __init__(self, message: str, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class WaitTooLong(QueueFull):
    """The texts that wait before the call would take too much of the time that it has."""


class QuotaExceeded(AttendantError):
    """The caller has used up one of its limits.

    Try again after ``retry_after_seconds``; None if the call can never be taken.
    """

    def __init__(self, message: str, retry_after_seconds: float | None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class DeadlineExceeded(AttendantError):
    """The deadline of a call, or the server's time limit for it, has passed."""


class ModelFailed(AttendantError):
    """The model raised, or returned NaN or infinity; the cause is in the server's log."""
