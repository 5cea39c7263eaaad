"""Calls to the engine and their results. Safe to use from any thread."""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from attendant_server.errors import InvalidRequest

TokenIds = Sequence[int]
Result = TypeVar("Result")

EARLY_SECONDS = 0.01
"""Tolerance for callers that cancel a call slightly before the deadline that they sent."""


def is_cancelled_by_deadline(seconds_left: float | None) -> bool:
    """Whether a call that was cancelled ``seconds_left`` before its deadline most likely hit it.

    None stands for a call without a deadline.
    """
    return seconds_left is not None and seconds_left <= EARLY_SECONDS


@dataclass(slots=True)
class CallTimings:
    """Times of a call's events on the engine's clock, in seconds; None before the event."""

    submitted: float | None = None
    started: float | None = None
    """When the engine took the first text from the queue."""
    encoded: float | None = None
    """When the last encoder run of the call had ended."""
    first_token: float | None = None
    num_first_tokens: int = 0
    """Tokens that the first decoding step decoded for a sentence."""
    finished: float | None = None
    num_batch_texts: int = 0
    """Texts, over all calls, in the last run of an encoder, embedder or scorer with a text of this
    call."""
    num_step_texts: int = 0
    """Sentences, over all calls, in the decoding step that gave the first token."""


def joined_timings(timings: Sequence[CallTimings]) -> CallTimings:
    """The times of calls that are parts of one: from the first start to the last end."""
    encoded = [each.encoded for each in timings if each.encoded is not None]
    finished = [each.finished for each in timings if each.finished is not None]
    return replace(
        timings[0],
        encoded=timings[0].encoded and max(encoded),
        finished=timings[-1].finished and max(finished),
    )


class CallFuture(Future[list[Result]]):
    """The future of a call. It stores the deadline because queues keep futures, not calls."""

    def __init__(self, deadline: float | None) -> None:
        super().__init__()
        self.deadline = deadline
        self.is_over = False
        """Like `done`, without its lock. Workers read this for each sentence at every step."""
        self.was_answered = False

    def cancel(self) -> bool:
        """Cancel the future if it is pending; returns whether it is cancelled."""
        is_cancelled = super().cancel()
        self.is_over |= is_cancelled
        return is_cancelled

    def set_result(self, result: list[Result]) -> None:
        """Resolve the future."""
        self.is_over = self.was_answered = True
        super().set_result(result)

    def set_exception(self, exception: BaseException | None) -> None:
        """Fail the future."""
        self.is_over = True
        super().set_exception(exception)

    def came_too_late(self, now: float) -> bool:
        """Whether the call most likely ended because of its deadline."""
        return self.deadline is not None and is_cancelled_by_deadline(self.deadline - now)


class Caller(NamedTuple):
    """The sender of calls, with whom other senders share a model fairly."""

    name: str = ""
    is_bulk: bool = False
    """Whether nobody waits for the answers, so that other callers have priority at any load."""
    weight: float = 1.0
    """The caller's share of a busy model, relative to the shares of others."""


ANY_CALLER = Caller()
"""The sender of calls without a caller of their own."""


class Call(Generic[Result]):
    """One request: several texts that are admitted and answered together.

    ``future`` resolves to one result per text, in order. Cancelling the future abandons the call:
    no later model run includes its texts. A call is also abandoned once ``deadline``, a time in
    seconds on the engine's clock, has passed; the future then fails with `DeadlineExceeded`.
    """

    caller = ANY_CALLER
    width = 1
    """Rows for each text."""
    may_wait = False
    """Whether the call is admitted however long it would wait."""

    def __init__(self, num_texts: int, deadline: float | None) -> None:
        self.num_texts = num_texts
        self.deadline = deadline
        self.future: CallFuture[Result] = CallFuture(deadline)
        self.timings = CallTimings()
        self._results: dict[int, Result] = {}
        self._lock = threading.Lock()

    def is_over(self) -> bool:
        """Whether the call was answered, has failed or was abandoned."""
        return self.future.is_over

    def is_abandoned(self, now: float) -> bool:
        """Whether the call is over or its deadline has passed."""
        return self.future.is_over or (self.deadline is not None and now >= self.deadline)

    def is_expired(self, now: float) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and now >= self.deadline

    def put(self, index: int, result: Result, now: float) -> None:
        """Add the result of one text; the last one resolves the future. Engine's threads only."""
        with self._lock:
            self._results[index] = result
            is_complete = len(self._results) == self.num_texts and self._claim()
        if is_complete:
            self.timings.finished = now
            self.future.set_result([self._results[i] for i in range(self.num_texts)])

    def fail(self, error: Exception) -> None:
        """Fail the call, unless it is over already. Engine's threads only."""
        with self._lock:
            is_first = self._claim()
        if is_first:
            self.future.set_exception(error)

    def _claim(self) -> bool:
        # The caller may cancel at any moment before this; afterwards cancelling has no effect.
        future = self.future
        return not (future.done() or future.running()) and future.set_running_or_notify_cancel()


class Sampling(NamedTuple):
    """How tokens are drawn at random.

    Log-probabilities are divided by ``temperature``. Only the ``top_k`` likeliest tokens are drawn,
    of these the likeliest ones with the probability ``top_p`` together, and only tokens with at
    least ``min_p`` times the probability of the likeliest one.
    """

    temperature: float
    top_k: int
    top_p: float = 1.0
    min_p: float = 0.0


Stops: TypeAlias = Callable[[TokenIds], bool]
"""Whether a hypothesis with these tokens ends here, because of what its caller looks for in them.
It runs after each token, on a thread of the engine, and must be quick."""


class SearchOptions(NamedTuple):
    """Options of the search for the best hypotheses of one text."""

    max_output_tokens: int
    beam_size: int = 1
    num_hypotheses: int = 1
    length_penalty: float = 1.0
    min_output_tokens: int = 0
    suppressed_token_ids: tuple[int, ...] = ()
    """Ids of tokens that no hypothesis may contain."""
    forced_token_ids: tuple[int, ...] = ()
    """Tokens that every hypothesis begins with. Their log-probability is 0."""
    prefix_bias: float | None = None
    """What the next token of the prefix of a source gains in its log-probability over others, as
    long as a hypothesis follows the prefix; None if all hypotheses begin with the prefix."""
    biased_token_ids: tuple[int, ...] = ()
    """The prefix with this bias, after the forced tokens."""
    suppressed_next_ids: tuple[int, ...] = ()
    """Tokens that must not come right after the forced ones."""
    early_stopping: bool = False
    """Whether a beam search ends when ``patience`` x ``beam_size`` hypotheses have finished."""
    patience: float = 1.0
    num_beam_groups: int = 1
    """Groups of a diverse beam search, a divisor of ``beam_size``. 1 for other searches."""
    diversity_penalty: float = 0.0
    """Penalty of a token for each beam of an earlier group that has it at the same position."""
    num_alternatives: int = 1
    """Different tokens after the forced ones that are continued, each with ``beam_size`` beams."""
    no_repeat_ngram_size: int = 0
    """Size of the n-grams that no hypothesis may have twice. 0 for no such rule."""
    repetition_penalty: float = 1.0
    """Penalty of the tokens that a hypothesis has already. 1 for none."""
    repetition_guard: bool = False
    """Whether hypotheses are kept from repeating a phrase over and over."""
    sampling: Sampling | None = None
    """If given, ``beam_size`` is 1, and tokens are drawn at random."""
    stops: Stops | None = None
    """What ends a hypothesis as the end token does; None for nothing."""
    max_output_ratio: int | None = None
    """If given, output tokens are also limited to this times the source tokens, plus
    ``extra_output_tokens``."""
    extra_output_tokens: int = 0

    @property
    def width(self) -> int:
        """Rows of the search."""
        return self.beam_size * self.num_alternatives

    def for_source(self, num_source_tokens: int, prefix: tuple[int, ...] = ()) -> "SearchOptions":
        """These options with the output limit of one text and the prefix of its hypotheses.

        The prefix is forced or, with `prefix_bias`, made likelier.
        """
        options = self
        if self.max_output_ratio is not None:
            limit = self.max_output_ratio * num_source_tokens + self.extra_output_tokens
            limit = min(self.max_output_tokens, max(limit + len(prefix), self.min_output_tokens))
            options = self._replace(max_output_tokens=limit, max_output_ratio=None)
        if prefix and self.prefix_bias is not None:
            options = options._replace(biased_token_ids=prefix)
        elif prefix:
            options = options._replace(forced_token_ids=(*self.forced_token_ids, *prefix))
        return options


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One translation or continuation: its tokens, up to the one that ends it, and its scores."""

    token_ids: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    score: float
    is_complete: bool
    """True if the end token was decoded, or `SearchOptions.stops` found something; False if the
    length limit or a loop was reached."""
    is_loop: bool = False
    """Whether the tokens were cut before they repeat themselves (`repetition_guard`)."""
    num_rewinds: int = 0
    """How many times the search has backed out of a loop (`repetition_guard`)."""


class TranslateCall(Call[list[Hypothesis]]):
    """Translate sources, or continue them if the model is a language model.

    Sources of a translation model end with the end token. Results are hypotheses, best first.

    A text has fewer hypotheses than requested, or none, if its options forbid too many tokens.
    """

    def __init__(
        self,
        sources: Sequence[TokenIds],
        options: SearchOptions,
        deadline: float | None = None,
        on_prefix: Callable[[tuple[int, ...]], None] | None = None,
        seeds: Sequence[str] = (),
        prefixes: Sequence[tuple[int, ...]] = (),
        stops: Sequence[Stops | None] = (),
    ) -> None:
        """``on_prefix`` receives the settled prefix of the first source, whenever it grows.

        ``seeds`` has one seed for each source if tokens are drawn. ``prefixes`` are the tokens that
        the hypotheses of each source begin with, after the forced tokens of the options; empty if
        no source has any. ``stops`` are `SearchOptions.stops` of each source, or none. The settled
        prefix is the common prefix of the token ids of all hypotheses that can still win. The
        callback runs on one of the engine's threads and must be quick.
        """
        super().__init__(len(sources), deadline)
        self.width = options.width
        self.sources = sources
        self.options = options
        self.on_prefix = on_prefix
        self.seeds = seeds
        self.prefixes = prefixes
        self.stops = stops

    def options_for(self, index: int, num_source_tokens: int) -> SearchOptions:
        """The options of the search for one source."""
        prefix = self.prefixes[index] if self.prefixes else ()
        options = self.options.for_source(num_source_tokens, prefix)
        return options._replace(stops=self.stops[index]) if self.stops else options


class SearchTooLarge(InvalidRequest):
    """The searches of some texts need more cache memory than a worker may use.

    ``problems`` holds the problem of each of these texts by its index in the call.
    """

    def __init__(self, problems: Mapping[int, str]) -> None:
        super().__init__("texts", next(iter(problems.values())))
        self.problems = problems
