"""Tiny but real bundles: briefly trained models that the exporter exports and verifies."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from attendant.v1.architecture_pb2 import Architecture
from attendant_export.bundle.data_card import DataCard
from attendant_export.bundle.export import ExportOptions, export_bundle
from attendant_export.data.tokenizer import (
    BERT_CLS,
    BERT_MASK,
    BERT_PAD,
    BERT_SEP,
    special_token_id,
    train_bert_tokenizer,
)
from attendant_export.data.translation_data import PairSource, TranslationData
from attendant_export.models.convolutional_shapes import BYTENET, SLICENET, add_experts
from attendant_export.models.shapes import bert, transformer
from attendant_export.models.special_tokens import EncoderTokens
from attendant_export.runs import checkpoint
from attendant_export.runs.config import BERT, RunConfig, write_config
from attendant_export.runs.models import new_model
from attendant_export.runs.records import DataSource
from attendant_export.train.schedule import TrainingOptions
from attendant_export.train.translation import train_translation

from tests.support.graphs import with_convolutions, with_recurrences, with_ssru

PRECISIONS = ("fp32", "int8", "fp16")
MAX_TOKENS = 64

NOUNS = {"dog": "Hund", "man": "Mann", "teacher": "Lehrer", "baker": "Bäcker", "king": "König"}
VERBS = {"sees": "sieht", "finds": "findet", "calls": "ruft", "greets": "grüßt"}
ADJECTIVES = {"": "", "old ": "alte ", "little ": "kleine ", "good ": "gute "}

TINY_TRANSFORMER = transformer(
    vocab_size=200,
    d_model=32,
    num_heads=2,
    d_feed_forward=64,
    num_encoder_layers=2,
    num_decoder_layers=2,
)
TINY_SSRU = with_ssru(TINY_TRANSFORMER)
TINY_MIXED = with_ssru(TINY_TRANSFORMER, num_attention_layers=1)
TINY_LSTM = with_recurrences(TINY_TRANSFORMER, "lstm", "additive", num_encoder_layers=1)
TINY_GRU = with_recurrences(TINY_TRANSFORMER, "gru", num_encoder_layers=1)
TINY_BYTENET = with_convolutions(TINY_TRANSFORMER, BYTENET, num_encoder_layers=1)
TINY_SLICENET = with_convolutions(TINY_TRANSFORMER, SLICENET, num_encoder_layers=1)
add_experts(TINY_SLICENET, 3, 2, 32)


def sentence_pairs() -> list[tuple[str, str]]:
    """English and German sentences of about six words, in random but reproducible order."""
    pairs = []
    for (subject, adjective), verb, thing in itertools.product(
        itertools.product(NOUNS, ADJECTIVES), VERBS, NOUNS
    ):
        if subject != thing:
            english = f"The {adjective}{subject} {verb} the {thing}."
            german = (
                f"Der {ADJECTIVES[adjective]}{NOUNS[subject]} {VERBS[verb]} den {NOUNS[thing]}."
            )
            pairs.append((english, german))
    return [pairs[i] for i in np.random.default_rng(0).permutation(len(pairs))]


def write_pairs(folder: Path) -> Path:
    """Write ``train.tsv``, ``valid.tsv`` and ``test.tsv`` and return ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs = sentence_pairs()
    for name, part in {"train": pairs[:-32], "valid": pairs[-32:-16], "test": pairs[-16:]}.items():
        lines = "".join(f"{english}\t{german}\n" for english, german in part)
        (folder / f"{name}.tsv").write_text(lines, encoding="utf-8")
    return folder


def data_card(*languages: str) -> DataCard:
    """A data card for models of the sentences above."""
    return DataCard(
        description="A tiny model for tests.",
        license="CC0-1.0",
        languages=list(languages),
        data=[DataSource("test sentences", "CC0-1.0", "Sentences of this project's tests.")],
        intended_use="Tests only.",
        weaknesses=["Knows 13 words."],
        examples=["The dog | [MASK]"],
    )


def train_tiny_translation(
    run_dir: Path,
    data: Path,
    max_steps: int = 100,
    architecture: Architecture = TINY_TRANSFORMER,
    learning_rate: float = 5e-3,
) -> Path:
    """Train a tiny model on ``train.tsv`` of ``data`` for a few seconds; returns ``run_dir``."""
    options = TrainingOptions(
        max_steps=max_steps,
        learning_rate=learning_rate,
        warmup_steps=20,
        validate_every_steps=max_steps,
    )
    texts = TranslationData(
        (PairSource(data / "train.tsv"),), data / "valid.tsv", vocab_size=200, max_batch_tokens=1024
    )
    with one_thread():
        # The precision is fixed, since measuring the fastest one takes as long as many steps.
        train_translation(
            *(architecture, texts, options, run_dir), dropout=0.0, device="cpu", precision="fp32"
        )
    return run_dir


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread: with tensors this small, more are slower, above all on a busy machine."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def write_tiny_bert(run_dir: Path) -> Path:
    """Write a run folder of a tiny BERT with random weights; returns ``run_dir``."""
    texts = [text for pair in sentence_pairs() for text in pair]
    tokenizer = train_bert_tokenizer(texts, 200)
    architecture = bert(
        vocab_size=tokenizer.get_vocab_size(),
        d_model=32,
        num_heads=2,
        d_feed_forward=64,
        num_layers=2,
        max_positions=MAX_TOKENS,
    )
    tokens = EncoderTokens(
        pad_id=special_token_id(tokenizer, BERT_PAD),
        cls_id=special_token_id(tokenizer, BERT_CLS),
        sep_id=special_token_id(tokenizer, BERT_SEP),
        mask_id=special_token_id(tokenizer, BERT_MASK),
    )
    config = RunConfig(BERT, architecture, tokens, dropout=0.1)
    torch.manual_seed(7)
    model = new_model(config).eval()
    (run_dir / "best").mkdir(parents=True)
    tokenizer.save(str(run_dir / "tokenizer.json"))
    write_config(run_dir, config)
    checkpoint.save_weights(run_dir / "best" / checkpoint.WEIGHTS, model)
    return run_dir


def make_translation_bundle(
    folder: Path,
    name: str = "tiny-en-de",
    version: str = "1",
    precisions: tuple[str, ...] = PRECISIONS,
    architecture: Architecture = TINY_TRANSFORMER,
    learning_rate: float = 5e-3,
    num_compared: int = 16,
) -> Path:
    """Train and export a translation bundle; returns its folder ``folder/<name>/<version>``.

    The export compares the translations of ``num_compared`` sentences. The model translates the
    sentences of `sentence_pairs` fairly well. A server can be started on ``folder``, which is then
    a folder of bundles.
    """
    work = folder / f".{name}-{version}"
    data = write_pairs(work / "data")
    run_dir = train_tiny_translation(
        work / "run", data, architecture=architecture, learning_rate=learning_rate
    )
    lines = (data / "valid.tsv").read_text(encoding="utf-8").splitlines(keepends=True)
    compared = data / "compared.tsv"
    compared.write_text("".join(lines[:num_compared]), encoding="utf-8")
    options = ExportOptions(
        name=name,
        version=version,
        data_card=data_card("en", "de"),
        valid_pairs=compared,
        precisions=precisions,
        max_tokens=MAX_TOKENS,
        shortlist_pairs=data / "train.tsv",
    )
    with one_thread():
        return export_bundle(run_dir, folder, options)


def make_embedding_bundle(
    folder: Path,
    name: str = "tiny-bert",
    version: str = "1",
    precisions: tuple[str, ...] = PRECISIONS,
) -> Path:
    """Export a bundle with random weights; returns its folder ``folder/<name>/<version>``."""
    work = folder / f".{name}-{version}"
    data = write_pairs(work / "data")
    options = ExportOptions(
        name=name,
        version=version,
        data_card=data_card("en", "de"),
        valid_pairs=data / "valid.tsv",
        precisions=precisions,
        max_tokens=MAX_TOKENS,
    )
    with one_thread():
        return export_bundle(write_tiny_bert(work / "run"), folder, options)
