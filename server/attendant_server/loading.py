"""Loads bundles from disk into schedulers for the engine. Knows no gRPC and no requests."""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

from attendant.v1 import bundle_pb2

from attendant_server.application.descriptions import ModelKind
from attendant_server.application.glossaries import Glossary
from attendant_server.application.validation import RequestLimits
from attendant_server.bundle_glossaries import read_glossaries
from attendant_server.bundle_sources import BundleSource, LocalBundles
from attendant_server.bundle_tokenizers import check_room, check_special_tokens, read_tokenizer
from attendant_server.bundle_trial import try_bundle
from attendant_server.bundles import Bundle, BundleError, find_bundles, read_bundle
from attendant_server.engine.cache_budget import most_needed_bytes
from attendant_server.engine.caller_activity import CallerActivity
from attendant_server.engine.embedding_scheduler import EmbeddingLimits, EmbeddingScheduler
from attendant_server.engine.reports import Observer
from attendant_server.engine.scheduler import Scheduler
from attendant_server.engine.translation_limits import TranslationLimits
from attendant_server.engine.translation_scheduler import TranslationScheduler
from attendant_server.reasons import reason_of
from attendant_server.runtime.attention_graph import AttentionGraph
from attendant_server.runtime.cache_pool import SPARE_BYTES
from attendant_server.runtime.decoder_model import OnnxDecoderModel
from attendant_server.runtime.device_models import DeviceLanguageModel, DeviceTranslationModel
from attendant_server.runtime.embedding_model import OnnxEmbeddingModel
from attendant_server.runtime.graph_rules import check_graphs
from attendant_server.runtime.language_model import OnnxLanguageModel
from attendant_server.runtime.model_graphs import RunCounter
from attendant_server.runtime.reference_outputs import check_reference_outputs
from attendant_server.runtime.sessions import gpu_memory, use_gpu
from attendant_server.runtime.translation_model import OnnxTranslationModel
from attendant_server.security.bundle_keys import BundleKeys
from attendant_server.security.watching import FileFault
from attendant_server.settings import Settings
from attendant_server.sizing import choose_num_sentences, choose_num_workers, worker_processors
from attendant_server.system.memory import host_memory
from attendant_server.system.processors import CAN_PIN, num_processors, processor_ids
from attendant_server.tokenizer import TextTokenizer

logger = logging.getLogger(__name__)

Model = TypeVar("Model", bound=OnnxDecoderModel | OnnxEmbeddingModel)
SchedulerKind = TypeVar("SchedulerKind", bound=Scheduler)

FULL_ROWS = 16
"""Rows from which on a step takes hardly less time for each, see docs/decisions/0012."""
CACHES_SHARE_OF_MEMORY = 0.5
"""Default share of the memory that the caches of all models may take together."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model with its tokenizers and its schedulers, one per worker, ready for an engine."""

    bundle: Bundle
    schedulers: Sequence[Scheduler]
    max_cache_bytes: int
    """Limit of the caches of a model that decodes, over all workers; 0 for other models."""
    source_tokenizer: TextTokenizer
    target_tokenizer: TextTokenizer
    mask_tokenizer: TextTokenizer | None
    """None for models without a mask token."""
    special_tokenizer: TextTokenizer | None = None
    """The tokenizer of prompts that recognizes special tokens; None for other models."""
    attention: AttentionGraph | None = None
    """The graph of attention weights, which is not open yet. None for a bundle without one."""
    glossaries: Mapping[str, Glossary] = field(default_factory=dict)
    """The glossaries of the bundle, by name."""


def read_bundles(
    settings: Settings,
    wanted: Sequence[str],
    on_bad: Callable[[Path, BundleError], None] | None = None,
    source: BundleSource | None = None,
) -> list[Bundle]:
    """Read the manifests of the bundles ``wanted``, or of all of the folder; raises BundleError.

    With ``on_bad``, a bundle with a bad manifest is passed to it, and left out. So is a bundle that
    the ``source``, by default the folder of the settings, cannot get now.
    """
    try:
        keys = BundleKeys(Path(settings.bundle_keys)) if settings.bundle_keys else None
    except FileFault as error:
        raise BundleError(f"bundle_keys: {error}") from error
    bundles, source = [], source or LocalBundles(Path(settings.bundles))
    source.update()
    for directory in find_bundles(source.root, wanted):
        try:
            bundle = read_bundle(directory, settings.precision, settings.device, keys)
            if source.check(bundle):
                bundles.append(bundle)
        except BundleError as error:
            if on_bad is None:
                raise
            on_bad(directory, error)
    return bundles


class ModelLoader:
    """Loads the models of one server."""

    def __init__(
        self, settings: Settings, observer: Observer, source: BundleSource | None = None
    ) -> None:
        """``observer`` receives the reports of all schedulers.

        ``source`` has the files of the bundles; by default, they are in their folders.
        """
        self._settings, self._observer = settings, observer
        self.source = source or LocalBundles(Path(settings.bundles))
        """Where the bundles come from."""
        self.num_decoding = 1
        """Number of models that decode, which share the memory for caches."""
        self.clock = time.monotonic
        self.num_threads = settings.num_threads or num_processors()
        """Number of threads of all model runs together."""
        self.num_workers = choose_num_workers(settings, self.num_threads)
        available = processor_ids() if CAN_PIN else []
        self.worker_processors = worker_processors(settings, self.num_workers, available)
        """One processor per worker to pin it to, or none."""
        # Workers run the same sessions concurrently, each on its own thread.
        self._num_run_threads = max(1, self.num_threads // self.num_workers)
        self._run_counter = RunCounter(self.num_threads)
        self._activity = CallerActivity()

    def open_device(self) -> None:
        """Prepare the device; raises RuntimeError if it cannot be used."""
        if self._settings.device == "cuda":
            use_gpu(self._settings.max_device_memory_bytes)

    def load(self, bundle: Bundle, while_serving: bool = False) -> LoadedModel:
        """Check a bundle's files and load its model and tokenizers; raises BundleError.

        ``while_serving``: other models are in use, which a bad bundle must not disturb.
        """
        tried = "always", *(["auto"] if while_serving else [])
        copies, fetched = "", bundle
        try:
            fetched = self.source.fetch(bundle)
            with fetched.checked_copy() as copy:
                copies = f"{copy.copies}/"
                if self._settings.try_bundles in tried:
                    try_bundle(copy, self._settings)
                return self.load_copy(copy)
        except Exception as error:  # ONNX Runtime has its own exception classes
            reason = reason_of(error).replace(copies, "")
            if fetched.directory != bundle.directory:  # callers may know the key, and no path
                reason = reason.replace(str(fetched.directory), bundle.key)
            if isinstance(error, BundleError):
                raise BundleError(reason) from error
            logger.debug("event=load_failed bundle=%s", bundle.directory, exc_info=True)
            raise BundleError(f"{bundle.directory}: {reason}") from error

    def load_copy(self, bundle: Bundle) -> LoadedModel:
        """Load the checked copy of a bundle; raises BundleError or other errors."""
        check_graphs(bundle)
        kind = ModelKind(bundle.manifest.kind)
        tokenizer = cache(partial(read_tokenizer, bundle))  # both sides often name one file
        source = bundle.manifest.source_tokenizer
        target = bundle.manifest.target_tokenizer or source
        if kind.decodes:
            check_special_tokens(bundle, tokenizer(target))
        check_room(bundle, tokenizer(source))
        special_tokens = bundle.manifest.special_tokens
        mask_id = special_tokens.mask_id if special_tokens.HasField("mask_id") else None
        model: OnnxDecoderModel | OnnxEmbeddingModel
        if kind.decodes:
            model = self._decoder_model(bundle)
            schedulers, max_cache_bytes = self._translation_schedulers(bundle, model)
        else:
            model = self._opened(OnnxEmbeddingModel, bundle)
            schedulers, max_cache_bytes = self._embedding_schedulers(bundle, model), 0
        return LoadedModel(
            bundle=bundle,
            schedulers=schedulers,
            max_cache_bytes=max_cache_bytes,
            source_tokenizer=tokenizer(source),
            target_tokenizer=tokenizer(target),
            mask_tokenizer=None if mask_id is None else tokenizer(source, mask_id),
            special_tokenizer=(
                tokenizer(source, reads_special_tokens=True)
                if kind is ModelKind.LANGUAGE_MODEL
                else None
            ),
            attention=model.attention,
            glossaries=read_glossaries(bundle),
        )

    def _translation_schedulers(
        self, bundle: Bundle, model: OnnxDecoderModel
    ) -> tuple[Sequence[Scheduler], int]:
        """The schedulers of a model, and the limit of their caches together."""
        settings, d_model = self._settings, bundle.manifest.architecture.d_model
        num_sentences = choose_num_sentences(settings, self.num_threads, self.num_workers, d_model)
        max_cache_bytes = self._max_cache_bytes(model, num_sentences)
        limits = TranslationLimits(
            max_rows=settings.max_rows // self.num_workers,
            max_sentences=num_sentences,
            max_queued_texts=settings.max_queued_texts,
            max_encode_tokens=settings.max_encode_tokens,
            max_cache_bytes=max_cache_bytes // self.num_workers,
            spare_cache_bytes=SPARE_BYTES // self.num_workers,
            max_run_seconds=settings.max_batch_seconds,
            run_clock=self._run_clock,
            full_rows=FULL_ROWS if self.worker_processors else 0,
        )
        schedulers = self._for_workers(
            partial(TranslationScheduler, bundle.key, model, limits, self._observer, self.clock)
        )
        return schedulers, max_cache_bytes

    @property
    def _run_clock(self) -> Callable[[], float] | None:
        """The processor time of a worker's thread, which computes the runs itself on a CPU."""
        return time.thread_time if self._settings.device == "cpu" else None

    def _decoder_model(self, bundle: Bundle) -> OnnxDecoderModel:
        if bundle.manifest.kind == bundle_pb2.MODEL_KIND_TRANSLATION:
            return self._translation_model(bundle)
        on_device = self._settings.device == "cuda"
        return self._opened(DeviceLanguageModel if on_device else OnnxLanguageModel, bundle)

    def _translation_model(self, bundle: Bundle) -> OnnxTranslationModel:
        if self._settings.device == "cuda":
            return self._opened(DeviceTranslationModel, bundle)
        if self._settings.shortlists == "never":
            return self._opened(OnnxTranslationModel, bundle)
        model = self._opened(partial(OnnxTranslationModel, uses_shortlists=True), bundle)
        if not model.uses_shortlists:
            logger.warning("event=no_shortlists model=%s", bundle.key)
        return model

    def _max_cache_bytes(self, model: OnnxDecoderModel, num_sentences: int) -> int:
        """The limit in bytes of one model's caches, over all workers of ``num_sentences`` each."""
        settings = self._settings
        # Beams of the longest prompts can take gigabytes, so one row must do for a language model.
        width = 1 if isinstance(model, OnnxLanguageModel) else settings.max_beam_size
        longest = model.max_row, model.max_source_tokens
        largest_sentence = model.needed_cache_bytes(width, 1, *longest)
        smallest = self.num_workers * largest_sentence
        if not settings.max_cache_bytes:
            num_sentences *= self.num_workers
            most = most_needed_bytes(model.needed_cache_bytes, settings.max_rows, num_sentences)
            share = CACHES_SHARE_OF_MEMORY * self._memory_bytes() / self.num_decoding
            return int(max(smallest, min(most, share)))
        if settings.max_cache_bytes < smallest:
            logger.warning(
                "event=caches_refuse_texts max_bytes=%d needed_bytes=%d",
                settings.max_cache_bytes,
                smallest,
            )
        return settings.max_cache_bytes

    def _memory_bytes(self) -> float:
        """The bytes that models, caches and runs share; infinity for a GPU that does not tell."""
        if self._settings.device != "cuda":
            return host_memory().limit
        try:
            return self._settings.max_device_memory_bytes or gpu_memory()[1]
        except (OSError, RuntimeError):
            return math.inf

    def _embedding_schedulers(
        self, bundle: Bundle, model: OnnxEmbeddingModel
    ) -> Sequence[Scheduler]:
        settings = self._settings
        limits = EmbeddingLimits(
            max_batch_tokens=settings.max_batch_tokens,
            max_batch_seconds=settings.max_batch_seconds,
            max_queued_texts=settings.max_queued_texts,
            run_clock=self._run_clock,
        )
        return self._for_workers(
            partial(EmbeddingScheduler, bundle.key, model, limits, self._observer, self.clock)
        )

    def _for_workers(
        self, new_scheduler: Callable[[SchedulerKind | None, CallerActivity], SchedulerKind]
    ) -> list[SchedulerKind]:
        """One scheduler per worker; each further scheduler is a sibling of the first."""
        first = new_scheduler(None, self._activity)
        others = range(1, self.num_workers)
        return [first, *(new_scheduler(first, self._activity) for _ in others)]

    def _opened(
        self, model: Callable[[Bundle, int, str, RunCounter], Model], bundle: Bundle
    ) -> Model:
        device = self._settings.device
        opened = model(bundle, self._num_run_threads, device, self._run_counter)
        if device == "cpu":  # on a GPU, differences were never measured
            check_reference_outputs(bundle, opened)
        return opened


def request_limits(settings: Settings) -> RequestLimits:
    """The limits of requests in the settings."""
    return RequestLimits(
        max_texts=settings.max_texts,
        max_text_characters=settings.max_text_characters,
        max_beam_size=settings.max_beam_size,
        max_top_k=settings.max_top_k,
        max_response_bytes=settings.max_response_bytes,
        max_request_seconds=settings.max_request_seconds,
    )
