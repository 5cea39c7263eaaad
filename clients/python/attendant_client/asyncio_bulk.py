"""The part for bulk calls; `make clients` generates the synchronous one from this module.

The asyncio client inherits its methods, whose common options its docstring describes.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TypeVar

from attendant.v1 import translation_pb2

from attendant_client import bulk_calls, embedding_messages, embedding_results, messages, results
from attendant_client.asyncio_bulk_results import AsyncBulkResults
from attendant_client.bulk_calls import BulkCall
from attendant_client.bulk_input import AsyncTexts
from attendant_client.options import (
    Chunking,
    DataType,
    GlossaryEntries,
    Markup,
    OffsetUnit,
    Pooling,
    Sampling,
    Splitting,
    TextNormalization,
    Truncation,
)

Result = TypeVar("Result", bound=results.TextResult)


class AsyncBulkCalls(ABC):
    """The methods of a client for any number of texts."""

    def bulk_translate(
        self,
        texts: AsyncTexts,
        *,
        model: str = "",
        source_language: str = "",
        target_language: str = "",
        controls: Mapping[str, str] | None = None,
        glossary: str = "",
        glossary_entries: GlossaryEntries | None = None,
        beam_size: int | None = None,
        num_hypotheses: int | None = None,
        length_penalty: float | None = None,
        max_output_tokens: int | None = None,
        min_output_tokens: int | None = None,
        repetition_guard: bool | None = None,
        no_repeat_ngram_size: int | None = None,
        suppressed_token_ids: Sequence[int] = (),
        suppressed_texts: Sequence[str] = (),
        allow_unknown: bool | None = None,
        replace_unknown: bool = False,
        repetition_penalty: float | None = None,
        sampling: Sampling | None = None,
        patience: float | None = None,
        coverage_penalty: float | None = None,
        num_beam_groups: int | None = None,
        diversity_penalty: float | None = None,
        return_alternatives: bool = False,
        return_tokens: bool = False,
        splitting: Splitting | None = None,
        return_sentences: bool = False,
        return_alignments: bool = False,
        text_normalization: TextNormalization | None = None,
        offset_unit: OffsetUnit = "code_points",
        truncation: Truncation = "refuse",
        markup: Markup | None = None,
        timeout_seconds: float | None = None,
        request_id: str | None = None,
    ) -> AsyncBulkResults[results.Translation]:
        """Translate any number of texts in one call; the options are those of `translate`.

        `texts` are strings, or pairs of an id and a string; the result has the id. They are read as
        there is room for them: at most 512 are read and not answered. Texts that are there are sent
        together, at most 32. With `timeout_seconds`, that is the time limit of the whole call;
        otherwise it has none. A text without an answer is sent again if a server ends the call.
        """
        options = translation_pb2.TranslateOptions(
            beam_size=beam_size,
            num_hypotheses=num_hypotheses,
            length_penalty=length_penalty,
            max_output_tokens=max_output_tokens,
            min_output_tokens=min_output_tokens,
            repetition_guard=repetition_guard,
            no_repeat_ngram_size=no_repeat_ngram_size,
            suppressed_token_ids=suppressed_token_ids,
            suppressed_texts=suppressed_texts,
            allow_unknown=allow_unknown,
            replace_unknown=replace_unknown,
            repetition_penalty=repetition_penalty,
            sampling=messages.sampling(sampling, has_seed=True),
            patience=patience,
            coverage_penalty=coverage_penalty,
            num_beam_groups=num_beam_groups,
            diversity_penalty=diversity_penalty,
            return_alternatives=return_alternatives,
            return_tokens=return_tokens,
        )
        call = messages.translate(
            "",
            options,
            model=model,
            source_language=source_language,
            target_language=target_language,
            controls=controls,
            glossary=glossary,
            glossary_entries=glossary_entries,
            splitting=splitting,
            return_sentences=return_sentences,
            return_alignments=return_alignments,
            text_normalization=text_normalization,
            offset_unit=offset_unit,
            truncation=truncation,
            target_prefix=None,
            markup=markup,
        )
        return self._bulk(bulk_calls.bulk_translate(call), texts, timeout_seconds, request_id)

    def bulk_embed(
        self,
        texts: AsyncTexts,
        *,
        model: str = "",
        pooling: Pooling | None = None,
        normalize: bool | None = None,
        dimensions: int | None = None,
        force_dimensions: bool = False,
        prompt_name: str | None = None,
        prompt: str | None = None,
        data_type: DataType = "float32",
        chunking: Chunking | None = None,
        max_chunk_tokens: int | None = None,
        average_chunks: bool = False,
        text_normalization: TextNormalization | None = None,
        offset_unit: OffsetUnit = "code_points",
        truncation: Truncation = "refuse",
        timeout_seconds: float | None = None,
        request_id: str | None = None,
    ) -> AsyncBulkResults[embedding_results.Embedding]:
        """Embed any number of texts in one call; the options are those of `embed`.

        `texts` and `timeout_seconds` are as in `bulk_translate`. The vector of a text that failed
        is empty.
        """
        call = embedding_messages.embed(
            "",
            model=model,
            pooling=pooling,
            normalize=normalize,
            dimensions=dimensions,
            force_dimensions=force_dimensions,
            prompt_name=prompt_name,
            prompt=prompt,
            data_type=data_type,
            chunking=chunking,
            max_chunk_tokens=max_chunk_tokens,
            average_chunks=average_chunks,
            text_normalization=text_normalization,
            offset_unit=offset_unit,
            truncation=truncation,
        )
        return self._bulk(bulk_calls.bulk_embed(call), texts, timeout_seconds, request_id)

    @abstractmethod
    def _bulk(
        self,
        call: BulkCall[Result],
        texts: AsyncTexts,
        timeout_seconds: float | None,
        request_id: str | None,
    ) -> AsyncBulkResults[Result]: ...
