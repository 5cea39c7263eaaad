"""Writes new graphs and a new manifest for an existing bundle. Its weights stay as they are.

This needs no checkpoint: the parameters of the new graphs are the weights of the bundle. The new
bundle is written and verified in a folder beside the old one, and then takes its place.
"""

import logging
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from attendant.v1.bundle_pb2 import (
    Alignment,
    Manifest,
    ParityReport,
    PrecisionGraphs,
    PrecisionParity,
)
from attendant_manifest import MANIFEST_VERSION
from attendant_manifest.rules import SIGNATURE_NAME
from torch import Tensor

from attendant_export.bundle.exchange import exchange_folders, put_back, replaced_folder
from attendant_export.bundle.export import MODEL_CARD
from attendant_export.bundle.glossaries import GlossaryFile, add_glossaries
from attendant_export.bundle.kinds import kind_of_bundle
from attendant_export.bundle.manifest import (
    MANIFEST,
    BundleError,
    graphs_of,
    read_manifest,
    write_manifest,
)
from attendant_export.bundle.model_card import note_rebuilt_graphs
from attendant_export.bundle.parameters import REFERENCES, fitting_parameters
from attendant_export.bundle.reference_outputs import check_has_reference_outputs
from attendant_export.bundle.scratch import locked, scratch_folder
from attendant_export.bundle.upgrade import read_upgraded
from attendant_export.bundle.verify import verify_bundle
from attendant_export.bundle.weights import read_weights
from attendant_export.graphs.builder import LayoutError
from attendant_export.graphs.writer import write_graphs_of

logger = logging.getLogger(__name__)

OPTIONAL_GRAPHS = {
    "aligner": "max_alignment_difference",
    "attention": "max_attention_difference",
}
"""Graphs that older bundles lack and that can be added alone, with their figures in the report."""


def rebuild_bundle(
    folder: Path, only: Collection[str] = (), glossaries: Sequence[GlossaryFile] = ()
) -> list[str]:
    """Rebuild the graphs of the bundle in ``folder``, or only those named ``only``.

    ``only`` has names of `OPTIONAL_GRAPHS`. ``glossaries`` are added, or replace those of the same
    name. Returns a summary and the lines of `verify_bundle`.

    Keeps the weights, the tokenizers, the reference outputs, and the figures that need the trained
    model or other texts; these figures are marked. First restores a bundle that a killed rebuild
    removed from its place.

    Raises BundleError for a damaged bundle, for weights that the graphs of its architecture cannot
    use, and if another process writes the bundle; ParityError if the new graphs differ from the
    model or from the reference outputs; ValueError if glossaries are given for a model that cannot
    have any. The bundle is then left unchanged.
    """
    folder = folder.resolve()
    if not replaced_folder(folder).is_dir():
        read_manifest(folder)  # Nothing is written beside a folder that is no bundle.
    with scratch_folder(folder.parent / f".rebuild-{folder.name}", folder) as scratch:
        _restore(folder)
        with locked(folder, folder):
            return _rebuild(folder, scratch / "bundle", only, glossaries)


def _rebuild(
    folder: Path, new: Path, only: Collection[str], glossaries: Sequence[GlossaryFile]
) -> list[str]:
    manifest, found_version = read_upgraded(folder)
    name = f"{manifest.name}/{manifest.version}"
    if replaced_folder(folder).is_dir():
        shutil.rmtree(replaced_folder(folder))
    check_has_reference_outputs(folder, manifest)
    _copy_without_graphs(folder, new, manifest)
    reference, parameters, written = _write_graphs(folder, manifest, new)
    if only:
        _keep_others(folder, new, manifest, written, only)
    del manifest.files[:]
    if found_version == MANIFEST_VERSION and _has_same_graphs(folder, new, manifest, written):
        summary = f"{name}: the graphs are those of this version already"
        if not glossaries:
            return [summary]
    else:
        _update_manifest(manifest, written, only)
        _compare(new, manifest, reference, parameters, only)
        _note_in_model_card(new, reference)
        precisions = ", ".join(graphs.name for graphs in written)
        graphs = f"graphs {', '.join(only)}" if only else "graphs"
        summary = f"{name}: the {graphs} of {precisions} are rebuilt, the weights unchanged"
    add_glossaries(new, manifest, glossaries)
    write_manifest(new, manifest)
    checked = verify_bundle(new)
    exchange_folders(folder, new)
    added = [f"{name}: has the glossary {each.name} now" for each in glossaries]
    return [summary, *added, *checked]


def _restore(folder: Path) -> None:
    """Restore a bundle that a killed rebuild removed from its place."""
    replaced = replaced_folder(folder)
    if put_back(folder):
        logger.warning("%s: a killed rebuild left it in %s; it is restored", folder, replaced)
    elif replaced.is_dir():
        logger.warning(
            "%s: a killed rebuild left the earlier bundle there; it is removed if %s is undamaged",
            replaced,
            folder,
        )


def _copy_without_graphs(folder: Path, new: Path, manifest: Manifest) -> None:
    shutil.copytree(folder, new)
    graphs = [graph.path for each in manifest.precisions for graph in graphs_of(each)]
    for path in {MANIFEST, *graphs}:
        (new / path).unlink()
    (new / SIGNATURE_NAME).unlink(missing_ok=True)


def _write_graphs(
    folder: Path, manifest: Manifest, new: Path
) -> tuple[str, dict[str, Tensor], list[PrecisionGraphs]]:
    """Write the graphs of all precisions into ``new``.

    Also returns the parameters of the model to compare with, and the name of their precision.
    """
    architecture = manifest.architecture
    weights = {graphs.name: read_weights(folder, graphs) for graphs in manifest.precisions}
    parameters = {name: fitting_parameters(name, weights[name], architecture) for name in weights}
    written = []
    for old in manifest.precisions:
        try:
            graphs = write_graphs_of(
                *(weights[old.name], architecture, old.name, new),
                penalizes_repetition=bool(manifest.decoding.repetition_penalty),
            )
        except LayoutError as error:
            raise BundleError(
                f"the {old.name} weights do not fit the graphs of this version: {error}"
            ) from error
        graphs.weights.extend(old.weights)
        written.append(graphs)
    reference = next(name for name in REFERENCES if name in parameters)
    return reference, parameters[reference], written


def _keep_others(
    folder: Path,
    new: Path,
    manifest: Manifest,
    written: Sequence[PrecisionGraphs],
    only: Collection[str],
) -> None:
    """Put the graphs of the bundle in place of the new ones, except those named ``only``.

    Raises BundleError for a graph that models of this kind lack.
    """
    for old, graphs in zip(manifest.precisions, written, strict=True):
        made = PrecisionGraphs()
        made.CopyFrom(graphs)
        graphs.CopyFrom(old)
        for name in only:
            if not made.HasField(name):  # type: ignore[arg-type]
                raise BundleError(f"{folder}: this model has no graph {name}")
            getattr(graphs, name).CopyFrom(getattr(made, name))
        chosen = {getattr(made, name).path for name in only}
        for path in {graph.path for graph in graphs_of(made)} - chosen:
            (new / path).unlink()
        for path in {graph.path for graph in graphs_of(old)} - chosen:
            shutil.copyfile(folder / path, new / path)


def _has_same_graphs(
    folder: Path, new: Path, manifest: Manifest, written: Sequence[PrecisionGraphs]
) -> bool:
    paths = [graph.path for graphs in written for graph in graphs_of(graphs)]
    return list(manifest.precisions) == written and all(
        (folder / path).read_bytes() == (new / path).read_bytes() for path in paths
    )


def _update_manifest(
    manifest: Manifest, written: Sequence[PrecisionGraphs], only: Collection[str]
) -> None:
    del manifest.precisions[:]
    manifest.precisions.extend(written)
    for figure in manifest.quality if not only else ():
        figure.is_carried_over = True


def _compare(
    folder: Path,
    manifest: Manifest,
    reference: str,
    parameters: Mapping[str, Tensor],
    only: Collection[str] = (),
) -> None:
    """Put the comparison with the model of ``parameters`` into the parity report.

    Figures and heads of graphs that are kept stay as they are.
    """
    alignment = Alignment()
    alignment.CopyFrom(manifest.alignment)
    measured = kind_of_bundle(manifest).measure_parity(folder, manifest, parameters)
    if only and "aligner" not in only and manifest.HasField("alignment"):
        manifest.alignment.CopyFrom(alignment)
    earlier = {parity.precision: parity for parity in manifest.parity.precisions}
    for parity in measured:
        # The model of fp32 weights is the trained model itself.
        parity.reference_precision = "" if reference == "fp32" else reference
        kept = earlier.pop(parity.precision, PrecisionParity())
        if only and kept.precision:
            _keep_figures(kept, parity, only)
        else:
            _carry_corpora_over(kept, parity)
    for parity in earlier.values():
        parity.is_carried_over = True
    report = ParityReport(precisions=[*earlier.values(), *measured])
    if manifest.parity.HasField("original"):
        report.original.CopyFrom(manifest.parity.original)
        report.original.is_carried_over = True
    manifest.parity.CopyFrom(report)


def _keep_figures(earlier: PrecisionParity, parity: PrecisionParity, only: Collection[str]) -> None:
    """Take all figures of ``earlier``, except those of the graphs named ``only``."""
    measured = {OPTIONAL_GRAPHS[name]: getattr(parity, OPTIONAL_GRAPHS[name]) for name in only}
    parity.CopyFrom(earlier)
    for name, figure in measured.items():
        setattr(parity, name, figure)


def _carry_corpora_over(earlier: PrecisionParity, parity: PrecisionParity) -> None:
    """Keep the comparisons on corpora, which need a corpus and the translations of fp32."""
    for kept, new in (
        (earlier.corpus, parity.corpus),
        (earlier.shortlist_corpus, parity.shortlist_corpus),
    ):
        if kept.dataset:
            new.CopyFrom(kept)
            new.is_carried_over = True


def _note_in_model_card(folder: Path, reference: str) -> None:
    path = folder / MODEL_CARD
    if path.is_file():
        card = path.read_text(encoding="utf-8")
        path.write_text(note_rebuilt_graphs(card, reference), encoding="utf-8")
