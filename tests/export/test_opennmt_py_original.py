"""Imported checkpoints of OpenNMT-py give the tokens of ``ctranslate2``, if it is installed."""

import random

import pytest
from attendant_export.__main__ import main

from tests.export.test_ctranslate2_original import check, compared
from tests.support.drawn_seeds import seeds
from tests.support.opennmt_py_files import SOURCE_TOKENS, SPECIAL, TARGET_TOKENS, write_checkpoint

pytest.importorskip("ctranslate2")

pytestmark = pytest.mark.usefixtures("quiet_threads")

SHARED = (*SPECIAL, *"abcdefghijklmnopqrstuvwxyz", "averyunlikelytoken0")


def drawn_checkpoint(folder, draw):
    """A checkpoint with options that are drawn."""
    width, heads = draw.choice(((16, 4), (32, 4), (24, 3)))
    is_shared = draw.random() < 0.5
    source, target = (SHARED, SHARED) if is_shared else (SOURCE_TOKENS, TARGET_TOKENS)
    shares = ["embeddings"] if is_shared and draw.random() < 0.6 else []
    shares += ["decoder_embeddings"] if draw.random() < 0.5 else []
    return write_checkpoint(
        folder,
        source,
        target,
        start=draw.choice((None, "<s>", "</s>")),
        seed=draw.randrange(1000),
        is_split=draw.random() < 0.3,
        shares=shares,
        has_biases=draw.random() < 0.7,
        hidden_size=width,
        heads=heads,
        enc_layers=draw.randint(1, 3),
        dec_layers=draw.randint(1, 2),
        transformer_ff=draw.choice((24, 40)),
        pos_ffn_activation_fn=draw.choice(("relu", "gelu")),
        position_encoding_type=draw.choice(("SinusoidalInterleaved", "SinusoidalConcat")),
        norm_eps=draw.choice((1e-6, 1e-5, 1e-3)),
        self_attn_type=draw.choice(("scaled-dot", "scaled-dot-flash")),
    )


@pytest.mark.parametrize("seed", seeds())
def test_a_drawn_checkpoint_gives_the_same_translations(seed, tmp_path):
    source = drawn_checkpoint(tmp_path / "source", random.Random(seed))
    check(compared(source, tmp_path / "bundles"))


def test_verify_repeats_the_comparison_and_refuses_another_model(tmp_path, capsys):
    source = write_checkpoint(tmp_path / "source")
    compared(source, tmp_path / "bundles")
    bundle = str(tmp_path / "bundles" / "x" / "1")
    main(["verify", bundle, "--against", str(source / "model.pt")])
    assert "fp32 beam4 ragged: 0 of " in capsys.readouterr().out
    other = write_checkpoint(tmp_path / "other", seed=2)
    (source / "config.json").write_text("{}", encoding="utf-8")
    (source / "other.pt").write_bytes((other / "model.pt").read_bytes())
    main(["verify", bundle, "--against", str(source / "model.pt")])
    capsys.readouterr()
    with pytest.raises(SystemExit, match="1"):
        main(["verify", bundle, "--against", str(other)])
    assert "fp32 does not follow ctranslate2" in capsys.readouterr().err
