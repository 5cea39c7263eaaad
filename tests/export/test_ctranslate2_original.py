"""Imported CTranslate2 folders give the tokens of ``ctranslate2``, if it is installed."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attendant_export.__main__ import main
from attendant_export.bundle.manifest import read_manifest

from tests.conftest import imports_compare_one_of
from tests.support.ctranslate2_folders import (
    LAYERS,
    SIZES,
    early_names,
    random_weights,
    write_folder,
)
from tests.support.drawn_seeds import seeds

pytest.importorskip("ctranslate2")

pytestmark = pytest.mark.usefixtures("quiet_threads")


@pytest.fixture(scope="module", autouse=True)
def enough_texts():
    """Half of the sample texts, because only the short ones are compared."""
    with imports_compare_one_of(2):
        yield


ARGUMENTS = ("--license", "cc0-1.0", "--source-languages", "en", "--target-languages", "de")
QUANTIZATIONS = (
    "float32",
    "float16",
    "bfloat16",
    "int16",
    "int8",
    "int8_float16",
    "int8_bfloat16",
)
SHARED = ("<s>", "</s>", "<unk>", *"abcdefghijklmnopqrstuvwxyz")


def compared(source: Path, bundles: Path):
    """The comparison of the imported bundle."""
    options = ("--tokenizer", "characters", "--max-tokens", "26", "--name", "x", *ARGUMENTS)
    main(["import", str(source), "--bundles-dir", str(bundles), *options])
    return read_manifest(bundles / "x" / "1").parity.original


def check(parity):
    """All translations are equal, or differ in a few ties and by longer searches."""
    assert (parity.implementation, parity.num_texts >= 4) == ("ctranslate2", True)
    (fp32,) = parity.translations
    assert fp32.max_log_probability_difference < 1e-4
    assert {(entry.search, entry.batching) for entry in fp32.tokens} == {
        (search, batching)
        for search in ("greedy", "beam4")
        for batching in ("single", "batched", "ragged")
    }
    for entry in fp32.tokens:
        explained = entry.num_identical + entry.num_ties + entry.num_longer_searches
        assert explained == entry.num_sentences
        assert entry.num_ties < entry.num_sentences / 4


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_a_quantized_folder_gives_the_same_translations(quantization, tmp_path):
    source = write_folder(tmp_path / "source", quantization=quantization)
    check(compared(source, tmp_path / "bundles"))


@pytest.mark.parametrize("version", [1, 2, 3, 4, 5])
def test_an_early_version_gives_the_same_translations(version, tmp_path):
    weights = random_weights()
    if version == 1:
        weights = early_names(weights)
    source = write_folder(tmp_path / "source", version, "int16" if version < 4 else "int8", weights)
    check(compared(source, tmp_path / "bundles"))


def drawn_folder(folder: Path, draw: random.Random) -> Path:
    """A folder with options that are drawn."""
    width, heads = draw.choice(((16, 4), (32, 4), (24, 2)))
    is_pre_norm = draw.random() < 0.5
    norms = [f"{stack}/layer_norm" for stack in LAYERS if is_pre_norm or draw.random() < 0.5]
    norms += [f"{stack}/layernorm_embedding" for stack in LAYERS if draw.random() < 0.5]
    shared = SHARED if draw.random() < 0.5 else ()
    sizes = (len(SHARED),) * 2 if shared else SIZES
    weights = random_weights(draw.randrange(1000), sizes, width, norms)
    options: dict[str, Any] = {"decoder/start_from_zero_embedding": np.int8(draw.random() < 0.4)}
    if draw.random() < 0.3:
        options["decoder/scale_outputs"] = np.float32(0.8)
    for stack, num_layers in LAYERS.items():
        options[f"{stack}/num_heads"] = np.int16(heads)
        options[f"{stack}/pre_norm"] = np.int8(is_pre_norm)
        options[f"{stack}/activation"] = np.int8(draw.randrange(4))
        options[f"{stack}/scale_embeddings"] = draw.choice((np.int8(1), np.int8(0), np.float32(2)))
        if draw.random() < 0.5:
            positions = np.random.default_rng(1).normal(size=(120, width)).astype(np.float32)
            weights[f"{stack}/position_encodings/encodings"] = positions
        for number in range(num_layers):
            if draw.random() < 0.3:
                scale = np.float32(draw.choice((0.3, 1)))
                options[f"{stack}/layer_{number}/self_attention/queries_scale"] = scale
    aliases = {}
    if draw.random() < 0.5:
        del weights["decoder/projection/weight"]
        aliases["decoder/projection/weight"] = "decoder/embeddings/weight"
    if draw.random() < 0.3:
        del weights["decoder/projection/bias"]
    if shared and draw.random() < 0.5:
        del weights["encoder/embeddings_0/weight"]
        aliases["encoder/embeddings_0/weight"] = "decoder/embeddings/weight"
    return write_folder(
        folder,
        quantization=draw.choice(QUANTIZATIONS),
        tensors=weights,
        aliases=aliases,
        options=options,
        shared=shared,
        add_source_bos=draw.random() < 0.5,
        add_source_eos=draw.random() < 0.5,
        layer_norm_epsilon=draw.choice((None, 1e-3)),
    )


@pytest.mark.parametrize("seed", seeds())
def test_a_drawn_folder_gives_the_same_translations(seed, tmp_path):
    source = drawn_folder(tmp_path / "source", random.Random(seed))
    check(compared(source, tmp_path / "bundles"))


def test_verify_repeats_the_comparison_and_refuses_another_model(tmp_path, capsys):
    source = write_folder(tmp_path / "source")
    compared(source, tmp_path / "bundles")
    bundle = str(tmp_path / "bundles" / "x" / "1")
    main(["verify", bundle, "--against", str(source)])
    assert "fp32 beam4 ragged: 0 of " in capsys.readouterr().out
    other = write_folder(tmp_path / "other", tensors=random_weights(seed=2))
    with pytest.raises(SystemExit, match="1"):
        main(["verify", bundle, "--against", str(other)])
    assert "fp32 does not follow ctranslate2" in capsys.readouterr().err
    smaller = write_folder(
        tmp_path / "smaller", tensors=random_weights(sizes=(len(SHARED),) * 2), shared=SHARED
    )
    with pytest.raises(SystemExit, match="1"):
        main(["verify", bundle, "--against", str(smaller)])
    assert "a vocabulary has 30 tokens, but that of the bundle has 20" in capsys.readouterr().err
