"""The model card of a bundle: its manifest and data card as Markdown."""

from collections.abc import Iterable, Sequence

from attendant.v1.bundle_pb2 import Manifest, PrecisionParity

from attendant_export.bundle.data_card import DataCard
from attendant_export.bundle.description import compared_corpora, describe_origin, describe_original
from attendant_export.bundle.kinds import kind_of_bundle

AGREEMENT = "Agreement with the trained model"
REBUILT = "The graphs of this bundle were later rebuilt from its"


def note_rebuilt_graphs(card: str, precision: str) -> str:
    """``card`` with a note that its figures are those of the earlier graphs, added only once.

    ``precision`` is that of the weights that the new graphs were compared with. A card without a
    section on agreement stays as it is.
    """
    heading = f"## {AGREEMENT}\n\n"
    note = (
        f"{REBUILT} weights and give the same reference outputs. Figures of quality and agreement "
        "on this page are those of the graphs before; the manifest has those of the new graphs, "
        f"compared with the model of the {precision} weights.\n\n"
    )
    return card if REBUILT in card else card.replace(heading, heading + note, 1)


def write_model_card(
    manifest: Manifest,
    card: DataCard,
    examples: Sequence[tuple[str, str]],
    example_title: str,
) -> str:
    """Markdown with use, data, training, quality, parity, weaknesses, licence and credits.

    ``examples`` are pairs of a text and the model's output, whose title is ``example_title``.
    """
    sections = [
        f"# {manifest.name} {manifest.version}\n\n{manifest.description}",
        _section("Use", [card.intended_use, kind_of_bundle(manifest).describe_use(manifest)]),
        _section("Training data", _bullets(f"{d.name} ({d.license})" for d in card.data)),
        _section("Training", _training(manifest)),
        _section("Quality", _quality_table(manifest)),
        _section(AGREEMENT, _parity_table(manifest)),
        _section("Weaknesses", _bullets(card.weaknesses)),
        _section("Examples", _examples_table(examples, example_title)),
        _section("Licence", [f"The weights are licensed under {manifest.license}."]),
        _section("Credits", _bullets(manifest.credits)),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def write_import_card(manifest: Manifest) -> str:
    """Markdown with use, origin, parity, licence and credits of an imported model."""
    sections = [
        f"# {manifest.name} {manifest.version}\n\n{manifest.description}",
        _section("Use", [kind_of_bundle(manifest).describe_use(manifest)]),
        _section("Origin", _origin(manifest)),
        _section(AGREEMENT, _parity_table(manifest)),
        _section("Agreement with the original implementation", _original(manifest)),
        _section("Licence", [f"The weights are licensed under {manifest.license}."]),
        _section("Credits", _bullets(manifest.credits)),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _original(manifest: Manifest) -> list[str]:
    if not manifest.parity.HasField("original"):
        return ["Not compared: the original implementation was not installed."]
    return _bullets(describe_original(manifest.parity.original))


def _origin(manifest: Manifest) -> list[str]:
    origin, created = manifest.provenance.imported_from, manifest.provenance.created
    return [
        f"Sizes: {_sizes(manifest)}.",
        f"Imported on {created} from {describe_origin(origin)}, of these files:",
        *_bullets(f"{file.path}, SHA-256 {file.sha256}" for file in origin.files),
    ]


def _sizes(manifest: Manifest) -> str:
    sizes = kind_of_bundle(manifest).sizes(manifest)
    return ", ".join(f"{name} {value:,}" for name, value in sizes.items())


def _section(title: str, paragraphs: list[str]) -> str:
    content = "\n\n".join(filter(None, paragraphs))
    return f"## {title}\n\n{content}" if content else ""


def _bullets(items: Iterable[str]) -> list[str]:
    return ["\n".join(f"- {item}" for item in items)]


def _training(manifest: Manifest) -> list[str]:
    provenance = manifest.provenance
    minutes = provenance.training_seconds / 60
    return [
        f"Sizes: {_sizes(manifest)}.",
        provenance.recipe,
        f"Trained for {minutes:.0f} minutes on {provenance.hardware or 'unknown hardware'} with "
        f"seed {provenance.seed} by attendant-export {provenance.trainer_version}; exported on "
        f"{provenance.created}.",
    ]


def _quality_table(manifest: Manifest) -> list[str]:
    rows = [
        f"| {q.metric} | {q.dataset} | {q.precision} | {q.search or '-'} | {q.value:.4g} |"
        for q in manifest.quality
    ]
    header = "| metric | data | precision | search | value |\n|---|---|---|---|---:|"
    return ["\n".join([header, *rows])] if rows else []


def _examples_table(examples: Sequence[tuple[str, str]], title: str) -> list[str]:
    if not examples:
        return []
    rows = [
        "| " + " | ".join(text.replace("|", "\\|") for text in example) + " |"
        for example in examples
    ]
    return [
        "Outputs of the trained model in fp32, chosen to show strengths and weaknesses.",
        "\n".join([f"| text | {title} |", "|---|---|", *rows]),
    ]


def _parity_table(manifest: Manifest) -> list[str]:
    lines = ["| precision | largest difference of log-probabilities | bound between batches |"]
    lines.append("|---|---:|---:|")
    rows = [
        f"| {parity.precision} | {parity.max_log_probability_difference:.2g} "
        f"| {parity.log_probability_bound:.2g} |"
        for parity in manifest.parity.precisions
        if parity.HasField("log_probability_bound")
    ]
    table = ["\n".join([*lines, *rows])] if rows else []
    return [*table, *filter(None, map(_parity_sentence, manifest.parity.precisions))]


def _parity_sentence(parity: PrecisionParity) -> str:
    sentences = []
    if parity.tokens:
        num_identical = sum(entry.num_identical for entry in parity.tokens)
        num_ties = sum(entry.num_ties for entry in parity.tokens)
        total = sum(entry.num_sentences for entry in parity.tokens)
        sentences.append(
            f"{parity.precision}: {num_identical:,} of {total:,} searches, greedy and beam, "
            "single, batched, ragged and uncached, gave the tokens of the trained model; "
            f"{num_ties} more differ in ties."
        )
    sentences += (
        f"On {corpus.dataset} ({corpus.search}) it{how} reaches {corpus.bleu:.2f} BLEU where fp32 "
        f"reaches {corpus.fp32_bleu:.2f}, and {corpus.same_text_share:.1%} of the "
        f"{corpus.num_sentences:,} texts are the same."
        for how, corpus in compared_corpora(parity)
    )
    if parity.HasField("embeddings"):
        vectors = parity.embeddings
        sentences.append(
            f"{parity.precision}: the cosine to the trained model's vectors is "
            f"{vectors.mean_cosine:.4f} on average and {vectors.min_cosine:.4f} at least, over "
            f"{vectors.num_texts} texts."
        )
    return " ".join(sentences)
