"""Stage "rivals": what other engines do on the same card, in fp16 and in this process.

They get whole batches, sorted by length, without the cost of requests, so their servers would be
slower. Engines that are not installed are left out.
"""

import importlib.util
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bench.gpu.made_texts import made_up_texts
from bench.gpu.models import TRANSLATION, hugging_face_folder, made_bundle
from bench.gpu.speed import EMBEDDED_TOKENS
from bench.gpu.trial import FOLDER, Figures, Trial, rounded

BATCH_SIZE = 256
BEAMS = (1, 4)
VOCAB_SIZE = 32_000
FIRST_ID, PAD_ID, EOS_ID = 4, 0, 2
MAX_BATCH_TOKENS = 16_384
"""Limit of the padded tokens of a batch of CTranslate2."""


def run(trial: Trial) -> None:
    """Measure each engine that is installed."""
    for beam_size in BEAMS:
        _part(trial, "transformers", measure_transformers, beam_size)
    _part(trial, "sentence_transformers", measure_sentence_transformers)
    for beam_size in BEAMS:
        _part(trial, "ctranslate2", measure_ctranslate2, beam_size)


def _part(
    trial: Trial, module: str, measure: Callable[..., Figures], beam_size: int | None = None
) -> None:
    """Measure with a package, if it is installed."""
    name = module if beam_size is None else f"{module} beam {beam_size}"
    if importlib.util.find_spec(module) is None:
        trial.report(name, {"skipped": "not installed"})
    elif beam_size is None:
        trial.part(name, measure, trial)
    else:
        trial.part(name, measure, trial, beam_size)


def measure_transformers(trial: Trial, beam_size: int) -> Figures:
    """``generate`` of a Marian model with the sizes of a Transformer base and random weights.

    Each batch writes as many tokens as its longest source has; those beyond a text's own length do
    not count.
    """
    import torch

    model, device = _marian(trial), trial.device

    def translate(lengths: Sequence[int]) -> None:
        longest = max(lengths)
        ids = torch.randint(FIRST_ID, VOCAB_SIZE, (len(lengths), longest), device=device)
        ends = torch.tensor(lengths, device=device).unsqueeze(1)
        kept = torch.arange(longest, device=device) < ends  # (texts, longest)
        with torch.inference_mode():
            model.generate(
                input_ids=ids.where(kept, PAD_ID),
                attention_mask=kept.long(),
                num_beams=beam_size,
                do_sample=False,
                min_new_tokens=longest,
                max_new_tokens=longest,
            )

    return _tokens_per_second(trial, translate, _lengths(trial))


def _marian(trial: Trial) -> Any:
    from transformers import MarianConfig, MarianMTModel

    of_side = {"layers": 6, "attention_heads": 8, "ffn_dim": 2048}
    sizes = {f"{side}_{name}": n for side in ("encoder", "decoder") for name, n in of_side.items()}
    config = MarianConfig(
        vocab_size=VOCAB_SIZE,
        d_model=512,
        pad_token_id=PAD_ID,
        eos_token_id=EOS_ID,
        decoder_start_token_id=PAD_ID,
        **trial.pick(sizes, dict.fromkeys(sizes, 1)),
    )
    return MarianMTModel(config).half().to(trial.device).eval()


def _lengths(trial: Trial) -> list[list[int]]:
    """The numbers of tokens of the texts of each batch; long and short batches take turns."""
    texts = made_up_texts(trial.pick(4096, 4))
    lengths = sorted(len(text.split()) + 1 for text in texts)
    size = trial.pick(BATCH_SIZE, 2)
    batches = [lengths[i : i + size] for i in range(0, len(lengths), size)]
    return batches[::3] + batches[1::3] + batches[2::3]


def _tokens_per_second(
    trial: Trial, translate: Callable[[Sequence[int]], None], batches: list[list[int]]
) -> Figures:
    """Translate batches of given lengths for some seconds, after a warm-up."""
    translate(batches[0])
    num_tokens = num_texts = 0
    started = time.perf_counter()
    for lengths in repeated(batches, trial.pick(8.0, 0.0)):
        translate(lengths)
        num_tokens += sum(lengths)
        num_texts += len(lengths)
    seconds = time.perf_counter() - started
    return {
        "tokens_per_second": round(num_tokens / seconds),
        "texts_per_second": rounded(num_texts / seconds),
    }


def repeated(batches: list[Any], seconds: float) -> Iterator[Any]:
    """The batches in order, again and again, until ``seconds`` have passed; at least one."""
    ends, i = time.perf_counter() + seconds, 0
    while i == 0 or time.perf_counter() < ends:
        yield batches[i % len(batches)]
        i += 1


def measure_sentence_transformers(trial: Trial) -> Figures:
    """``encode`` of the encoder that our bundle was exported from."""
    import torch
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(hugging_face_folder(trial)), device=trial.device)
    if not trial.is_smoke:
        model.half()
    texts = made_up_texts(trial.pick(4096, 4), trial.pick(EMBEDDED_TOKENS - 2, 8))
    size = trial.pick(BATCH_SIZE, 2)
    batches = [texts[i : i + size] for i in range(0, len(texts), size)]
    model.encode(batches[0], batch_size=size, show_progress_bar=False)
    num_texts, started = 0, time.perf_counter()
    for batch in repeated(batches, trial.pick(6.0, 0.0)):
        with torch.inference_mode():
            model.encode(batch, batch_size=size, show_progress_bar=False)
        num_texts += len(batch)
    return {"texts_per_second": rounded(num_texts / (time.perf_counter() - started))}


def measure_ctranslate2(trial: Trial, beam_size: int) -> Figures:
    """``translate_batch`` with the weights of our bundle."""
    import ctranslate2

    from bench.rivals.ctranslate2_model import convert

    folder = FOLDER / "ctranslate2"
    if folder.exists():
        shutil.rmtree(folder)
    model = convert(made_bundle(trial, TRANSLATION), folder)
    kind = trial.pick("float16", "float32")
    translator = ctranslate2.Translator(str(model), device=trial.device, compute_type=kind)
    words = [f"word{i}" for i in range(8)]  # unknown tokens take as much time as others

    def translate(lengths: Sequence[int]) -> None:
        translator.translate_batch(
            [[words[i % len(words)] for i in range(length)] for length in lengths],
            beam_size=beam_size,
            batch_type="tokens",
            max_batch_size=MAX_BATCH_TOKENS,
            min_decoding_length=max(lengths),
            max_decoding_length=max(lengths),
        )

    return _tokens_per_second(trial, translate, _lengths(trial))
