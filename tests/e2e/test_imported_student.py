"""Imported Marian models behind a real server translate as the plain reading of their file."""

import numpy as np
import pytest
from attendant.v1.model_pb2 import TokenizeRequest
from attendant.v1.translation_pb2 import TranslateOptions, TranslateRequest
from attendant_export.bundle.importing import ImportOptions, import_bundle
from attendant_export.importers.marian_file import read_marian_file
from attendant_export.importers.marian_shortlist import LexicalShortlist
from attendant_export.verify.language_samples import Sample
from attendant_export.verify.marian_original import MarianOriginal

from tests.support.bundles import one_thread
from tests.support.firefox_files import serving_files
from tests.support.marian_files import vocabulary, write_marian_folder
from tests.support.serving import running_server

pytestmark = pytest.mark.usefixtures("very_few_texts", "quiet_threads")

TEXTS = ["The train is late.", "She is here", "No.", "\U0001f633 a e i o u", "on the train"]
MAX_TOKENS = 12
MODEL, SHORTLIST = "model.enfr.intgemm.alphas.bin", "lex.50.50.enfr.s2t.bin"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_marian_folder(tmp_path_factory.mktemp("folder") / "student")


@pytest.fixture(scope="module")
def imported(folder, tmp_path_factory):
    """The bundle of the folder, from a registry of Firefox that has it."""
    bundles = tmp_path_factory.mktemp("imported")
    with one_thread(), serving_files() as files, pytest.MonkeyPatch.context() as patched:
        files.add_model(folder)
        patched.setenv("ATTENDANT_FIREFOX_REGISTRY", files.registry_url)
        patched.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        import_bundle("firefox:en-fr", bundles, ImportOptions(max_tokens=40))
    return bundles


@pytest.fixture(scope="module", params=["never", "auto"])
def shortlists(request):
    return request.param


@pytest.fixture(scope="module")
def server(imported, shortlists, loop, settings):
    with running_server(loop, settings(bundles=imported, shortlists=shortlists)) as running:
        yield running


def reading_of(folder, allowed=None):
    """The reading of the folder, which may generate the ``allowed`` tokens, but never <unk>."""
    file = read_marian_file(folder / MODEL)
    never = {1}
    if allowed is not None:
        never |= set(range(len(vocabulary("source")))) - allowed
    return MarianOriginal(
        {name: file.array(name) for name in file.shapes},
        file.config,
        folder / "vocab.enfr.spm",
        eos_id=0,
        suppressed_token_ids=sorted(never),
    )


def source_ids(server, text):
    (result,) = server.models.Tokenize(TokenizeRequest(texts=[text])).results
    return [token.id for token in result.tokens]


def marians_list(folder, source):
    """Marian's shortlist of a batch of one text."""
    shortlist = LexicalShortlist(folder / SHORTLIST)
    listed = [shortlist.tokens_of(token).tolist() for token in source]
    return set(range(50)).union(source, *listed)


@pytest.mark.parametrize("beam_size", [1, 4])
def test_translations_are_those_of_the_reading(server, folder, shortlists, beam_size):
    if (shortlists, beam_size) == ("auto", 4):
        pytest.skip("the reading normalizes probabilities over all tokens")
    options = TranslateOptions(
        return_tokens=True, max_output_tokens=MAX_TOKENS, beam_size=beam_size
    )
    request = TranslateRequest(texts=TEXTS, options=options)
    found = server.translation.Translate(request).translations
    for text, translation in zip(TEXTS, found, strict=True):
        ids = source_ids(server, text)
        allowed = marians_list(folder, ids) if shortlists == "auto" else None
        sample = Sample(text, tuple(ids))
        expected = reading_of(folder, allowed).translate([sample], beam_size, MAX_TOKENS)[0]
        tokens = tuple(token.id for token in translation.hypotheses[0].tokens)
        assert tokens == expected
        assert 1 not in tokens


def test_the_tokens_of_a_text_are_those_of_its_vocabulary(server):
    ids = source_ids(server, "The </s> \u4e00")
    pieces = vocabulary("source")
    assert ids[-1] == 0
    assert 0 not in ids[:-1]
    assert pieces[ids[0]].startswith("\u2581")
    assert 1 in ids  # the Chinese character is unknown
    assert np.max(ids) < len(pieces)
