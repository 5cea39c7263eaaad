"""The models of a server over its life: loads, replaces and unloads them while it runs."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

from attendant_server.application.catalog import Catalog, ServedModel, version_order
from attendant_server.application.descriptions import ModelDescription
from attendant_server.attention_opening import opener
from attendant_server.bundle_faults import without_paths
from attendant_server.bundles import Bundle, BundleError, is_wanted
from attendant_server.default_versions import read_default_versions
from attendant_server.engine.engine import Engine
from attendant_server.errors import (
    AttendantError,
    InvalidRequest,
    ModelNotFound,
    ModelNotLoaded,
    Unavailable,
)
from attendant_server.loading import LoadedModel, ModelLoader, read_bundles
from attendant_server.manifest_description import describe_model
from attendant_server.memory_need import check_memory, warn_of_caches
from attendant_server.model_changes import ModelChanges
from attendant_server.observability.model_series import ModelSeries
from attendant_server.reasons import reason_of
from attendant_server.settings import Settings
from attendant_server.system.blocking_work import run_blocking
from attendant_server.system.memory import free_memory

RETIREMENT_GRACE_SECONDS = 5.0
"""Seconds beyond the time limit of calls for which an unloaded model waits for its calls."""

logger = logging.getLogger(__name__)


class ModelLifecycle:
    """Serves the bundles of a folder through a catalog and an engine. One change runs at a time.

    A bundle is checked and loaded before it takes calls, and a bundle that cannot be loaded leaves
    the served model of its key in place. Calls that use a model when it is replaced or unloaded
    are finished with it.
    """

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        loader: ModelLoader,
        series: ModelSeries,
        on_change: Callable[[], Awaitable[None]],
    ) -> None:
        """Read the manifests of the bundles; raises BundleError.

        ``on_change`` is awaited after the set of ready models has changed.
        """
        self._settings, self._catalog, self._loader = settings, catalog, loader
        self._series, self._on_change = series, on_change
        self._changing = asyncio.Lock()
        self._changes = ModelChanges()
        self._retirements = set[asyncio.Task[None]]()
        self._is_stopped = False
        self._num_loads = 0
        self._max_cache_bytes: dict[str, int] = {}
        self._requested: dict[str, bool] = {}
        """Whether the last request to load or unload a model, by key, was to load it."""
        self.engine: Engine | None = None
        """Runs the models; None until the first ones are loaded."""
        on_bad = self._report_bad if self._skips_bad else None
        bundles = read_bundles(settings, settings.models, on_bad, loader.source)
        self._served = {bundle.key: bundle for bundle in bundles}
        on_bad_choice = self._report_bad_choice if self._skips_bad else None
        chosen = read_default_versions(loader.source.root, self._served, on_bad_choice)
        catalog.choose_defaults(chosen)
        for bundle in bundles:
            self._announce(describe_model(bundle))

    @property
    def _skips_bad(self) -> bool:
        return self._settings.bad_bundles == "skip"

    async def start(self, engine: Engine) -> None:
        """Load the bundles, let an engine run them and make all ready at once.

        Raises BundleError. After `close` it may be called again with another engine; bundles that
        can no longer be loaded are then left out.
        """
        skips_bad = self._skips_bad or self._num_loads > 0
        self._loader.num_decoding = self._num_decoding()
        loaded = []
        for bundle in list(self._served.values()):
            try:
                loaded.append(await run_blocking(self._loader.load, bundle))
            except BundleError as error:
                if not skips_bad:
                    raise
                self._report_bad(bundle.directory, error)
                self._forget(bundle.key)
        if not loaded:
            raise BundleError(f"{self._settings.bundles}: no bundle can be loaded")
        self.engine = engine
        engine.start()
        described = {description.key: description for description in self._catalog.descriptions}
        self._catalog.open([self._enter(model, described[model.bundle.key]) for model in loaded])
        warn_of_caches(sum(self._max_cache_bytes.values()))
        await self._on_change()

    def close(self) -> None:
        """Let no model be ready any more, after the engine has died."""
        self._give_up_changes()
        self.engine = None
        for key in self._served:
            self._catalog.close(key)

    async def load(self, model: str) -> str:
        """Load ``name/version`` of the folder, or the highest version of ``name``.

        Returns the key. Does nothing if the bundle is served already. Goes on if the caller gives
        up. Raises ModelNotFound, ModelNotLoaded, QueueFull or Unavailable.
        """
        return await self._changes.carried_out(self._load, model)

    async def unload(self, model: str) -> str:
        """Unload ``name/version``, or ``name`` if one version of it is served.

        Returns the key once the calls that used the model have ended. Goes on if the caller gives
        up. Raises ModelNotFound, InvalidRequest, QueueFull or Unavailable.
        """
        return await self._changes.carried_out(self._unload, model)

    async def refresh(self) -> bool:
        """Load, replace and unload models, so that the served ones are those of the folder.

        Faults are logged. If the folder holds no bundles at all, nothing changes. Returns False if
        the folder could not be looked at now, as while an engine is restarted.
        """
        try:
            await self._changes.carried_out(self._refresh)
        except BundleError as error:
            self._series.on_change("failed")
            logger.error("event=bundles_not_refreshed %s", error)
        except (AttendantError, OSError, RuntimeError) as error:  # such as no further thread
            logger.warning("event=bundles_not_refreshed %s", reason_of(error))
            return False
        return True

    def stop(self) -> None:
        """Give up changes in progress, and begin no more."""
        self._is_stopped = True
        self._give_up_changes()

    def _give_up_changes(self) -> None:
        self._changes.give_up()
        for task in self._retirements:
            task.cancel()

    async def _load(self, model: str) -> str:
        faults: dict[str, str] = {}
        async with self._change():
            try:
                bundles = await self._read(faults)
            except BundleError as error:
                logger.error("event=bundles_not_read %s", error)
                raise ModelNotLoaded("model: the folder has no bundles that can be read") from error
            found = [b for b in bundles if model in (b.key, b.manifest.name)]
            if not found:
                for fault in (faults[key] for key in faults if is_wanted(key, (model,))):
                    raise ModelNotLoaded(f"model: {fault}")
                raise ModelNotFound("model: the folder has no such bundle")
            bundle = max(found, key=lambda each: version_order(each.manifest.version))
            try:
                await self._serve(bundle)
            except BundleError as error:
                fault = without_paths(error, bundle.directory, bundle.key)
                raise ModelNotLoaded(f"model: {fault}") from error
            self._requested[bundle.key] = True
            return bundle.key

    async def _unload(self, model: str) -> str:
        async with self._change():
            keys = [key for key, b in self._served.items() if model in (key, b.manifest.name)]
            if not keys:
                raise ModelNotFound("model: no such model is served")
            if len(keys) > 1:
                raise InvalidRequest("model", f"must name one of {', '.join(keys)}")
            self._requested[keys[0]] = False
            await self._remove(keys[0])
        await self._retired_all()
        return keys[0]

    async def _refresh(self) -> None:
        faults: dict[str, str] = {}
        async with self._change():
            bundles = [each for each in await self._read(faults) if self._is_wanted(each.key)]
            for bundle in bundles:
                with suppress(BundleError):  # it is logged; the others may still be good
                    await self._serve(bundle)
            root, served = self._loader.source.root, self._served
            self._catalog.choose_defaults(await run_blocking(read_default_versions, root, served))
            kept = {bundle.key for bundle in bundles} | set(faults)
            for key in [key for key in served if key not in kept]:
                await self._remove(key)

    async def _read(self, faults: dict[str, str]) -> list[Bundle]:
        """The bundles of the folder; bad manifests are logged.

        ``faults`` gets what callers may know of them, by key. Raises BundleError if there are no
        bundles at all.
        """

        def note(directory: Path, error: BundleError) -> None:
            key = f"{directory.parent.name}/{directory.name}"
            faults[key] = without_paths(error, directory, key)
            self._report_bad(directory, error)

        return await run_blocking(read_bundles, self._settings, (), note, self._loader.source)

    def _is_wanted(self, key: str) -> bool:
        return self._requested.get(key, is_wanted(key, self._settings.models))

    @asynccontextmanager
    async def _change(self) -> AsyncIterator[None]:
        """A change of the models after the last one, and after the end of models it retired."""
        if self.engine is None or self._is_stopped:
            raise Unavailable("the server is loading all its models, or stopping")
        async with self._changing:
            await self._retired_all()
            yield

    async def _serve(self, bundle: Bundle) -> None:
        """Load a bundle unless it is served already. Raises BundleError, and logs it."""
        key, old = bundle.key, self._catalog.ready(bundle.key)
        if old is not None and self._served[key].manifest == bundle.manifest:
            return
        started = time.monotonic()
        logger.info("event=model_loading model=%s", key)
        description = describe_model(bundle)
        if old is None:
            self._announce(description)
        try:
            self._loader.num_decoding = self._num_decoding()
            if self._settings.device == "cpu":
                check_memory(bundle)
            model = await run_blocking(partial(self._loader.load, bundle, while_serving=True))
        except BaseException as error:
            if old is None:
                self._forget(key)
            if isinstance(error, BundleError):
                self._report_bad(bundle.directory, error)
            raise
        self._served[key] = bundle
        if old is not None:
            self._series.add(description)
        self._catalog.open([self._enter(model, description)])
        warn_of_caches(sum(self._max_cache_bytes.values()))
        await self._on_change()
        self._series.on_change("loaded")
        logger.info("event=model_loaded model=%s seconds=%.3f", key, time.monotonic() - started)
        if old is not None:
            self._retire(old, is_replaced=True)

    async def _remove(self, key: str) -> None:
        old = self._catalog.ready(key)
        del self._served[key], self._max_cache_bytes[key]
        self._catalog.withdraw(key)
        self._loader.source.release(key)
        await self._on_change()
        if old is not None:
            self._retire(old, is_replaced=False)

    def _retire(self, model: ServedModel, is_replaced: bool) -> None:
        task = asyncio.ensure_future(self._retired(model, is_replaced))
        self._retirements.add(task)
        task.add_done_callback(self._retirements.discard)

    async def _retired_all(self) -> None:
        """Wait until no model is left that was replaced or unloaded."""
        if self._retirements:
            await asyncio.wait(self._retirements)

    async def _retired(self, model: ServedModel, is_replaced: bool) -> None:
        """Wait for the last call that uses a model, and free the model."""
        key = model.description.key
        try:
            await self._ended(model)
        finally:  # also after the death of the engine, which ends the calls
            if not is_replaced:
                self._series.remove(key)
        del model
        await run_blocking(free_memory)
        self._series.on_change("unloaded")
        logger.info("event=model_unloaded model=%s replaced=%s", key, is_replaced)

    async def _ended(self, model: ServedModel) -> None:
        """Wait for the last call that uses a model, and let the engine run it no more."""
        engine = self.engine
        assert engine is not None
        longest = self._settings.max_request_seconds + RETIREMENT_GRACE_SECONDS
        try:
            await asyncio.wait_for(model.usage.wait_until_unused(), longest)
        except TimeoutError:
            logger.warning("event=model_unloaded_in_use model=%s", model.description.key)
        await asyncio.wrap_future(engine.remove(model.engine_name))

    def _announce(self, description: ModelDescription) -> None:
        """List a model as loading, with its metrics."""
        self._series.add(description)
        self._catalog.announce([description])

    def _forget(self, key: str) -> None:
        """Undo `_announce` for a bundle that could not be loaded."""
        self._served.pop(key, None)
        self._max_cache_bytes.pop(key, None)
        self._catalog.withdraw(key)
        self._loader.source.release(key)
        self._series.remove(key)

    def _enter(self, model: LoadedModel, description: ModelDescription) -> ServedModel:
        """Let the engine run a loaded model; returns it for the catalog."""
        assert self.engine is not None
        key, self._num_loads = model.bundle.key, self._num_loads + 1
        name = key if self._catalog.ready(key) is None else f"{key}#{self._num_loads}"
        self.engine.add(name, model.schedulers)
        self._max_cache_bytes[key] = model.max_cache_bytes
        self._series.watch(key, model.schedulers, model.max_cache_bytes)
        return ServedModel(
            description=description,
            source_tokenizer=model.source_tokenizer,
            target_tokenizer=model.target_tokenizer,
            mask_tokenizer=model.mask_tokenizer,
            special_tokenizer=model.special_tokenizer,
            engine=self.engine,
            engine_name=name,
            on_refused=self._series.on_refused,
            open_attention=opener(model.attention),
            glossaries=model.glossaries,
        )

    def _num_decoding(self) -> int:
        """Number of models that decode and are served or loading."""
        return sum(d.kind.decodes for d in self._catalog.descriptions)

    def _report_bad(self, directory: Path, error: BundleError) -> None:
        self._series.on_change("failed")
        logger.error("event=model_not_loaded bundle=%s %s", directory, error)

    def _report_bad_choice(self, error: BundleError) -> None:
        self._series.on_change("failed")
        logger.error("event=default_version_ignored %s", error)
