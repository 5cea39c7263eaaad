"""The kinds of models and how the exporter handles each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from attendant.v1 import bundle_pb2
from attendant.v1.architecture_pb2 import Architecture
from attendant.v1.bundle_pb2 import Manifest, PrecisionGraphs, PrecisionParity, QualityFigure
from attendant_manifest.sizes import embedding_sizes, language_model_sizes, translation_sizes
from google.protobuf.message import Message
from tokenizers import Tokenizer
from torch import Tensor

from attendant_export.bundle import (
    classifier,
    embedding,
    language_model,
    translation,
    word_vectors,
)
from attendant_export.bundle.controls import ControlOption
from attendant_export.bundle.draft import Draft, TestTexts
from attendant_export.bundle.parity import (
    measure_embedding_parity,
    measure_language_model_parity,
    measure_translation_parity,
)
from attendant_export.bundle.translation_outputs import check_search_outputs
from attendant_export.data.corpus import read_corpus
from attendant_export.data.labelled_texts import TASKS, read_labelled, read_texts
from attendant_export.data.text_choice import TextChoice
from attendant_export.data.text_files import read_lines
from attendant_export.runs.config import BERT as BERT_RUN
from attendant_export.runs.config import GLOVE as GLOVE_RUN
from attendant_export.runs.config import LANGUAGE_MODEL as LANGUAGE_MODEL_RUN
from attendant_export.runs.config import SKIP_GRAM as SKIP_GRAM_RUN
from attendant_export.runs.config import TRANSLATION as TRANSLATION_RUN
from attendant_export.runs.config import read_config

ModelKindNumber: TypeAlias = bundle_pb2.ModelKind.ValueType


class ModelExport(Protocol):
    """The export of one trained model. All precisions are written first, then verified.

    fp32 is verified first, because the others are compared with it.
    """

    example_title: str
    """Title of the example outputs in the model card."""

    def write(self, precision: str) -> PrecisionGraphs:
        """Write the graphs and weights of one precision."""

    def verify(self, written: PrecisionGraphs) -> PrecisionParity:
        """Compare the graphs of one precision with the model. Raises ParityError if they differ."""

    def measure(self, written: PrecisionGraphs, test: TestTexts) -> list[QualityFigure]:
        """Quality figures of one precision on ``test``."""

    def reference_outputs(self) -> dict[str, Any]:
        """Outputs for the reference texts, for later verification of the bundle."""

    def example_outputs(self, texts: Sequence[str]) -> list[str]:
        """Outputs of the PyTorch model in fp32, for the model card."""


@dataclass(frozen=True, slots=True)
class ModelKind:
    """The functions and names for one kind of model in export, description and verification."""

    name: str
    """Value of the kind in ``config.json`` of a run."""
    value: ModelKindNumber
    """Value of the kind in the manifest."""
    read_sizes: Callable[[Architecture], Message]
    """Sizes of a network of this kind."""
    set_languages: Callable[[Manifest, Sequence[str], Manifest | None], None]
    """Writes the languages of a data card, or of the facts of a run, into the manifest.

    ValueError if they do not fit.
    """
    describe_use: Callable[[Manifest], str]
    """Returns a sentence on languages and limits, for the model card."""
    new_export: Callable[[Path, Draft, Sequence[ControlOption], int | None], ModelExport]
    """Begins the export of the model of a run, with additional controls.

    Its weights are the best ones, or the mean of those of a number of last validations.
    """
    measure_parity: Callable[[Path, Manifest, Mapping[str, Tensor]], list[PrecisionParity]]
    """Compares the graphs of a bundle with the model of given parameters; raises ParityError."""
    check_outputs: Callable[[Path, Manifest, Tokenizer], list[str]]
    """Compares the graphs of a bundle with its reference outputs; raises ParityError."""
    read_texts: Callable[[Path], list[str]] | None = None
    """Reads texts to verify on from a validation file. None: the file is one of pairs."""
    read_test: Callable[[Path, bool, TextChoice], TestTexts] | None = read_corpus
    """Reads a file to measure quality on; true: with swapped columns. None: there is no measure."""

    def sizes(self, manifest: Manifest) -> Mapping[str, int]:
        """Sizes of the model by field name."""
        sizes = self.read_sizes(manifest.architecture)
        return {field.name: value for field, value in sizes.ListFields()}


TRANSLATION = ModelKind(
    name=TRANSLATION_RUN,
    value=bundle_pb2.MODEL_KIND_TRANSLATION,
    read_sizes=translation_sizes,
    set_languages=translation.set_languages,
    describe_use=translation.describe_use,
    new_export=translation.export_of_run,
    measure_parity=measure_translation_parity,
    check_outputs=check_search_outputs,
)
EMBEDDING = ModelKind(
    name=BERT_RUN,
    value=bundle_pb2.MODEL_KIND_EMBEDDING,
    read_sizes=embedding_sizes,
    set_languages=embedding.set_languages,
    describe_use=embedding.describe_use,
    new_export=embedding.export_of_run,
    measure_parity=measure_embedding_parity,
    check_outputs=embedding.check_embedding_outputs,
)
LANGUAGE_MODEL = ModelKind(
    name=LANGUAGE_MODEL_RUN,
    value=bundle_pb2.MODEL_KIND_LANGUAGE_MODEL,
    read_sizes=language_model_sizes,
    set_languages=language_model.set_languages,
    describe_use=language_model.describe_use,
    new_export=language_model.export_of_run,
    measure_parity=measure_language_model_parity,
    check_outputs=check_search_outputs,
    read_texts=read_lines,
    read_test=None,
)
SKIP_GRAM = replace(
    EMBEDDING,
    name=SKIP_GRAM_RUN,
    new_export=word_vectors.export_of_run,
    read_texts=read_lines,
)
GLOVE = replace(SKIP_GRAM, name=GLOVE_RUN)


def _classifier(task: str) -> ModelKind:
    return replace(
        EMBEDDING,
        name=task,
        new_export=classifier.export_of_run,
        read_texts=partial(read_texts, task=task),
        read_test=lambda path, _swap, _choice: read_labelled(path, task),
    )


CLASSIFIERS = tuple(map(_classifier, TASKS))
_KINDS = (TRANSLATION, EMBEDDING, LANGUAGE_MODEL, SKIP_GRAM, GLOVE, *CLASSIFIERS)
"""The first kind of a bundle is that of models to fine-tune."""


def kind_of_run(run_dir: Path) -> ModelKind:
    """The kind of the model that a run folder trains."""
    name = read_config(run_dir).kind
    return next(kind for kind in _KINDS if kind.name == name)


def kind_of_bundle(manifest: Manifest) -> ModelKind:
    """The kind of the model of a bundle."""
    return next(kind for kind in _KINDS if kind.value == manifest.kind)
