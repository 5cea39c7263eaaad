"""The application: one object with all methods, for front doors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from attendant_server.application.admission import CallAdmission
from attendant_server.application.attention import AttentionReader
from attendant_server.application.bulk_calls import BulkEmbedder, BulkTranslator
from attendant_server.application.catalog import Catalog
from attendant_server.application.classification import Classifier
from attendant_server.application.embedding import Embedder
from attendant_server.application.generation import Generator
from attendant_server.application.glossary_folder import GlossaryFolder
from attendant_server.application.jobs import JobRunner
from attendant_server.application.language_detection import LanguageDetector
from attendant_server.application.markup_translation import MarkupTranslator
from attendant_server.application.mask_filling import MaskFiller
from attendant_server.application.model_control import Lifecycle, ModelController
from attendant_server.application.model_statistics import ModelStatistics
from attendant_server.application.models import ModelInspector
from attendant_server.application.pivots import Routes
from attendant_server.application.reranking import Reranker
from attendant_server.application.routed_translation import RoutedTranslator
from attendant_server.application.scoring import Scorer
from attendant_server.application.similarity import SimilarityScorer
from attendant_server.application.sparse_embedding import SparseEmbedder
from attendant_server.application.streamed_requests import RequestStreams
from attendant_server.application.text_scoring import TextScorer
from attendant_server.application.token_embedding import TokenEmbedder
from attendant_server.application.translation import Translator
from attendant_server.application.validation import RequestLimits
from attendant_server.language_identifier import LanguageIdentifier


@dataclass(frozen=True, slots=True)
class Application:
    """The methods of the server. A front door runs each call inside `CallAdmission.run`."""

    admission: CallAdmission
    jobs: JobRunner
    """Front doors use it to serialize long answers off the event loop."""
    translator: Translator
    routed_translator: RoutedTranslator
    bulk_translator: BulkTranslator
    bulk_embedder: BulkEmbedder
    scorer: Scorer
    embedder: Embedder
    token_embedder: TokenEmbedder
    mask_filler: MaskFiller
    classifier: Classifier
    similarity_scorer: SimilarityScorer
    reranker: Reranker
    sparse_embedder: SparseEmbedder
    generator: Generator
    text_scorer: TextScorer
    language_detector: LanguageDetector
    models: ModelInspector
    attention_reader: AttentionReader
    control: ModelController
    request_streams: RequestStreams
    statistics: ModelStatistics


def new_application(
    catalog: Catalog,
    admission: CallAdmission,
    lifecycle: Lifecycle,
    limits: RequestLimits,
    jobs: JobRunner,
    statistics: ModelStatistics,
    load_identifier: Callable[[], LanguageIdentifier] | None = None,
    pivots: Sequence[str] = (),
    glossaries: Path | None = None,
) -> Application:
    """A new application for the models of a catalog; ``jobs`` runs long work.

    ``load_identifier`` loads what detects languages; None if it is not installed.
    ``pivots`` are those of `Routes`, and ``glossaries`` is the folder of stored glossaries.
    """
    models = ModelInspector(catalog, jobs, limits)
    translator = Translator(catalog, jobs, limits, GlossaryFolder(glossaries, jobs))
    markup_translator = MarkupTranslator(translator, jobs, limits)
    scorer = Scorer(catalog, jobs, limits)
    routed_translator = RoutedTranslator(
        Routes(catalog, pivots), translator, markup_translator, scorer, jobs, limits
    )
    embedder = Embedder(catalog, jobs, limits)
    return Application(
        admission=admission,
        jobs=jobs,
        translator=translator,
        routed_translator=routed_translator,
        bulk_translator=BulkTranslator(routed_translator, limits, admission),
        bulk_embedder=BulkEmbedder(embedder, limits, admission),
        scorer=scorer,
        embedder=embedder,
        token_embedder=TokenEmbedder(catalog, jobs, limits),
        mask_filler=MaskFiller(catalog, jobs, limits),
        classifier=Classifier(catalog, jobs, limits),
        similarity_scorer=SimilarityScorer(catalog, jobs, limits),
        reranker=Reranker(catalog, jobs, limits),
        sparse_embedder=SparseEmbedder(catalog, jobs, limits),
        generator=Generator(catalog, jobs, limits),
        text_scorer=TextScorer(catalog, jobs, limits),
        language_detector=LanguageDetector(load_identifier, jobs, limits),
        models=models,
        attention_reader=AttentionReader(catalog, jobs, limits),
        control=ModelController(lifecycle, models),
        request_streams=RequestStreams(limits, admission),
        statistics=statistics,
    )
