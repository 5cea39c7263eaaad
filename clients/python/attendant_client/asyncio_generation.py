"""The part for language models; `make clients` generates the synchronous one from this module.

The asyncio client inherits its methods, whose common options its docstring describes.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeVar, overload

from attendant.v1 import language_model_pb2

from attendant_client import generation_messages, messages, results
from attendant_client.asyncio_streams import AsyncGenerationStream
from attendant_client.calls import Call, TextCall
from attendant_client.generation_results import Generation, TextScore
from attendant_client.options import OffsetUnit, Sampling, Truncation

Result = TypeVar("Result", bound=results.TextResult)


class AsyncGenerationCalls(ABC):
    """The methods of a client that continue prompts and score texts."""

    @overload
    async def generate(  # type: ignore[overload-overlap]  # a str is a Sequence too
        self,
        prompts: str,
        *,
        model: str = "",
        beam_size: int | None = None,
        num_hypotheses: int | None = None,
        length_penalty: float | None = None,
        max_output_tokens: int | None = None,
        min_output_tokens: int | None = None,
        repetition_guard: bool | None = None,
        no_repeat_ngram_size: int | None = None,
        suppressed_token_ids: Sequence[int] = (),
        suppressed_texts: Sequence[str] = (),
        repetition_penalty: float | None = None,
        sampling: Sampling | None = None,
        patience: float | None = None,
        num_beam_groups: int | None = None,
        diversity_penalty: float | None = None,
        stop_texts: Sequence[str] = (),
        return_tokens: bool = False,
        truncation: Truncation = "refuse",
        reads_special_tokens: bool = False,
        timeout_seconds: float | None = None,
        request_id: str | None = None,
    ) -> Generation: ...
    @overload
    async def generate(
        self,
        prompts: Sequence[str],
        *,
        model: str = "",
        beam_size: int | None = None,
        num_hypotheses: int | None = None,
        length_penalty: float | None = None,
        max_output_tokens: int | None = None,
        min_output_tokens: int | None = None,
        repetition_guard: bool | None = None,
        no_repeat_ngram_size: int | None = None,
        suppressed_token_ids: Sequence[int] = (),
        suppressed_texts: Sequence[str] = (),
        repetition_penalty: float | None = None,
        sampling: Sampling | None = None,
        patience: float | None = None,
        num_beam_groups: int | None = None,
        diversity_penalty: float | None = None,
        stop_texts: Sequence[str] = (),
        return_tokens: bool = False,
        truncation: Truncation = "refuse",
        reads_special_tokens: bool = False,
        timeout_seconds: float | None = None,
        request_id: str | None = None,
    ) -> results.Results[Generation]: ...
    async def generate(
        self,
        prompts: str | Sequence[str],
        *,
        model: str = "",
        beam_size: int | None = None,
        num_hypotheses: int | None = None,
        length_penalty: float | None = None,
        max_output_tokens: int | None = None,
        min_output_tokens: int | None = None,
        repetition_guard: bool | None = None,
        no_repeat_ngram_size: int | None = None,
        suppressed_token_ids: Sequence[int] = (),
        suppressed_texts: Sequence[str] = (),
        repetition_penalty: float | None = None,
        sampling: Sampling | None = None,
        patience: float | None = None,
        num_beam_groups: int | None = None,
        diversity_penalty: float | None = None,
        stop_texts: Sequence[str] = (),
        return_tokens: bool = False,
        truncation: Truncation = "refuse",
        reads_special_tokens: bool = False,
        timeout_seconds: float | None = None,
        request_id: str | None = None,
    ) -> Generation | results.Results[Generation]:
        """Continue prompts with a language model.

        `max_output_tokens`: maximum number of tokens of a continuation; if absent, 256, at most
        what the prompt leaves of the model's limit, `Limits.max_tokens`.
        `stop_texts`: texts before which a continuation ends, at most 16.
        `return_tokens`: whether continuations have their tokens with log-probabilities.
        `truncation`: of prompts that leave no room for their continuation; "left" keeps the end.
        `reads_special_tokens`: whether texts of special tokens, such as those of a chat, stand for
        these tokens; do not use it for prompts with text of other people.

        The other options are those of `translate`.
        """
        options = language_model_pb2.GenerateOptions(
            beam_size=beam_size,
            num_hypotheses=num_hypotheses,
            length_penalty=length_penalty,
            max_output_tokens=max_output_tokens,
            min_output_tokens=min_output_tokens,
            repetition_guard=repetition_guard,
            no_repeat_ngram_size=no_repeat_ngram_size,
            suppressed_token_ids=suppressed_token_ids,
            suppressed_texts=suppressed_texts,
            repetition_penalty=repetition_penalty,
            sampling=messages.sampling(sampling),
            patience=patience,
            num_beam_groups=num_beam_groups,
            diversity_penalty=diversity_penalty,
            stop_texts=stop_texts,
            return_tokens=return_tokens,
        )
        call = generation_messages.generate(
            prompts,
            options,
            model=model,
            truncation=truncation,
            reads_special_tokens=reads_special_tokens,
        )
        found = await self._texts(call, timeout_seconds, request_id)
        return messages.one_or_all(prompts, found)  # type: ignore[no-any-return]

    def stream_generate(
        self,
        prompt: str,
        *,
        model: str = "",
        beam_size: int | None = None,
        num_hypotheses: int | None = None,
        length_penalty: float | None = None,
        max_output_tokens: int | None = None,
        min_output_tokens: int | None = None,
        repetition_guard: bool | None = None,
        no_repeat_ngram_size: int | None = None,
        suppressed_token_ids: Sequence[int] = (),
        suppressed_texts: Sequence[str] = (),
        repetition_penalty: float | None = None,
        sampling: Sampling | None = None,
        patience: float | None = None,
        num_beam_groups: int | None = None,
        diversity_penalty: float | None = None,
        stop_texts: Sequence[str] = (),
        return_tokens: bool = False,
        truncation: Truncation = "refuse",
        reads_special_tokens: bool = False,
        timeout_seconds: float | None = None,
        request_id: str | None = None,
    ) -> AsyncGenerationStream:
        """Continue one prompt piece by piece; the options are those of `generate`.

        The call starts when the first piece is requested.
        """
        options = language_model_pb2.GenerateOptions(
            beam_size=beam_size,
            num_hypotheses=num_hypotheses,
            length_penalty=length_penalty,
            max_output_tokens=max_output_tokens,
            min_output_tokens=min_output_tokens,
            repetition_guard=repetition_guard,
            no_repeat_ngram_size=no_repeat_ngram_size,
            suppressed_token_ids=suppressed_token_ids,
            suppressed_texts=suppressed_texts,
            repetition_penalty=repetition_penalty,
            sampling=messages.sampling(sampling),
            patience=patience,
            num_beam_groups=num_beam_groups,
            diversity_penalty=diversity_penalty,
            stop_texts=stop_texts,
            return_tokens=return_tokens,
        )
        call = generation_messages.stream_generate(
            prompt,
            options,
            model=model,
            truncation=truncation,
            reads_special_tokens=reads_special_tokens,
        )
        return self._generation_stream(call, timeout_seconds, request_id)

    @overload
    async def score_texts(  # type: ignore[overload-overlap]  # a str is a Sequence too
        self,
        texts: str,
        *,
        model: str = "",
        return_tokens: bool = False,
        scores_end: bool = False,
        reads_special_tokens: bool = False,
        offset_unit: OffsetUnit = "code_points",
        timeout_seconds: float | None = None,
        request_id: str | None = None,
    ) -> TextScore: ...
    @overload
    async def score_texts(
        self,
        texts: Sequence[str],
        *,
        model: str = "",
        return_tokens: bool = False,
        scores_end: bool = False,
        reads_special_tokens: bool = False,
        offset_unit: OffsetUnit = "code_points",
        timeout_seconds: float | None = None,
        request_id: str | None = None,
    ) -> results.Results[TextScore]: ...
    async def score_texts(
        self,
        texts: str | Sequence[str],
        *,
        model: str = "",
        return_tokens: bool = False,
        scores_end: bool = False,
        reads_special_tokens: bool = False,
        offset_unit: OffsetUnit = "code_points",
        timeout_seconds: float | None = None,
        request_id: str | None = None,
    ) -> TextScore | results.Results[TextScore]:
        """Return a language model's log-probabilities of texts.

        `return_tokens`: whether scores have the tokens of their texts with log-probabilities.
        `scores_end`: whether the end token counts as the last token of each text.
        `reads_special_tokens`: as for `generate`.
        """
        call = generation_messages.score_texts(
            texts,
            model=model,
            return_tokens=return_tokens,
            scores_end=scores_end,
            reads_special_tokens=reads_special_tokens,
            offset_unit=offset_unit,
        )
        found = await self._texts(call, timeout_seconds, request_id)
        return messages.one_or_all(texts, found)  # type: ignore[no-any-return]

    @abstractmethod
    async def _texts(
        self, call: TextCall[Result], timeout_seconds: float | None, request_id: str | None
    ) -> results.Results[Result]: ...

    @abstractmethod
    def _generation_stream(
        self,
        call: Call[Generation | None],
        timeout_seconds: float | None,
        request_id: str | None,
    ) -> AsyncGenerationStream: ...
