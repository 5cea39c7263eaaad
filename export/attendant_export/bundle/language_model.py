"""Export of bundles of causal language models: graphs and reference outputs."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from attendant.v1.bundle_pb2 import (
    MODEL_KIND_LANGUAGE_MODEL,
    DecodingDefaults,
    Limits,
    Manifest,
    PrecisionGraphs,
    PrecisionParity,
    QualityFigure,
    SpecialTokens,
)
from attendant.v1.text_pb2 import TEXT_NORMALIZATION_NONE
from tokenizers import Tokenizer

from attendant_export.bundle.controls import ControlOption
from attendant_export.bundle.draft import Draft, TestTexts
from attendant_export.bundle.reference_outputs import source_token_ids
from attendant_export.bundle.translation_outputs import reference_outputs
from attendant_export.data.tokenizer import unknown_token_id
from attendant_export.graphs.writer import write_language_model_graphs
from attendant_export.models.causal_language_model import CausalLanguageModel
from attendant_export.models.embeddings import longest_text
from attendant_export.runs.models import load_model
from attendant_export.verify.decoder import DecoderVerifier, SampleSentences
from attendant_export.verify.language_model_graphs import LanguageModelGraphs
from attendant_export.verify.reference_search import ReferenceHypothesis, greedy

NUM_PROMPTS = 8
"""Number of reference texts, at equal distances. Each token of a large model takes long."""
NUM_CONTINUED = 12
"""Limit of tokens of the continuations of reference texts."""
MAX_EXAMPLE_TOKENS = 32
"""Limit of tokens of the continuations in model cards."""


def set_languages(manifest: Manifest, languages: Sequence[str], _: Manifest | None) -> None:
    """Write the languages of a data card into the manifest."""
    manifest.languages.extend(languages)


def describe_use(manifest: Manifest) -> str:
    """A sentence on languages and limits, for the model card."""
    languages = ", ".join(manifest.languages)
    return (
        f"Continues texts{languages and f' in {languages}'}; a prompt and its continuation have at "
        f"most {manifest.limits.max_tokens} tokens."
    )


class LanguageModelExport:
    """The export of a language model; `kinds.ModelExport` describes the steps."""

    example_title: str = "greedy continuation"

    def __init__(
        self,
        model: CausalLanguageModel,
        tokenizer: Tokenizer,
        draft: Draft,
        decoding: DecodingDefaults | None = None,
    ) -> None:
        """Complete the draft's manifest. ``decoding`` has defaults of searches.

        Raises ValueError if the limit of tokens leaves no room for a reference text.
        """
        self._model, self._tokenizer, self._draft = model, tokenizer, draft
        self._max_tokens = longest_text(model.architecture, draft.max_tokens)
        manifest = draft.manifest
        _describe(manifest, model, tokenizer, self._max_tokens)
        manifest.decoding.MergeFrom(decoding or DecodingDefaults())
        draft.add_tokenizer(tokenizer)
        texts = list(draft.reference_texts(tokenizer, self._max_tokens - 1).items())
        self._texts = dict(texts[:: -(-len(texts) // NUM_PROMPTS)])
        self._smoothing_texts = [ids for _, ids in texts]
        prompts = list(self._texts.values())
        limits = [min(NUM_CONTINUED, self._max_tokens - len(ids)) for ids in prompts]
        self._sample = SampleSentences(prompts, limits)
        self._outputs: dict[str, dict[str, list[ReferenceHypothesis]]] = {}

    @cached_property
    def _verifier(self) -> DecoderVerifier:
        """Searches with the model after the graphs are written, which leaves them more memory."""
        return DecoderVerifier(self._model, self._sample)

    def write(self, precision: str) -> PrecisionGraphs:
        """Write the graphs and weights of one precision."""
        folder = self._draft.folder_of(precision)
        return write_language_model_graphs(
            *(self._model, precision, folder, self._max_tokens),
            texts=self._smoothing_texts,
        )

    def verify(self, written: PrecisionGraphs) -> PrecisionParity:
        """Compare the graphs of one precision with the model."""
        folder = self._draft.folder_of(written.name)
        graphs = LanguageModelGraphs(folder, written, self._draft.manifest)
        verified = self._verifier.verify(written.name, graphs)
        graphs.close()
        self._outputs[written.name] = verified.outputs
        return verified.parity

    def measure(self, written: PrecisionGraphs, test: TestTexts) -> list[QualityFigure]:
        """No figures: a corpus of pairs is none of texts."""
        raise ValueError(f"{test.name}: --test is for translation and embedding models")

    def reference_outputs(self) -> dict[str, Any]:
        """The continuations of each precision of the bundle for the reference texts."""
        outputs = {name: self._outputs[name] for name in self._draft.precisions}
        return reference_outputs(self._texts, self._sample.max_tokens, outputs)

    def example_outputs(self, texts: Sequence[str]) -> list[str]:
        """The model's greedy continuations. Raises ValueError for a text that leaves no room."""
        return [self._continued(text) for text in texts]

    def _continued(self, text: str) -> str:
        prompt = source_token_ids(self._draft.manifest, self._tokenizer, text)
        limit = min(MAX_EXAMPLE_TOKENS, self._max_tokens - len(prompt))
        if limit < 1 or not prompt:
            raise ValueError(f"an example of the data card has no or too many tokens: {text}")
        [found] = greedy(self._model, [prompt], limit)
        return str(self._tokenizer.decode(list(found.token_ids)))


def export_of_run(
    run_dir: Path, draft: Draft, _controls: Sequence[ControlOption], num_averaged: int | None
) -> LanguageModelExport:
    """The export of a run, with the weights of `load_model`. Language models have no controls."""
    model, tokenizer = load_model(run_dir, num_averaged)
    assert isinstance(model, CausalLanguageModel)
    return LanguageModelExport(model, tokenizer, draft)


def _describe(
    manifest: Manifest, model: CausalLanguageModel, tokenizer: Tokenizer, max_tokens: int
) -> None:
    tokens = model.tokens
    manifest.kind = MODEL_KIND_LANGUAGE_MODEL
    manifest.architecture.CopyFrom(model.architecture)
    manifest.decoding.CopyFrom(DecodingDefaults(start_token_id=tokens.bos_id))
    manifest.special_tokens.CopyFrom(
        SpecialTokens(
            pad_id=tokens.pad_id, eos_id=tokens.eos_id, unk_id=unknown_token_id(tokenizer)
        )
    )
    manifest.limits.CopyFrom(Limits(max_tokens=max_tokens))
    # A prompt and its continuation are one text, so neither is changed.
    manifest.text_normalization = TEXT_NORMALIZATION_NONE
