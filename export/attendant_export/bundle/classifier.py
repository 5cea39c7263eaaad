"""Export of a classification head that was trained with its encoder."""

from collections.abc import Sequence
from pathlib import Path

from attendant.v1.bundle_pb2 import Manifest, PrecisionGraphs, QualityFigure
from tokenizers import Tokenizer

from attendant_export.bundle.classification import classified_text
from attendant_export.bundle.controls import ControlOption
from attendant_export.bundle.draft import Draft, TestTexts
from attendant_export.bundle.embedding import EmbeddingExport
from attendant_export.data.labelled_batches import AnswerScale, LabelledDataset, TextReader
from attendant_export.data.labelled_texts import LabelledTexts
from attendant_export.models.encoder import Encoder
from attendant_export.runs.models import load_model
from attendant_export.runs.text_facts import read_facts
from attendant_export.verify.classification import model_scores
from attendant_export.verify.quality import measure_labels


class ClassifierExport(EmbeddingExport):
    """The export of an encoder with its head, whose examples show the best labels."""

    example_title = "scores of labels, before the score function"

    def __init__(self, model: Encoder, tokenizer: Tokenizer, draft: Draft, facts: Manifest) -> None:
        """Complete the draft's manifest; ``facts`` are those of the run."""
        draft.manifest.text_normalization = facts.text_normalization
        super().__init__(model, tokenizer, draft, classification=facts.classification)
        self._labels_of_head = list(facts.classification.labels)

    def measure(self, written: PrecisionGraphs, test: TestTexts) -> list[QualityFigure]:
        """Accuracy, or correlations of similarities, of one precision on ``test``."""
        assert isinstance(test, LabelledTexts)
        vocab_size = self._model.architecture.source_embeddings.vocab_size
        reader = TextReader(
            self._tokenizer, self._model.tokens.pad_id, vocab_size, self._max_tokens
        )
        dataset = LabelledDataset(test, reader, AnswerScale(self._labels_of_head))
        return measure_labels(written.name, self._open(written), dataset, test)

    def example_outputs(self, texts: Sequence[str]) -> list[str]:
        """The scores of the labels of each text; a tab separates the texts of a pair."""
        return [self._scores(*text.split("\t")) for text in texts]

    def _scores(self, *texts: str) -> str:
        classified = classified_text(self._tokenizer, self._draft.manifest, *texts)
        scores = model_scores(self._model, [classified])[0]
        ranked = sorted(zip(scores.tolist(), self._labels_of_head, strict=True), reverse=True)
        return ", ".join(f"{label} {score:.2f}" for score, label in ranked)


def export_of_run(
    run_dir: Path, draft: Draft, _controls: Sequence[ControlOption], num_averaged: int | None
) -> ClassifierExport:
    """The export of a run, with the weights of `load_model`. Classifiers have no controls."""
    model, tokenizer = load_model(run_dir, num_averaged)
    facts = read_facts(run_dir)
    assert isinstance(model, Encoder)
    assert facts is not None
    return ClassifierExport(model, tokenizer, draft, facts)
