"""The models of the trial: two that are exported on its machine, and the built-in ones.

A Transformer base (6+6 layers, d 512, 32,000 tokens) with constructed weights that copy the source,
and a BERT base with random weights. The built-in bundles are measured too, where they are present.
"""

from pathlib import Path

from bench.gpu.made_texts import made_up_texts, vocabulary_texts
from bench.gpu.trial import FOLDER, Figures, Trial

TRANSLATION, EMBEDDING = "transformer-base", "bert-base"
BUILT_IN = Path("bundles")
BUILT_IN_TRANSLATION, BUILT_IN_EMBEDDING = BUILT_IN / "en-de/3", BUILT_IN / "bert-en-de/1"
NUM_VERIFIED_TEXTS = 2
"""Texts on which an export is verified. More would take minutes of the trial."""
PRECISION = "fp16"


def made_bundle(trial: Trial, name: str) -> Path:
    """The folder of an exported bundle; in a smoke test, that of the built-in bundle of its kind.

    Raises FileNotFoundError if it was not exported.
    """
    built_in = {TRANSLATION: BUILT_IN_TRANSLATION, EMBEDDING: BUILT_IN_EMBEDDING}[name]
    bundle = trial.pick(FOLDER / "bundles" / name / "1", built_in)
    if not (bundle / "manifest.json").exists():
        raise FileNotFoundError(f"{bundle} does not exist: run the stage bundles before this one")
    return bundle


def carried_bundles() -> list[Path]:
    """The built-in bundles whose weights for a GPU are present."""
    bundles = (BUILT_IN_TRANSLATION, BUILT_IN_EMBEDDING)
    return [bundle for bundle in bundles if (bundle / f"weights.{PRECISION}.bin").exists()]


def hugging_face_folder(trial: Trial) -> Path:
    """The folder of the exported encoder in the format of sentence-transformers."""
    return trial.pick(FOLDER, FOLDER / "smoke") / "hugging-face" / EMBEDDING


def run(trial: Trial) -> None:
    """Export both models, unless they are there from an earlier call."""
    if not trial.is_smoke:
        trial.part(TRANSLATION, export_translation)
    trial.part(EMBEDDING, export_embedding, trial)


def export_translation() -> Figures:
    """Export the Transformer base; returns where it lies."""
    from bench.models import copying_transformer, runs

    bundle, run_dir = FOLDER / "bundles" / TRANSLATION / "1", FOLDER / "runs" / TRANSLATION
    if not bundle.exists():
        size = copying_transformer.VOCAB_SIZES["copy-base"]
        tokenizer = copying_transformer.train_tokenizer(
            copying_transformer.TOKENIZER_OF, vocabulary_texts(), size
        )
        copying_transformer.write_copying_run(run_dir, tokenizer)
        texts = made_up_texts(NUM_VERIFIED_TEXTS, num_words=3)
        runs.export_run(run_dir, bundle, "fp32,fp16", ["en", "en"], texts)
    return {"bundle": str(bundle)}


def export_embedding(trial: Trial) -> Figures:
    """Export the BERT base, a much smaller one in a smoke test; returns where it lies."""
    from attendant_export.models.shapes import bert

    from bench.models import encoders, runs

    folder = trial.pick(FOLDER, FOLDER / "smoke")
    bundle, run_dir = folder / "bundles" / EMBEDDING / "1", folder / "runs" / EMBEDDING
    if not bundle.exists():
        vocabulary = trial.pick(vocabulary_texts(), made_up_texts(20))
        size = trial.pick(encoders.VOCAB_SIZE, 300)
        tokenizer = encoders.train_tokenizer(vocabulary, size)
        tiny = bert(tokenizer.get_vocab_size(), 16, 2, 32, 1)
        network = trial.pick(encoders.SIZES[EMBEDDING], tiny)
        weights = runs.random_weights(network)
        encoders.write_hugging_face(hugging_face_folder(trial), network, weights, tokenizer)
        runs.write_run(run_dir, network, weights, tokenizer)
        texts = made_up_texts(NUM_VERIFIED_TEXTS, num_words=3)
        runs.export_run(run_dir, bundle, "fp32,fp16", ["en"], texts)
    return {"bundle": str(bundle)}
