"""The part for translation; `make clients` generates the synchronous one from this module.

The asyncio client inherits its methods, whose common options its docstring describes.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TypeVar, overload

from attendant.v1 import translation_pb2

from attendant_client import messages, results
from attendant_client.asyncio_streams import AsyncTranslationStream
from attendant_client.calls import Call, TextCall
from attendant_client.options import (
    GlossaryEntries,
    Markup,
    OffsetUnit,
    Sampling,
    Splitting,
    TextNormalization,
    Truncation,
)

Result = TypeVar("Result", bound=results.TextResult)


class AsyncTranslationCalls(ABC):
    """The methods of a client for translation."""

    @overload
    async def translate(  # type: ignore[overload-overlap]  # a str is a Sequence too
        self,
        texts: str,
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
        target_prefix_bias: float | None = None,
        num_beam_groups: int | None = None,
        diversity_penalty: float | None = None,
        return_alternatives: bool = False,
        target_prefix: str | None = None,
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
    ) -> results.Translation: ...
    @overload
    async def translate(
        self,
        texts: Sequence[str],
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
        target_prefix_bias: float | None = None,
        num_beam_groups: int | None = None,
        diversity_penalty: float | None = None,
        return_alternatives: bool = False,
        target_prefix: str | Sequence[str] | None = None,
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
    ) -> results.Results[results.Translation]: ...
    async def translate(
        self,
        texts: str | Sequence[str],
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
        target_prefix_bias: float | None = None,
        num_beam_groups: int | None = None,
        diversity_penalty: float | None = None,
        return_alternatives: bool = False,
        target_prefix: str | Sequence[str] | None = None,
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
    ) -> results.Translation | results.Results[results.Translation]:
        """Translate texts.

        `source_language`, `target_language`: BCP 47 tags, such as "de". Each may be left out if the
        model has only one. Without a model, they choose it among the server's models, or two models
        that translate over a pivot language, if the server has such a pair for both languages.
        `controls`: values of controls of the model by name, such as {"formality": "formal"}; its
        defaults if absent.
        `glossary`: the name of a glossary of the server or of the model, whose terms translations
        must have; for models that can align words. `glossary_entries`: further entries, each a term
        and its translation or several of them, such as {"cat": ["Kater", "Katers"]}.
        `beam_size`: hypotheses kept at every step, 1 for greedy search; the model's default if
        absent.
        `num_hypotheses`: hypotheses returned, at most `beam_size`; 1 if absent.
        `length_penalty`: scores are divided by the length to this power, 0 to 10; the model's
        default if absent, mostly 1.
        `max_output_tokens`: maximum number of tokens of a translation; if absent, 3 x the source
        tokens + 16, at most the model's limit.
        `min_output_tokens`: minimum number of tokens of a translation; the model's default if
        absent, mostly 0.
        `repetition_guard`: whether a translation that begins to repeat itself goes on with other
        words, or ends early in other searches than greedy search; the model's default if absent.
        `no_repeat_ngram_size`: size of the n-grams of tokens that must not come twice, 0 for no
        such rule; the model's default if absent.
        `suppressed_token_ids`, `suppressed_texts`: target tokens that a translation must not have,
        by their ids or by the texts of single tokens.
        `allow_unknown`: whether the unknown token may come; the model's default if absent.
        `replace_unknown`: whether source text takes the place of unknown tokens, which may then
        come; a hypothesis has their number in `num_replaced_tokens`.
        `repetition_penalty`: more than 1 makes tokens that came already less likely; for models
        whose graphs can apply one.
        `sampling`: how tokens are drawn at random; None for a search. `num_hypotheses` is then the
        number of samples, which are independent.
        `patience`: a beam search ends when this times `beam_size` hypotheses have finished; 1 if
        absent.
        `coverage_penalty`: more ranks hypotheses of a beam search lower that leave words of the
        text untranslated, 0 to 10; 0 if absent; for models that can align words.
        `num_beam_groups`: groups of a diverse beam search, a divisor of `beam_size`, which find
        hypotheses that differ more; with `diversity_penalty`, 0.5 if absent.
        `return_alternatives`: whether hypotheses are the likeliest different tokens after the
        prefix, each with its best continuation. Such texts are not split into sentences.
        `target_prefix`: the beginning of the translation, which the model continues; for several
        texts as many, "" for none. Such a text is not split into sentences.
        `target_prefix_bias`: makes the tokens of the prefix only likelier, by this much in their
        log-probabilities, as long as a translation follows it.
        `return_tokens`: whether hypotheses have their tokens with log-probabilities.
        `splitting`: whether each of the "sentences" of a text, each of its "lines", or the text as
        a whole ("none") is translated alone; the model's default if absent, mostly "sentences".
        Truncation needs "none".
        `return_sentences`: whether hypotheses have the places of their sentences.
        `return_alignments`: whether hypotheses have the links of their words to words of the text;
        for models that can align words.
        `markup`: whether texts are "html" or "xml", whose tags are put around the right words; for
        models that can align words.
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
            sampling=messages.sampling(sampling),
            patience=patience,
            coverage_penalty=coverage_penalty,
            target_prefix_bias=target_prefix_bias,
            num_beam_groups=num_beam_groups,
            diversity_penalty=diversity_penalty,
            return_alternatives=return_alternatives,
            return_tokens=return_tokens,
        )
        call = messages.translate(
            texts,
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
            markup=markup,
            target_prefix=target_prefix,
        )
        found = await self._texts(call, timeout_seconds, request_id)
        return messages.one_or_all(texts, found)  # type: ignore[no-any-return]

    def stream_translate(
        self,
        text: str,
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
        target_prefix_bias: float | None = None,
        num_beam_groups: int | None = None,
        diversity_penalty: float | None = None,
        return_alternatives: bool = False,
        target_prefix: str | None = None,
        return_tokens: bool = False,
        splitting: Splitting | None = None,
        return_sentences: bool = False,
        return_alignments: bool = False,
        text_normalization: TextNormalization | None = None,
        offset_unit: OffsetUnit = "code_points",
        truncation: Truncation = "refuse",
        timeout_seconds: float | None = None,
        request_id: str | None = None,
    ) -> AsyncTranslationStream:
        """Translate one text piece by piece; the options are those of `translate`.

        The call starts when the first piece is requested.
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
            sampling=messages.sampling(sampling),
            patience=patience,
            coverage_penalty=coverage_penalty,
            target_prefix_bias=target_prefix_bias,
            num_beam_groups=num_beam_groups,
            diversity_penalty=diversity_penalty,
            return_alternatives=return_alternatives,
            return_tokens=return_tokens,
        )
        call = messages.stream_translate(
            text,
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
            target_prefix=target_prefix,
        )
        return self._stream(call, timeout_seconds, request_id)

    @abstractmethod
    async def _texts(
        self, call: TextCall[Result], timeout_seconds: float | None, request_id: str | None
    ) -> results.Results[Result]: ...

    @abstractmethod
    def _stream(
        self,
        call: Call[results.Translation | None],
        timeout_seconds: float | None,
        request_id: str | None,
    ) -> AsyncTranslationStream: ...
