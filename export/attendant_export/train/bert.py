"""Trains a BERT in phases, each with its loss and validation.

The phases are token embeddings only, masked language model only, and sentence embeddings. `Trainer`
runs each of them.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from attendant.v1.architecture_pb2 import NORM_POSITION_PRE, Architecture
from tokenizers import Tokenizer

from attendant_export.data.bert_text import BertData, MlmText, read_mlm_text, read_similar_sentences
from attendant_export.data.similar_pairs import SimilarPairs
from attendant_export.data.tokenizer import (
    BERT_CLS,
    BERT_MASK,
    BERT_PAD,
    BERT_SEP,
    special_token_id,
    train_bert_tokenizer,
)
from attendant_export.models.encoder import Encoder
from attendant_export.models.shapes import with_vocab_size
from attendant_export.models.special_tokens import EncoderTokens
from attendant_export.runs.config import BERT, RunConfig, write_config
from attendant_export.runs.inputs import check_inputs, write_inputs
from attendant_export.train.contrastive import ContrastiveOptions, ContrastiveTask
from attendant_export.train.device import pick_device, pick_precision
from attendant_export.train.distillation import DistillationOptions, prepare_distillation
from attendant_export.train.distributed import SINGLE_PROCESS, ProcessGroup
from attendant_export.train.loop import Progress, Task, Trainer
from attendant_export.train.masked import MlmOptions, MlmTask
from attendant_export.train.schedule import TrainingOptions
from attendant_export.train.setup import prepare_model, prepare_tokenizer


def train_bert(
    architecture: Architecture,
    data: BertData,
    mlm_options: MlmOptions,
    contrastive_options: ContrastiveOptions,
    run_dir: Path,
    *,
    dropout: float = 0.1,
    device: str = "auto",
    precision: str = "auto",
    init_from: Path | None = None,
    distillation: DistillationOptions | None = None,
    processes: ProcessGroup = SINGLE_PROCESS,
    tensorboard: bool = False,
) -> Progress:
    """Train a BERT in ``run_dir``, or resume it. Returns the progress of the last phase.

    The vocabulary size and the special ids are those of the tokenizer. ``init_from`` is a run
    folder or a bundle that gives the initial weights and the tokenizer. With ``distillation``, the
    sentence embeddings also learn from a teacher. Writes ``config.json``,
    ``tokenizer.json``, and ``last/``, ``best/`` and the history of the contrastive phase; those of
    the earlier phases go to ``embeddings/`` and ``mlm/``. Finished phases are skipped. Every one of
    the ``processes`` must make the same call. Raises ValueError if the sizes or the teacher differ
    from those of the run, or sizes from the initial weights, and as `read_mlm_text`,
    `prepare_distillation`, `Trainer` and `Trainer.train`.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(data.seed)
    text = read_mlm_text(data)
    tokenizer = prepare_tokenizer(
        run_dir, init_from, lambda: train_bert_tokenizer(text.train, data.vocab_size), processes
    )
    network = with_vocab_size(architecture, tokenizer.get_vocab_size())
    tokens = _special_tokens(tokenizer)
    config = RunConfig(BERT, network, tokens, dropout)
    model = Encoder(network, tokens, dropout).to(pick_device(device))
    prepare_model(model, config, run_dir, init_from)
    inputs = [] if distillation is None else [("the teacher", distillation.key)]
    check_inputs(run_dir, inputs)
    if init_from is None and network.encoder.norm_position == NORM_POSITION_PRE:
        model.begin_as_averages()
    if processes.is_first:
        write_inputs(run_dir, inputs)
        write_config(run_dir, config)
    dtype = pick_precision(precision, next(model.parameters()).device, processes)
    settings = (data, mlm_options, contrastive_options, distillation)
    for task, options, phase in _phases(model, tokenizer, text, *settings, run_dir, processes):
        progress = Trainer(
            model,
            task,
            options,
            run_dir / phase,
            processes=processes,
            dtype=dtype,
            tensorboard=tensorboard,
        ).train()
    return progress


def _phases(
    model: Encoder,
    tokenizer: Tokenizer,
    text: MlmText,
    data: BertData,
    mlm_options: MlmOptions,
    options: ContrastiveOptions,
    distillation: DistillationOptions | None,
    run_dir: Path,
    processes: ProcessGroup,
) -> Iterator[tuple[Task[Any], TrainingOptions, str]]:
    """The task, options and folder of each phase, prepared when the previous one has finished."""
    sentences = read_similar_sentences(
        data, options.max_paraphrases_per_group, options.num_valid_sentences
    )
    all_pairs = sentences.translations + sentences.paraphrases
    pairs = SimilarPairs(all_pairs, tokenizer, data.max_tokens)
    given = (model, tokenizer, pairs, sentences.valid, data.max_tokens)
    if options.embedding_training is not None:
        averages = replace(
            options, training=options.embedding_training, max_pairs=options.max_embedding_pairs
        )
        task = ContrastiveTask(*given, averages, num_layers=0, processes=processes)
        yield task.as_task(), averages.training, "embeddings"
    mlm = MlmTask(model, tokenizer, text, data, mlm_options, processes)
    if mlm_options.training is not None:
        yield mlm.as_task(), mlm_options.training, "mlm"
    teacher = None
    if distillation is not None:
        how = (sentences, distillation, run_dir, processes)
        teacher = prepare_distillation(model, tokenizer, data, *how)
    task = ContrastiveTask(*given, options, mlm, processes=processes, teacher=teacher)
    yield task.as_task(), options.training, ""


def _special_tokens(tokenizer: Tokenizer) -> EncoderTokens:
    names = {"pad_id": BERT_PAD, "cls_id": BERT_CLS, "sep_id": BERT_SEP, "mask_id": BERT_MASK}
    ids = {name: special_token_id(tokenizer, token) for name, token in names.items()}
    return EncoderTokens(**ids)
