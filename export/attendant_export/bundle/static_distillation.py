"""Distils a bundle of static embeddings from a bundle of an embedding model.

The method follows Model2Vec (Tulkens and van Dongen, 2024), see decision 0096.
"""

import re
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import torch
from attendant.v1.bundle_pb2 import Manifest, Provenance
from attendant_manifest import MANIFEST_VERSION
from numpy.typing import NDArray
from tokenizers import Tokenizer

from attendant_export import __version__
from attendant_export.bundle.data_card import DataCard, data_of, training_data
from attendant_export.bundle.description import describe_origin
from attendant_export.bundle.draft import Draft
from attendant_export.bundle.embedding import EmbeddingExport
from attendant_export.bundle.export import check_options, new_bundle, write_model
from attendant_export.bundle.importing import sample_texts
from attendant_export.bundle.token_teacher import TokenTeacher
from attendant_export.data.corpus import Corpus
from attendant_export.data.static_vectors import (
    count_tokens,
    counted_frequencies,
    principal_components,
    sif_weights,
    zipf_frequencies,
)
from attendant_export.data.tokenizer import load_tokenizer, unknown_token_id
from attendant_export.models.static_embedding import static_encoder
from attendant_export.runs.records import DataSource

DIMENSIONS = 256
"""Default of the dimension, if the teacher's is not less."""
MAX_TOKENS = 512
"""Default limit of tokens of a text, as of Model2Vec."""
COUNTED_COEFFICIENT, ZIPF_COEFFICIENT = 1e-3, 1e-4
"""Defaults of the coefficient of weights, for counted frequencies and for those of Zipf's law."""
UNUSED = re.compile(r"\[unused\d+\]")
"""Tokens of BERT's vocabularies that no text has."""


@dataclass(frozen=True, slots=True)
class StaticOptions:
    """Name, sizes and data of a bundle of static embeddings."""

    name: str
    version: str = "1"
    precisions: tuple[str, ...] = ("int8", "fp16")
    dimensions: int | None = None
    """Dimension of the vectors. None: `DIMENSIONS`, or the teacher's if that is less."""
    texts: tuple[Path, ...] = ()
    """Files and folders of text in which tokens are counted. Empty: frequencies of Zipf's law."""
    coefficient: float | None = None
    """The frequency of a token with half the weight of a very rare one. None: the default."""
    test_pairs: tuple[Path, ...] = ()
    """Pairs for the quality figures."""
    max_tokens: int = MAX_TOKENS
    """Limit of tokens of a text."""
    hardware: str = ""
    """Hardware of the distillation."""

    def __post_init__(self) -> None:
        check_options(self.name, self.version, self.precisions, self.max_tokens)


def distill_static(teacher_dir: Path, bundles_dir: Path, options: StaticOptions) -> Path:
    """Write static embeddings of the bundle ``teacher_dir`` to ``bundles_dir/<name>/<version>``.

    Returns that folder. Raises ValueError for a bad option, for vectors that are all 0, and as
    `TokenTeacher` and `count_tokens`, BundleError if the bundle exists or the teacher is damaged,
    and ParityError if the graphs differ from the model. A failure leaves no files.
    """
    begun = time.monotonic()
    teacher = TokenTeacher(teacher_dir)
    if options.dimensions is not None and options.dimensions > teacher.dimension:
        raise ValueError(
            f"--dimensions {options.dimensions}: the vectors of {teacher.name} have "
            f"{teacher.dimension} values"
        )
    tokenizer = _tokenizer(teacher_dir / teacher.manifest.source_tokenizer)
    with new_bundle(bundles_dir, options.name, options.version) as (folder, scratch):
        card = _card(teacher)
        draft = Draft(
            folder=folder,
            scratch=scratch,
            manifest=_manifest(teacher, card, options),
            precisions=options.precisions,
            texts=sample_texts(),
            tests=[Corpus(path, swap=False) for path in options.test_pairs],
            max_tokens=options.max_tokens,
        )
        table = torch.from_numpy(_table(teacher, tokenizer, options))
        pad_id = teacher.manifest.special_tokens.pad_id
        model = static_encoder(table, pad_id, unknown_token_id(tokenizer))
        export = EmbeddingExport(model, tokenizer, draft)
        draft.manifest.provenance.training_seconds = time.monotonic() - begun
        write_model(export, draft, card)
    return bundles_dir / options.name / options.version


def _tokenizer(path: Path) -> Tokenizer:
    """The teacher's tokenizer, which adds no special tokens, pads nothing and truncates nothing."""
    tokenizer = load_tokenizer(path)
    if tokenizer.num_special_tokens_to_add(is_pair=False):
        tokenizer.post_processor = None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _table(
    teacher: TokenTeacher, tokenizer: Tokenizer, options: StaticOptions
) -> NDArray[np.float32]:
    """The vector of each token (vocab, dimensions); zeros for tokens that texts do not have.

    Raises ValueError if all are zeros.
    """
    vocab_size = teacher.manifest.architecture.source_embeddings.vocab_size
    token_ids = _tokens_of_texts(tokenizer)
    if options.texts:
        counts = count_tokens(options.texts, tokenizer, vocab_size)
        frequencies = counted_frequencies(counts[token_ids])
    else:
        frequencies = zipf_frequencies(len(token_ids))
    dimensions = _dimensions(teacher, options)
    vectors = principal_components(teacher.embed(token_ids), frequencies, dimensions)
    table = np.zeros((vocab_size, dimensions), np.float32)
    table[token_ids] = vectors * sif_weights(frequencies, _coefficient(options))[:, None]
    if not table.any():
        raise ValueError(
            "the vectors of all tokens are 0: the teacher gives all tokens the same vector, or "
            "--sif-coefficient is too small"
        )
    return table


def _tokens_of_texts(tokenizer: Tokenizer) -> list[int]:
    """Ascending ids of the tokens that stand for text: neither special, unknown nor unused."""
    added = tokenizer.get_added_tokens_decoder()
    left_out = {token_id for token_id, token in added.items() if token.special}
    unknown = unknown_token_id(tokenizer)
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    return sorted(
        token_id
        for token, token_id in vocabulary.items()
        if token_id not in left_out and token_id != unknown and not UNUSED.fullmatch(token)
    )


def _dimensions(teacher: TokenTeacher, options: StaticOptions) -> int:
    return options.dimensions or min(DIMENSIONS, teacher.dimension)


def _coefficient(options: StaticOptions) -> float:
    default = COUNTED_COEFFICIENT if options.texts else ZIPF_COEFFICIENT
    return default if options.coefficient is None else options.coefficient


def _card(teacher: TokenTeacher) -> DataCard:
    """The data card: the licence, languages and data of the teacher, and the teacher itself."""
    manifest, credit = teacher.manifest, f"The embedding model {teacher.name}"
    if manifest.provenance.HasField("imported_from"):
        credit += f", imported from {describe_origin(manifest.provenance.imported_from)}"
    vectors = DataSource(f"vectors of {teacher.name}", manifest.license, f"{credit}.")
    return DataCard(
        description=f"Static embeddings, distilled from {teacher.name}.",
        license=manifest.license,
        languages=list(manifest.languages),
        data=[*data_of(manifest), vectors],
        intended_use="Fast vectors of texts for search and comparison.",
        weaknesses=[
            "The vector of a text is a weighted mean of one vector for each token, so neither the "
            "order nor the context of words counts."
        ],
    )


def _manifest(teacher: TokenTeacher, card: DataCard, options: StaticOptions) -> Manifest:
    credits = [*teacher.manifest.credits, *(source.credit for source in card.data)]
    return Manifest(
        manifest_version=MANIFEST_VERSION,
        name=options.name,
        version=options.version,
        description=card.description,
        license=card.license,
        credits=list(dict.fromkeys(credits)),
        languages=card.languages,
        provenance=Provenance(
            data=training_data(card),
            trainer_version=__version__,
            recipe=_recipe(teacher, options),
            created=date.today().isoformat(),
            hardware=options.hardware,
        ),
        text_normalization=teacher.manifest.text_normalization,
    )


def _recipe(teacher: TokenTeacher, options: StaticOptions) -> str:
    frequencies = "those of Zipf's law for the order of the vocabulary"
    if options.texts:
        frequencies = f"counted in {', '.join(path.name for path in options.texts)}"
    return (
        "Static embeddings after the method of Model2Vec (Tulkens and van Dongen, 2024). The "
        f"vector of a token is that of the teacher {teacher.name}, licence "
        f"{teacher.manifest.license}, for the token alone ({teacher.precision}, {teacher.pooling} "
        f"pooling). It is reduced to the first {_dimensions(teacher, options)} of "
        f"{teacher.dimension} principal components, which are those of the tokens as they occur, "
        "and multiplied by the weight of smooth inverse frequency (Arora et al., 2017) with the "
        f"coefficient {_coefficient(options):g}. Frequencies are {frequencies}."
    )
