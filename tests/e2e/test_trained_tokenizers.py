"""A model with trained byte fallback and separate vocabularies behind a real server."""

import dataclasses
import itertools

import pytest
from attendant_client import Client
from attendant_export.bundle.export import ExportOptions, export_bundle
from attendant_export.bundle.manifest import read_manifest
from attendant_export.data.tokenizer import UNIGRAM_BYTES
from attendant_export.data.translation_data import PairSource, TranslationData
from attendant_export.models.shapes import transformer
from attendant_export.train.schedule import TrainingOptions
from attendant_export.train.translation import train_translation
from tokenizers import Tokenizer

from tests.support.bundles import NOUNS, data_card, one_thread, write_pairs
from tests.support.serving import running_server

pytestmark = pytest.mark.usefixtures("quiet_threads")

EMOJI = {"glad": "\U0001f600", "at space": "\U0001f469\u200d\U0001f680", "hot": "\u2600\ufe0f"}
"""None of these is in the text that the tokenizers are trained on."""


def write_emoji_pairs(path):
    """Pairs whose targets have an emoji for a word of the source, or the source's own emoji."""
    lines = []
    for (english, german), (word, sign) in itertools.product(NOUNS.items(), EMOJI.items()):
        lines.append(f"The {english} is {word}.\tDer {german}. {sign}\n")
        lines.append(f"The {english} {sign}\tDer {german} {sign}\n")
    path.write_text("".join(lines), encoding="utf-8")
    path.with_name("few.tsv").write_text("".join(lines[:4]), encoding="utf-8")


def train(folder):
    """A run that learned emoji byte by byte, from vocabularies that have none of them."""
    write_pairs(folder)
    write_emoji_pairs(folder / "emoji.tsv")
    plain = TranslationData(
        (PairSource(folder / "train.tsv"),),
        folder / "valid.tsv",
        vocab_size=360,
        tokenizer_kind=UNIGRAM_BYTES,
        separate_vocabularies=True,
        max_batch_tokens=1024,
        num_valid_sources=4,
    )
    architecture = transformer(plain.vocab_size, 32, 2, 64, 1, 1, shares_embeddings=False)
    first, run_dir = folder / "first", folder / "run"
    options = TrainingOptions(
        max_steps=150, learning_rate=1e-2, warmup_steps=20, validate_every_steps=150
    )
    one_step = dataclasses.replace(options, max_steps=1)
    train_translation(architecture, plain, one_step, first, dropout=0.0, device="cpu")
    emoji = dataclasses.replace(
        plain, train=(PairSource(folder / "emoji.tsv"),), valid=folder / "emoji.tsv"
    )
    train_translation(
        architecture, emoji, options, run_dir, dropout=0.0, device="cpu", init_from=first
    )
    return run_dir


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    with one_thread():
        run_dir = train(folder)
        options = ExportOptions(
            name="emoji",
            version="1",
            data_card=data_card("en", "de"),
            valid_pairs=folder / "few.tsv",
            precisions=("fp32",),
            max_tokens=64,
        )
        return export_bundle(run_dir, folder / "bundles", options)


@pytest.fixture(scope="module")
def client(bundle, loop, settings):
    with (
        running_server(loop, settings(bundles=bundle.parent.parent)) as running,
        Client(f"127.0.0.1:{running.server.port}") as client,
    ):
        yield client


TEXTS = {
    "The dog is glad.": "Der Hund. \U0001f600",
    "The baker is at space.": "Der B\u00e4cker. \U0001f469\u200d\U0001f680",
    "The king \u2600\ufe0f": "Der K\u00f6nig \u2600\ufe0f",
}


@pytest.mark.parametrize("beam_size", [1, 3])
def test_emoji_are_written_byte_by_byte(client, beam_size):
    found = client.translate(list(TEXTS), beam_size=beam_size, return_tokens=True)
    assert [each.text for each in found] == list(TEXTS.values())
    tokens = [token.text for token in found[0].hypotheses[0].tokens]
    assert tokens[-5:-1] == ["<0xF0>", "<0x9F>", "<0x98>", "<0x80>"]


@pytest.mark.usefixtures("every_prefix")
def test_streams_send_whole_characters_only(client):
    for text, expected in TEXTS.items():
        pieces = list(client.stream_translate(text))
        assert "".join(pieces) == expected
        assert "\ufffd" not in "".join(pieces[:-1])


def test_a_character_that_the_vocabulary_lacks_is_read_by_its_bytes(client):
    [tokenized] = client.tokenize(["The \u65e5"])
    assert "<0xE6> <0x97> <0xA5>" in " ".join(token.text for token in tokenized.tokens)


def test_the_bundle_has_a_tokenizer_for_each_vocabulary(bundle):
    manifest = read_manifest(bundle)
    assert not manifest.architecture.shares_embeddings
    sides = manifest.source_tokenizer, manifest.target_tokenizer
    known = [Tokenizer.from_file(str(bundle / name)).get_vocab() for name in sides]
    assert known[0] != known[1]
    network = manifest.architecture
    sizes = [network.source_embeddings.vocab_size, network.target_embeddings.vocab_size]
    assert sizes == list(map(len, known))
