"""Export and verification of bundles of translation models: graphs and reference outputs."""

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

from attendant.v1.architecture_pb2 import Architecture
from attendant.v1.bundle_pb2 import (
    MODEL_KIND_TRANSLATION,
    CorpusParity,
    DecodingDefaults,
    Language,
    Limits,
    Manifest,
    PrecisionGraphs,
    PrecisionParity,
    QualityFigure,
    SpecialTokens,
)
from attendant.v1.text_pb2 import TEXT_NORMALIZATION_STANDARD
from attendant_manifest.special_tokens import target_tokens
from tokenizers import Tokenizer

from attendant_export.bundle.controls import (
    ControlOption,
    control_messages,
    describe_control,
)
from attendant_export.bundle.draft import Draft, TestTexts
from attendant_export.bundle.translation_outputs import reference_outputs
from attendant_export.data.corpus import Corpus
from attendant_export.data.output_limits import max_output_tokens
from attendant_export.data.pair_tokenizer import PairTokenizer
from attendant_export.data.shortlists import (
    MAX_PAIRS,
    WITH_SHORTLISTS,
    Shortlists,
    Vocabulary,
    learn_shortlists,
)
from attendant_export.data.text_choice import NO_CHOICE
from attendant_export.data.text_files import read_pairs
from attendant_export.data.tokenizer import unknown_token_id
from attendant_export.graphs.writer import write_translation_graphs
from attendant_export.models.embeddings import longest_text
from attendant_export.models.encoder_decoder import EncoderDecoder
from attendant_export.runs.models import load_model, load_pair_tokenizer
from attendant_export.runs.text_facts import have_language_tokens, marks_of, new_facts, read_facts
from attendant_export.runs.translation import translate
from attendant_export.verify.decoder import SampleSentences
from attendant_export.verify.graph_sessions import TranslationGraphs
from attendant_export.verify.quality import (
    compare_corpora,
    measure_translation,
    translate_by_graphs,
)
from attendant_export.verify.reference_search import ReferenceHypothesis
from attendant_export.verify.shortlists import check_shortlists
from attendant_export.verify.translation import TranslationVerifier

logger = logging.getLogger(__name__)

MAX_BLEU_LOSS = 0.5
"""A larger loss of a precision against fp32 is logged as a warning."""


def set_languages(manifest: Manifest, languages: Sequence[str], facts: Manifest | None) -> None:
    """Write the languages of a model into the manifest.

    They are the source and the target language of a data card. A model that has tokens for
    languages, by the ``facts`` of its run, keeps them all; its sources may be the other languages
    of the card. Raises ValueError for other languages in the card.
    """
    if facts is None or not have_language_tokens(facts):
        if len(languages) != 2:
            raise ValueError("the data card of a translation model needs two languages")
        source, target = languages
        manifest.source_languages.add(tag=source)
        manifest.target_languages.add(tag=target)
        return
    targets = [language.tag for language in facts.target_languages]
    sources = facts.source_languages or [
        Language(tag=tag) for tag in languages if tag not in targets
    ]
    known = {*targets, *(language.tag for language in sources)}
    if not sources or not set(languages) <= known:
        stated = ", ".join(languages)
        raise ValueError(
            f"the data card has the languages {stated}, want a source language and some of "
            f"{', '.join(sorted(known))}"
        )
    manifest.source_languages.extend(sources)
    manifest.target_languages.extend(facts.target_languages)


def set_facts(manifest: Manifest, facts: Manifest) -> None:
    """Write the facts of the texts of a run, except languages, into a manifest."""
    for name in ("special_tokens", "target_special_tokens", "decoding"):
        if facts.HasField(name):
            getattr(manifest, name).CopyFrom(getattr(facts, name))
    manifest.controls.extend(facts.controls)
    manifest.text_normalization = facts.text_normalization or TEXT_NORMALIZATION_STANDARD


def describe_use(manifest: Manifest) -> str:
    """A sentence on languages and limits, for the model card."""
    limits = manifest.limits
    sources = ", ".join(language.tag for language in manifest.source_languages)
    targets = ", ".join(language.tag for language in manifest.target_languages)
    controls = "; ".join(map(describe_control, manifest.controls))
    return (
        f"Translates from {sources} to {targets}, sources of at "
        f"most {limits.max_source_tokens} and targets of at most {limits.max_target_tokens} tokens."
        + (controls and f" Controls: {controls}.")
    )


class TranslationExport:
    """The export of a translation model; `kinds.ModelExport` describes the steps."""

    example_title: str = "greedy translation"

    def __init__(
        self,
        model: EncoderDecoder,
        tokenizer: PairTokenizer,
        draft: Draft,
        shortlists: Shortlists | None = None,
        input_scales: Mapping[str, float] = MappingProxyType({}),
        penalizes_repetition: bool = False,
        facts: Manifest | None = None,
    ) -> None:
        """Complete the draft's manifest.

        ``facts`` are those of the texts of the run. Without ``shortlists``, they are learned from
        the draft's pairs, if it has any. ``input_scales`` and ``penalizes_repetition`` are those of
        `write_translation_graphs`. Raises ValueError for pairs that shortlists cannot be learned
        from.
        """
        self._model, self._tokenizer, self._draft = model, tokenizer, draft
        self._max_tokens = longest_text(model.architecture, draft.max_tokens)
        source = tokenizer.source.tokenizer
        _describe(draft.manifest, model, source, self._max_tokens)
        self._facts = facts
        if facts is not None:
            set_facts(draft.manifest, facts)
        draft.add_tokenizer(source)
        draft.manifest.target_tokenizer = draft.manifest.source_tokenizer
        if not tokenizer.is_joint:
            draft.add_target_tokenizer(tokenizer.target.tokenizer)
        self._texts = draft.reference_texts(source, self._max_tokens)
        sources = list(self._texts.values())
        limits = [min(max_output_tokens(len(ids)), self._max_tokens) for ids in sources]
        self._sample = SampleSentences(sources, limits)
        self._shortlists = shortlists or _learn_shortlists(draft, tokenizer)
        self._input_scales, self._penalizes_repetition = input_scales, penalizes_repetition
        self._outputs: dict[str, dict[str, list[ReferenceHypothesis]]] = {}
        self._fp32_texts: list[str] = []

    @cached_property
    def _verifier(self) -> TranslationVerifier:
        """Searches with the model after the graphs are written, which leaves them more memory."""
        return TranslationVerifier(self._model, self._sample)

    def write(self, precision: str) -> PrecisionGraphs:
        """Write the graphs and weights of one precision."""
        folder = self._draft.folder_of(precision)
        return write_translation_graphs(
            *(self._model, precision, folder, self._max_tokens),
            *(self._shortlists, self._input_scales, self._penalizes_repetition),
        )

    def verify(self, written: PrecisionGraphs) -> PrecisionParity:
        """Compare the graphs of one precision with the model, and its translations with fp32."""
        precision, graphs = written.name, self._open(written)
        verified = self._verifier.verify(precision, graphs)
        parity, self._outputs[precision] = verified.parity, verified.outputs
        if self._verifier.alignment is not None:
            self._draft.manifest.alignment.CopyFrom(self._verifier.alignment)
        if graphs.has_shortlists:
            check_shortlists(graphs, self._sample, parity.log_probability_bound)
        if self._draft.valid is not None:
            self._translate_corpus(self._draft.valid, precision, graphs, parity)
        return parity

    def measure(self, written: PrecisionGraphs, test: TestTexts) -> list[QualityFigure]:
        """BLEU and chrF of one precision on the pairs of ``test``."""
        assert isinstance(test, Corpus)
        return measure_translation(
            *(written.name, self._open(written), self._tokenizer, test, self._max_tokens),
            marks_of(self._facts, test.choice),
        )

    def reference_outputs(self) -> dict[str, Any]:
        """The hypotheses of each precision of the bundle for the reference texts."""
        outputs = {name: self._outputs[name] for name in self._draft.precisions}
        return reference_outputs(self._texts, self._sample.max_tokens, outputs)

    def example_outputs(self, texts: Sequence[str]) -> list[str]:
        """The model's greedy translations."""
        choice = NO_CHOICE if self._draft.valid is None else self._draft.valid.choice
        return translate(self._model, self._tokenizer, texts, marks_of(self._facts, choice))

    def _open(self, written: PrecisionGraphs) -> TranslationGraphs:
        folder = self._draft.folder_of(written.name)
        return TranslationGraphs(folder, written, self._draft.manifest)

    def _translate_corpus(
        self, valid: Corpus, precision: str, graphs: TranslationGraphs, parity: PrecisionParity
    ) -> None:
        """Compare the translations of a corpus with those of fp32, which come first."""

        def translated(uses_shortlists: bool = False) -> list[str]:
            return translate_by_graphs(
                *(graphs, self._tokenizer, valid.sources, self._max_tokens),
                uses_shortlists=uses_shortlists,
                marks=marks_of(self._facts, valid.choice),
            )

        texts = translated()
        if precision == "fp32":
            self._fp32_texts = texts
        else:
            parity.corpus.CopyFrom(self._compare_with_fp32(valid, precision, texts))
        if graphs.has_shortlists:
            texts, name = translated(uses_shortlists=True), precision + WITH_SHORTLISTS
            parity.shortlist_corpus.CopyFrom(self._compare_with_fp32(valid, name, texts))

    def _compare_with_fp32(self, valid: Corpus, name: str, texts: list[str]) -> CorpusParity:
        corpus = compare_corpora(valid, "greedy", self._fp32_texts, texts)
        if corpus.fp32_bleu - corpus.bleu > MAX_BLEU_LOSS:
            logger.warning(
                "%s loses %.2f BLEU against fp32: %.2f instead of %.2f on %s",
                name,
                corpus.fp32_bleu - corpus.bleu,
                corpus.bleu,
                corpus.fp32_bleu,
                corpus.dataset,
            )
        return corpus


def export_of_run(
    run_dir: Path, draft: Draft, controls: Sequence[ControlOption], num_averaged: int | None
) -> TranslationExport:
    """The export of a run, with the weights of `load_model` and additional ``controls``.

    Raises ValueError for a control with tokens that the model lacks or with the name of another
    one, for languages and controls of test files that the model lacks, and as `TranslationExport`.
    """
    model = load_model(run_dir, num_averaged)[0]
    assert isinstance(model, EncoderDecoder)
    tokenizer = load_pair_tokenizer(run_dir, model.architecture)
    facts = read_facts(run_dir)
    if controls:
        facts = facts or new_facts()
        _add_controls(facts, controls, tokenizer, model.architecture)
    for corpus in draft.tests:
        assert isinstance(corpus, Corpus)
        marks_of(facts, corpus.choice)  # A mistake shows before minutes of verification.
    penalizes_repetition = facts is not None and bool(facts.decoding.repetition_penalty)
    return TranslationExport(
        *(model, tokenizer, draft), penalizes_repetition=penalizes_repetition, facts=facts
    )


def _add_controls(
    facts: Manifest,
    controls: Sequence[ControlOption],
    tokenizer: PairTokenizer,
    network: Architecture,
) -> None:
    known = {control.name for control in facts.controls}
    for control in controls:
        if control.name in known:
            raise ValueError(f"--control {control.name}: the run has a control of this name")
    sides = tokenizer.source.tokenizer, tokenizer.target.tokenizer
    facts.controls.extend(control_messages(controls, *sides, network))


def _learn_shortlists(draft: Draft, tokenizer: PairTokenizer) -> Shortlists | None:
    if draft.shortlist_pairs is None:
        return None
    pairs = read_pairs(draft.shortlist_pairs, draft.swap)
    pairs = pairs[:: len(pairs) // MAX_PAIRS + 1]
    sources, targets = tokenizer.encode(pairs)
    manifest, network = draft.manifest, draft.manifest.architecture
    written = Vocabulary(network.target_embeddings.vocab_size, _ids_of_every_target(manifest))
    read = None
    if not network.shares_embeddings:
        read = Vocabulary(network.source_embeddings.vocab_size, _ids(manifest.special_tokens))
    return learn_shortlists(zip(sources, targets, strict=True), written, read)


def _ids(tokens: SpecialTokens) -> list[int]:
    return [token_id for _, token_id in tokens.ListFields()]


def _ids_of_every_target(manifest: Manifest) -> list[int]:
    """The special tokens and those that a target is made to begin with."""
    decoding = manifest.decoding
    values = chain.from_iterable(control.values for control in manifest.controls)
    forced = [value.forced_target_ids for value in values]
    forced += [language.forced_target_ids for language in manifest.target_languages]
    special = {decoding.start_token_id, *_ids(target_tokens(manifest))}
    return sorted({*special, *decoding.forced_token_ids, *chain(*forced)})


def _describe(
    manifest: Manifest, model: EncoderDecoder, tokenizer: Tokenizer, max_tokens: int
) -> None:
    tokens = model.tokens
    manifest.kind = MODEL_KIND_TRANSLATION
    manifest.architecture.CopyFrom(model.architecture)
    manifest.decoding.CopyFrom(DecodingDefaults(start_token_id=tokens.bos_id))
    manifest.special_tokens.CopyFrom(
        SpecialTokens(
            pad_id=tokens.pad_id,
            eos_id=tokens.eos_id,
            unk_id=unknown_token_id(tokenizer),
        )
    )
    manifest.limits.CopyFrom(Limits(max_source_tokens=max_tokens, max_target_tokens=max_tokens))
