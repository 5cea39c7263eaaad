"""Everything that a front door needs, in one object."""

from concurrent.futures import Executor
from dataclasses import dataclass

from attendant_server.application.admission import CallAdmission
from attendant_server.application.catalog import Catalog
from attendant_server.application.embedding import Embedder
from attendant_server.application.jobs import JobRunner
from attendant_server.application.mask_filling import MaskFiller
from attendant_server.application.models import ModelInspector
from attendant_server.application.scoring import Scorer
from attendant_server.application.translation import Translator
from attendant_server.application.validation import RequestLimits


@dataclass(frozen=True, slots=True)
class Application:
    """The methods of the server. A door runs each call of them inside of `CallAdmission.run`."""

    admission: CallAdmission
    jobs: JobRunner
    """Doors serialize long answers with it, off the event loop."""
    translator: Translator
    scorer: Scorer
    embedder: Embedder
    mask_filler: MaskFiller
    models: ModelInspector


def new_application(
    catalog: Catalog, admission: CallAdmission, limits: RequestLimits, pool: Executor
) -> Application:
    """The application over the models of a catalog; long work runs on the threads of ``pool``."""
    jobs = JobRunner(pool)
    return Application(
        admission=admission,
        jobs=jobs,
        translator=Translator(catalog, jobs, limits),
        scorer=Scorer(catalog, jobs, limits),
        embedder=Embedder(catalog, jobs, limits),
        mask_filler=MaskFiller(catalog, jobs, limits),
        models=ModelInspector(catalog, jobs, limits),
    )
