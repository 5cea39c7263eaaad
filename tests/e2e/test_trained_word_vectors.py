"""Word vectors that the command trains: a run, a bundle, and a real server."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from attendant.v1.embedding_pb2 import EmbedRequest
from attendant_export.__main__ import main
from attendant_export.bundle.manifest import read_manifest
from attendant_export.models.word_vectors import WordVectors
from attendant_export.runs.history import History
from attendant_export.runs.models import load_model

from tests.support.bundles import data_card, one_thread
from tests.support.serving import running_server

GROUPS = {
    "eats": ["cat", "dog", "horse", "mouse"],
    "drives": ["car", "bus", "truck", "taxi"],
    "grows": ["tree", "rose", "grass", "wheat"],
}
ENDS = {"eats": ["bread", "fish"], "drives": ["fast", "home"], "grows": ["green", "tall"]}
OBJECTIVES = {"skip-gram": ["--negatives=5", "--subsampling=0"], "glove": []}


def sentences(num, seed):
    """Sentences in which words of a group have the same neighbours."""
    rng = np.random.default_rng(seed)
    found = []
    for verb in rng.choice([*GROUPS], num):
        found.append(f"The {rng.choice(GROUPS[verb])} {verb} {rng.choice(ENDS[verb])}.")
    return "".join(f"{each}\n" for each in found)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("word-vectors")
    (root / "train.txt").write_text(sentences(1500, 1))
    (root / "valid.txt").write_text(sentences(100, 2) + "Zebras\n")
    card = asdict(data_card("en")) | {"examples": ["cat", "car"]}
    (root / "card.json").write_text(json.dumps(card))
    with one_thread():
        for objective in OBJECTIVES:
            train(root, objective, "--max-steps=100")
            main(
                ["export", f"--run-dir={root / 'runs' / objective}", "--precisions=fp32,int8"]
                + [f"--data-card={root / 'card.json'}", f"--data-dir={root}"]
                + [f"--bundles-dir={root / 'bundles'}"]
            )
    return root


def train(root, objective, *options, run=None):
    main(
        ["train-word-vectors", f"--data-dir={root}", "--train=train.txt", "--valid=valid.txt"]
        + [f"--run-dir={root / 'runs' / (run or objective)}", f"--objective={objective}"]
        + ["--dimensions=16", "--window=3", "--max-pairs=256", "--device=cpu"]
        + ["--learning-rate=0.1", "--warmup-steps=10", "--validate-every-steps=50"]
        + ["--sif-coefficient=0.01", *OBJECTIVES[objective], *options]
    )


@pytest.fixture(scope="module")
def server(root, loop, settings):
    with running_server(loop, settings(bundles=root / "bundles", precision="fp32")) as running:
        yield running


def embed(server, model, texts, normalize=True):
    request = EmbedRequest(model=model, texts=texts, normalize=normalize)
    response = server.embedding.Embed(request)
    return np.frombuffer(response.embeddings.data, "<f4").reshape(len(texts), -1)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_nearest_words_are_those_with_the_same_neighbours(server, objective):
    words = [word for group in GROUPS.values() for word in group]
    vectors = embed(server, objective, words)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1)
    for place, row in enumerate(cosines):
        group = place // 4
        assert set(np.argsort(-row)[:3] // 4) == {group}, words[place]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_vector_of_a_text_is_the_weighted_mean_of_its_known_words(server, root, objective):
    model, tokenizer = load_model(root / "runs" / objective)
    assert isinstance(model, WordVectors)
    ids = tokenizer.encode("The cat eats zebras!").ids
    assert ids[3:] == [0, 0]  # Sentences end with a full stop.
    vectors = model.vectors()[ids[:3]].detach().numpy()
    weights = model.text_weights[ids[:3]].numpy()
    counts = {"the": 1500, ".": 1500}
    assert weights[0] == weights.min()
    total = 5 * 1500 + tokenizer.get_vocab_size()
    share = (counts["the"] + 1) / total
    assert weights[0] == pytest.approx(0.01 / (0.01 + share), rel=1e-5)
    [found] = embed(server, objective, ["The cat eats zebras!"], normalize=False)
    np.testing.assert_allclose(found, (vectors * weights[:, None]).mean(axis=0), atol=1e-5)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_training_raises_the_validated_figure(root, objective):
    rows = History(root / "runs" / objective).rows
    name = {"skip-gram": "log_likelihood", "glove": "correlation"}[objective]
    assert rows[-1][name] > rows[0][name]


def test_bundles_tell_how_they_were_made(root):
    for objective, phrase in (("skip-gram", "5 negatives"), ("glove", "Pennington")):
        folder = root / "bundles" / objective / "1"
        manifest = read_manifest(folder)
        assert phrase in manifest.provenance.recipe
        assert "| text | nearest words |" in (folder / "MODEL_CARD.md").read_text()
        main(["verify", str(folder)])


def test_a_run_resumes_and_keeps_its_words_and_options(root, capsys):
    with one_thread():
        train(root, "skip-gram", "--max-steps=20", run="resumed")
        train(root, "skip-gram", "--max-steps=60", run="resumed")
        assert History(root / "runs" / "resumed").rows[-1]["step"] == 60
        for options, message in (
            (["--window=4"], "options of words and pairs"),
            (["--dimensions=8"], "d_model 16, not 8"),
        ):
            with pytest.raises(SystemExit):
                train(root, "skip-gram", *options, run="resumed")
            assert message in capsys.readouterr().err
        with pytest.raises(SystemExit):
            train(root, "glove", run="resumed")
        assert "kind skip-gram, not glove" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("objective", "options", "message"),
    [
        ("glove", ["--negatives=3"], "--negatives: is for --objective skip-gram"),
        ("glove", ["--subsampling=0.1"], "--subsampling: is for --objective skip-gram"),
        ("skip-gram", ["--equal-weights"], "--sif-coefficient: is not for --equal-weights"),
        ("skip-gram", ["--min-count=99999"], "no word occurs 99999 times"),
        ("skip-gram", ["--valid=lonely.txt"], "no two known words are near each other"),
        ("glove", ["--valid=lonely.txt"], "no two known words are near each other"),
        ("skip-gram", ["--valid=empty.txt"], "there is no text"),
    ],
)
def test_options_and_texts_that_do_not_fit_are_refused(root, objective, options, message, capsys):
    (root / "lonely.txt").write_text("cat\n\ndog\n")
    (root / "empty.txt").write_text("\n")
    with pytest.raises(SystemExit), one_thread():
        train(root, objective, "--max-steps=1", *options, run=f"refused-{objective}")
    assert message in capsys.readouterr().err
