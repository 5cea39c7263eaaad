"""Token-budget batching for one embedding model.

A batch holds the oldest text and texts of similar length, within a budget of padded tokens. While a
translation scheduler has work on the same worker, the measured time per token limits the batch as
well, which bounds the delay of decoding steps. While there are lanes, one of several workers takes
no texts of heavy callers (decision 0094).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from attendant_server.engine.admission_queue import AdmissionQueue
from attendant_server.engine.attention_calls import AttendTextCall, Attention
from attendant_server.engine.batch_budget import BatchBudget
from attendant_server.engine.caller_activity import CallerActivity
from attendant_server.engine.caller_queue import QueuedText
from attendant_server.engine.calls import Call
from attendant_server.engine.encoder_calls import (
    SPARSE_TOKEN_IDS,
    SPARSE_VECTORS,
    TOKEN_VECTORS,
    EmbedCall,
    FillMaskCall,
    MaskCandidates,
)
from attendant_server.engine.mask_predictions import MaskedText, predictions
from attendant_server.engine.models import EmbeddingModel
from attendant_server.engine.reports import Observer
from attendant_server.engine.scheduler import Scheduler


@dataclass(frozen=True, slots=True)
class EmbeddingLimits:
    """Bounds of an embedding scheduler."""

    max_batch_tokens: int
    """Padded tokens of one batch. The activations of larger batches exceed the caches of a CPU."""
    max_batch_seconds: float
    """Seconds that a batch may take while another scheduler waits, at the measured speed."""
    max_queued_texts: int
    run_clock: Callable[[], float] | None = None
    """The clock of runs for `BatchBudget`; None for that of the scheduler."""


OF_TOKENS = "hidden_", TOKEN_VECTORS
"""Beginnings of the names of outputs with a vector for each token."""
EncoderCall: TypeAlias = EmbedCall | FillMaskCall | AttendTextCall
"""The calls that an embedding model can run."""
Results: TypeAlias = tuple[dict[str, NDArray[np.float32]], list[Attention]]
"""The outputs of the texts to embed, each with a batch axis, and the attention of other texts."""


class EmbeddingScheduler(Scheduler):
    """Runs the batches of one worker for one embedding model; the model's queue is shared."""

    _queue: AdmissionQueue[EncoderCall]

    def __init__(
        self,
        name: str,
        model: EmbeddingModel,
        limits: EmbeddingLimits,
        observer: Observer,
        clock: Callable[[], float],
        sibling: Self | None = None,
        activity: CallerActivity | None = None,
    ) -> None:
        runs = [self._run_lane]
        super().__init__(name, limits.max_queued_texts, observer, clock, sibling, activity, runs)
        self._model = model
        self._budget = BatchBudget(
            limits.max_batch_tokens, limits.max_batch_seconds, limits.run_clock or clock
        )

    @property
    def has_work(self) -> bool:
        """Whether any text waits that this worker may take."""
        return self._has_texts(self._queue)

    @property
    def num_active(self) -> int:
        """Texts in the running batch."""
        return len(self._in_flight)

    def submit(self, call: Call[Any]) -> None:
        """Queue an `EncoderCall`; raises QueueFull or TypeError. Any thread."""
        if not isinstance(call, EmbedCall | FillMaskCall | AttendTextCall):
            raise TypeError(f"an embedding model cannot run a {type(call).__name__}")
        self._enqueue(self._queue, call, map(len, call.texts))

    def release_memory(self) -> None:
        """Release the working memory of the model's runs."""
        self._model.release_memory()

    def stop_runs(self) -> None:
        """Let the present model runs of all workers raise soon. Any thread."""
        self._model.stop_runs()

    def _advance(self, is_alone: bool) -> None:
        """Run one batch."""
        budget = self._budget.max_tokens if is_alone else self._budget.timely
        self._run_batch(budget, self._share_of(self._queue))

    def _run_lane(self, is_light: bool) -> bool:
        """Run one batch of a lane; returns whether there was one."""
        if not is_light and self._is_spared():
            return False
        return self._run_batch(self._budget.timely, len(self._queue), is_light)

    def _run_batch(self, max_tokens: int, max_texts: int, is_light: bool | None = None) -> bool:
        batch = self._take_similar(self._queue, max_tokens, max_texts, is_light)
        if not batch:
            return False
        self._admission.start(text.call for text in batch)
        started = self._budget.run_clock()
        lengths = [text.num_tokens for text in batch]
        for texts, (outputs, attention) in self._run("embedder", batch, lengths, self._results_of):
            encoded, studied = _parted(texts)
            for text, found in zip(studied, attention, strict=True):
                self._put(text.call, text.index, found)
            # The time of a failed run, or of a text that is run alone, is not representative.
            if self._answer(encoded, outputs) and len(encoded) == len(batch):
                self._budget.measure(max(lengths) * len(lengths), started)
        return True

    def _results_of(self, batch: Sequence[QueuedText[EncoderCall]]) -> Results:
        encoded, studied = _parted(batch)
        outputs = self._embed(encoded) if encoded else {}
        return outputs, [self._model.attend(text.call.texts[text.index]) for text in studied]

    def _take_running(self) -> list[Call[Any]]:
        return []

    def _answer(
        self, batch: Sequence[QueuedText[EncoderCall]], outputs: dict[str, NDArray[np.float32]]
    ) -> bool:
        """Answer the call of each text; returns whether no run of the masked-word head failed."""
        masked: list[MaskedText] = []
        for row, text in enumerate(batch):
            call = text.call
            if call.is_over():  # cancelled meanwhile, or failed by an earlier text
                continue
            if isinstance(call, EmbedCall):
                # Copies do not keep the memory of the whole batch alive.
                result = {
                    name: outputs[name][row, : text.num_tokens].copy()
                    if name.startswith(OF_TOKENS)
                    else outputs[name][row].copy()
                    for name in call.outputs
                }
                if SPARSE_VECTORS in result:
                    result |= _sparse(result[SPARSE_VECTORS])
                self._put(call, text.index, result)
            elif isinstance(call, FillMaskCall):
                hidden = outputs[f"hidden_{self._model.num_layers}"][row]
                masks = hidden[list(call.mask_positions[text.index])]
                masked.append(MaskedText(call, text.index, masks))
        return not masked or self._fill(masked)

    def _fill(self, texts: Sequence[MaskedText]) -> bool:
        """Run the masked-word head for all texts together; returns whether it succeeded.

        If it fails, it is run for each text alone, so that a failure affects only the text's call.
        """
        if self._fill_together(texts):
            return True
        if len(texts) > 1:
            for text in texts:
                if not text.call.is_over():
                    self._fill_together([text])
        return False

    def _fill_together(self, texts: Sequence[MaskedText]) -> bool:
        try:
            found = predictions(self._model, texts)
        except Exception:
            if len(texts) == 1:
                self._fail_run("mlm_head", [texts[0].call])
            return False
        for (call, index, _), candidates in zip(texts, found, strict=True):
            self._put(call, index, candidates)
        return True

    def _put(self, call: Call[Any], index: int, result: Any) -> None:
        if _is_finite(result):
            call.put(index, result, self._clock())
        else:
            self._fail_result(call)

    def _embed(self, batch: Sequence[QueuedText[EncoderCall]]) -> dict[str, NDArray[np.float32]]:
        """All outputs that the texts of the batch need, each with a leading batch axis."""
        names = sorted({name for text in batch for name in self._outputs_of(text.call)})
        texts = [t.call.texts[t.index] for t in batch]
        found = self._model.embed(texts, names, **self._lengths(batch))
        for name, array in found.items():
            if len(array) != len(batch):  # rows could be those of other texts
                raise ValueError(f"{name} has {len(array)} rows for {len(batch)} texts")
        return found

    def _lengths(self, batch: Sequence[QueuedText[EncoderCall]]) -> dict[str, Any]:
        """Lengths of parts of the texts that the model has to know."""
        if self._model.reads_token_types:
            return {"first_lengths": list(map(_first_length, batch))}
        if any(isinstance(t.call, EmbedCall) and t.call.attended_lengths for t in batch):
            return {"attended_lengths": list(map(_attended_length, batch))}
        if any(_num_prompt_tokens(text) is not None for text in batch):
            return {"num_prompt_tokens": list(map(_num_prompt_tokens, batch))}
        return {}

    def _outputs_of(self, call: EncoderCall) -> tuple[str, ...]:
        if isinstance(call, EmbedCall):
            return call.outputs
        return (f"hidden_{self._model.num_layers}",)


def _parted(
    texts: Sequence[QueuedText[EncoderCall]],
) -> tuple[list[QueuedText[EncoderCall]], list[QueuedText[EncoderCall]]]:
    """The texts to embed, and those whose attention is wanted."""
    studied = [text for text in texts if isinstance(text.call, AttendTextCall)]
    return [text for text in texts if not isinstance(text.call, AttendTextCall)], studied


def _first_length(text: QueuedText[EncoderCall]) -> int:
    """Number of tokens of type 0."""
    call = text.call
    if isinstance(call, EmbedCall) and call.first_lengths:
        return call.first_lengths[text.index]
    return text.num_tokens


def _attended_length(text: QueuedText[EncoderCall]) -> int:
    """Number of tokens that are attended to."""
    call = text.call
    if isinstance(call, EmbedCall) and call.attended_lengths:
        return call.attended_lengths[text.index]
    return text.num_tokens


def _num_prompt_tokens(text: QueuedText[EncoderCall]) -> int | None:
    """Number of first tokens that poolings leave out; None for those of the default prompt."""
    call = text.call
    if isinstance(call, EmbedCall) and call.num_prompt_tokens:
        return call.num_prompt_tokens[text.index]
    return None


def _sparse(vector: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """The weights of ``vector`` (vocab,) that are not 0, and the ids of their tokens."""
    token_ids = np.flatnonzero(vector)
    return {SPARSE_VECTORS: vector[token_ids], SPARSE_TOKEN_IDS: token_ids}


def _is_finite(result: dict[str, NDArray[np.float32]] | MaskCandidates | Attention) -> bool:
    if isinstance(result, Attention):
        return result.is_finite
    arrays = [result.probabilities] if isinstance(result, MaskCandidates) else result.values()
    return all(np.isfinite(array).all() for array in arrays)
