"""Token-budget batching for one embedding model.

A batch holds the oldest text and texts of similar length, within a budget of padded tokens. While a
translation scheduler has work on the same worker, the measured time per token limits the batch as
well, which bounds the delay of decoding steps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from attendant_server.engine.admission import AdmissionQueue, QueuedText
from attendant_server.engine.calls import Call, EmbedCall, FillMaskCall, MaskCandidates
from attendant_server.engine.models import EmbeddingModel
from attendant_server.engine.reports import Observer
from attendant_server.engine.scheduler import Scheduler


@dataclass(frozen=True, slots=True)
class EmbeddingLimits:
    """Bounds of an embedding scheduler."""

    max_batch_tokens: int
    """Padded tokens of one batch. Activations of larger batches do not fit into the caches of a
    CPU."""
    max_batch_seconds: float
    """Seconds that a batch may take while another scheduler waits, at the measured speed."""
    max_queued_texts: int


Encoded: TypeAlias = EmbedCall | FillMaskCall


class EmbeddingScheduler(Scheduler):
    """Runs the batches of one worker for one embedding model; the model's queue is shared."""

    _queue: AdmissionQueue[Encoded]

    def __init__(
        self,
        name: str,
        model: EmbeddingModel,
        limits: EmbeddingLimits,
        observer: Observer,
        clock: Callable[[], float],
        sibling: Self | None = None,
    ) -> None:
        super().__init__(name, limits.max_queued_texts, observer, clock, sibling)
        self._model, self._limits = model, limits
        self._seconds_per_token = 0.0

    @property
    def has_work(self) -> bool:
        """Whether any text waits."""
        return len(self._queue) > 0

    @property
    def num_active(self) -> int:
        """Texts in the running batch."""
        return len(self._in_flight)

    def submit(self, call: Call[Any]) -> None:
        """Queue an `EmbedCall` or a `FillMaskCall`; raises QueueFull or TypeError. Any thread."""
        if not isinstance(call, EmbedCall | FillMaskCall):
            raise TypeError(f"an embedding model cannot run a {type(call).__name__}")
        self._enqueue(self._queue, call, map(len, call.texts))

    def release_memory(self) -> None:
        """Release the working memory of the model's runs."""
        self._model.release_memory()

    def _advance(self, is_alone: bool) -> None:
        """Run one batch."""
        budget = self._limits.max_batch_tokens if is_alone else self._timely_budget
        batch = self._take_similar(self._queue, budget, self._share_of(self._queue))
        if not batch:
            return
        self._admission.start(text.call for text in batch)
        started = self._clock()
        lengths = [text.num_tokens for text in batch]
        outputs = self._run("embedder", batch, lengths, lambda: self._embed(batch))
        # The time of a failed run is not representative.
        if outputs is not None and self._answer(batch, outputs):
            self._measure(max(lengths) * len(lengths), self._clock() - started)

    def _take_running(self) -> list[Call[Any]]:
        return []

    @property
    def _timely_budget(self) -> int:
        """Budget of padded tokens while another scheduler waits."""
        if not self._seconds_per_token:
            return self._limits.max_batch_tokens
        affordable = int(self._limits.max_batch_seconds / self._seconds_per_token)
        return min(self._limits.max_batch_tokens, affordable)

    def _measure(self, num_padded_tokens: int, seconds: float) -> None:
        per_token = seconds / num_padded_tokens
        old = self._seconds_per_token or per_token
        self._seconds_per_token = 0.8 * old + 0.2 * per_token

    def _answer(
        self, batch: Sequence[QueuedText[Encoded]], outputs: dict[str, NDArray[np.float32]]
    ) -> bool:
        """Answer the call of each text; returns whether every run of a masked-word head succeeded.

        The head runs once per text, so a failure affects only the text's call.
        """
        has_failed = False
        for row, text in enumerate(batch):
            if text.call.is_over():  # cancelled meanwhile, or failed by an earlier text
                continue
            try:
                result = self._result(text, row, outputs)
            except Exception:
                has_failed = True
                self._fail_run("mlm_head", [text.call])
                continue
            if _is_finite(result):
                text.call.put(text.index, result, self._clock())
            else:
                self._fail_result(text.call)
        return not has_failed

    def _embed(self, batch: Sequence[QueuedText[Encoded]]) -> dict[str, NDArray[np.float32]]:
        """All outputs that the texts of the batch need, each with a leading batch axis."""
        names = {name for text in batch for name in self._outputs_of(text.call)}
        return self._model.embed([t.call.texts[t.index] for t in batch], sorted(names))

    def _outputs_of(self, call: Encoded) -> tuple[str, ...]:
        if isinstance(call, EmbedCall):
            return call.outputs
        return (f"hidden_{self._model.num_layers}",)

    def _result(
        self, text: QueuedText[Encoded], row: int, outputs: dict[str, NDArray[np.float32]]
    ) -> Any:
        """The result of one text, copied so that it does not keep the batch's memory alive."""
        call = text.call
        if isinstance(call, EmbedCall):
            return {
                name: outputs[name][row, : text.num_tokens].copy()
                if name.startswith("hidden_")
                else outputs[name][row].copy()
                for name in call.outputs
            }
        return self._fill(call, text.index, outputs[f"hidden_{self._model.num_layers}"][row])

    def _fill(self, call: FillMaskCall, index: int, hidden: NDArray[np.float32]) -> MaskCandidates:
        positions = list(call.mask_positions[index])
        return self._model.fill(hidden[positions], call.top_k)  # (masks, top_k)


def _is_finite(result: dict[str, NDArray[np.float32]] | MaskCandidates) -> bool:
    arrays = [result.probabilities] if isinstance(result, MaskCandidates) else result.values()
    return all(np.isfinite(array).all() for array in arrays)
