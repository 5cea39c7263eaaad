"""Evaluates the graphs of a bundle on text: BLEU and chrF, and retrieval by embeddings."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from attendant.v1.bundle_pb2 import CorpusParity, QualityFigure
from tokenizers import Tokenizer

from attendant_export.data.batches import encode_whole
from attendant_export.data.corpus import Corpus
from attendant_export.data.labelled_batches import LabelledDataset
from attendant_export.data.labelled_texts import LabelledTexts
from attendant_export.data.output_limits import max_output_tokens
from attendant_export.data.pair_tokenizer import NO_MARKS, Marks, PairTokenizer
from attendant_export.data.shortlists import WITH_SHORTLISTS
from attendant_export.verify.decoder import SEARCHES
from attendant_export.verify.embedding import EmbeddingGraphs
from attendant_export.verify.graph_search import SearchRules, search_all
from attendant_export.verify.graph_sessions import TranslationGraphs
from attendant_export.verify.metrics import measure_answers, retrieval_accuracy, score_translations


def translate_by_graphs(
    graphs: TranslationGraphs,
    tokenizer: PairTokenizer,
    texts: Sequence[str],
    limit: int,
    beam_size: int = 1,
    uses_shortlists: bool = False,
    marks: Marks = NO_MARKS,
) -> list[str]:
    """Best translations in the order of ``texts``, with the default output limits of the server.

    Sources have ``marks`` next to them and are truncated to ``limit`` tokens, which is also the
    limit of the model's outputs.
    """
    sources = tokenizer.encode_sources(texts, marks, limit)
    # Encoding sources of similar length together minimizes padding.
    order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    ordered = [sources[i] for i in order]
    traces = search_all(
        *(graphs, ordered, [min(max_output_tokens(len(ids)), limit) for ids in ordered]),
        beam_size=beam_size,
        uses_shortlists=uses_shortlists,
        forced_token_ids=[marks.before_target] * len(ordered),
        rules=SearchRules(suppressed_token_ids=tokenizer.suppressed_ids),
    )
    translations = dict(zip(order, traces, strict=True))
    return [tokenizer.decode(translations[i].hypotheses[0].token_ids) for i in range(len(texts))]


def compare_corpora(
    corpus: Corpus, search: str, fp32_texts: Sequence[str], texts: Sequence[str]
) -> CorpusParity:
    """BLEU of translations in two precisions, and the share of equal translations."""
    same = [a == b for a, b in zip(fp32_texts, texts, strict=True)]
    return CorpusParity(
        dataset=corpus.name,
        search=search,
        num_sentences=len(same),
        fp32_bleu=score_translations(list(fp32_texts), corpus.references)["bleu"],
        bleu=score_translations(list(texts), corpus.references)["bleu"],
        same_text_share=sum(same) / len(same),
    )


def measure_translation(
    precision: str,
    graphs: TranslationGraphs,
    tokenizer: PairTokenizer,
    corpus: Corpus,
    limit: int,
    marks: Marks = NO_MARKS,
) -> list[QualityFigure]:
    """sacreBLEU and chrF of each search, and of each search with shortlists if there are any.

    ``marks`` are the tokens next to the texts of ``corpus``.
    """
    figures = []
    choices = (False, True) if graphs.has_shortlists else (False,)
    for (name, beam_size), uses_shortlists in product(SEARCHES.items(), choices):
        search = name + WITH_SHORTLISTS if uses_shortlists else name
        texts = translate_by_graphs(
            graphs, tokenizer, corpus.sources, limit, beam_size, uses_shortlists, marks
        )
        values = score_translations(texts, corpus.references)
        figures += [
            QualityFigure(
                metric=metric,
                dataset=corpus.name,
                precision=precision,
                search=search,
                value=values[key],
            )
            for key, metric in {"bleu": "sacreBLEU", "chrf": "chrF"}.items()
        ]
    return figures


def measure_labels(
    precision: str, graphs: EmbeddingGraphs, dataset: LabelledDataset, texts: LabelledTexts
) -> list[QualityFigure]:
    """How well the scores of labels give the answers of ``texts``, whose tokens ``dataset`` has."""
    scores = [
        graphs.label_scores(
            [each.token_ids for each in inputs], [each.first_length for each in inputs]
        )
        for inputs in dataset.lines
    ]
    return [
        QualityFigure(metric=metric, dataset=texts.name, precision=precision, value=value)
        for metric, value in measure_answers(texts.task, scores, dataset.answers).items()
    ]


def measure_embeddings(
    precision: str, graphs: EmbeddingGraphs, tokenizer: Tokenizer, corpus: Corpus, limit: int
) -> list[QualityFigure]:
    """Retrieval accuracy: how often the nearest vector of the other language is the translation."""
    first, second = (
        torch.from_numpy(_embed(graphs, tokenizer, texts, limit))
        for texts in (corpus.sources, [references[0] for references in corpus.references])
    )
    name = corpus.name.replace("all references", "first reference")
    return [
        QualityFigure(
            metric="retrieval accuracy",
            dataset=f"{name}, mean of both directions",
            precision=precision,
            value=retrieval_accuracy(first, second),
        )
    ]


def _embed(
    graphs: EmbeddingGraphs, tokenizer: Tokenizer, texts: Sequence[str], limit: int
) -> np.ndarray:
    encoded = [ids.tolist() for ids in encode_whole(texts, tokenizer, limit)]
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
    vectors: dict[int, np.ndarray] = {}
    for start in range(0, len(order), 32):
        indices = order[start : start + 32]
        (pooled,) = graphs.run([encoded[i] for i in indices], ["mean_pooled"])
        vectors.update(zip(indices, pooled, strict=True))
    return np.stack([vectors[i] for i in range(len(texts))])
