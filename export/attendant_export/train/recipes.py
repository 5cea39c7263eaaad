"""Texts that describe a training, for the manifest and the model card."""

import os

import torch
from attendant.v1.architecture_pb2 import NORM_POSITION_PRE, Architecture, Stack

from attendant_export.data.bert_text import BertData
from attendant_export.data.labelled_texts import (
    CLASSIFY,
    ENTAILMENT,
    MULTIPLE_CHOICE,
    SIMILARITY,
)
from attendant_export.data.language_text import LanguageData
from attendant_export.data.pair_filters import COPIES, DUPLICATES, LANGUAGES, RATIO
from attendant_export.data.skip_grams import SkipGramOptions
from attendant_export.data.tokenizer import KINDS
from attendant_export.data.translation_data import TranslationData
from attendant_export.models.convolutional_shapes import BYTENET, SLICENET, XCEPTION, kind_of
from attendant_export.models.shapes import ALIGNMENT_FUNCTIONS, CELLS
from attendant_export.train.classifier import ClassifierData
from attendant_export.train.contrastive import ContrastiveOptions
from attendant_export.train.distillation import DistillationOptions
from attendant_export.train.masked import MlmOptions
from attendant_export.train.optimizers import ADAGRAD, ADAMW, OptimizerChoice
from attendant_export.train.schedule import TrainingOptions
from attendant_export.train.word_vectors import Pairs, WordVectorData

_CONVOLUTIONS = {"": "Transformer", BYTENET: "ByteNet", SLICENET: "SliceNet", XCEPTION: "Xception"}


def describe_hardware(device: torch.device, num_processes: int = 1) -> str:
    """The hardware, such as "2 CPU cores", or the name and number of GPUs, one per process."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        return name if num_processes == 1 else f"{num_processes} {name}"
    return f"{os.cpu_count()} CPU cores"


def describe_schedule(options: TrainingOptions, optimizer: OptimizerChoice = ADAMW) -> str:
    """The optimizer and its learning rate in one clause."""
    num = options.accumulate_steps
    return (
        f"{optimizer.name}, learning rate {options.learning_rate:g} after "
        f"{options.warmup_steps} steps of warm-up, decayed linearly to "
        f"{options.final_learning_rate_ratio:.0%} of it"
        + (f", gradients of {num} batches summed for a step" if num > 1 else "")
    )


def translation_recipe(
    architecture: Architecture,
    dropout: float,
    data: TranslationData,
    options: TrainingOptions,
    label_smoothing: float,
    has_new_tokenizer: bool = True,
) -> str:
    """How a translation model is trained, for the manifest and the model card."""
    return (
        f"{_describe_network(architecture)}, dropout {dropout:g} and "
        f"{_describe_vocabulary(architecture, data, has_new_tokenizer)}. "
        f"{describe_schedule(options)}; batches of "
        f"{data.max_batch_tokens:,} padded tokens, label smoothing {label_smoothing:g}. "
        f"{_describe_additions(data)}The checkpoint with the best {_describe_metric(data)} on "
        f"{data.num_valid_sources} sentences of {data.valid.name}, measured every "
        f"{options.validate_every_steps:,} steps."
    )


def _describe_network(architecture: Architecture) -> str:
    """The kinds of both stacks and the alignment, such as "Transformer with pre-norm"."""
    kinds = [_describe_stack(stack) for stack in (architecture.encoder, architecture.decoder)]
    if kinds[0] == kinds[1] and not architecture.decoder.groups[-1].HasField("alignment_attention"):
        return kinds[0]
    last = architecture.decoder.groups[-1]
    attention = ""
    if last.HasField("alignment_attention"):
        part = last.alignment_attention
        function = next(n for n, value in ALIGNMENT_FUNCTIONS.items() if value == part.function)
        attention = f" with {function} attention"
        if part.HasField("window"):
            kind = "predicted" if part.window.is_predictive else "monotonic"
            attention += f" in {kind} windows of {part.window.half_width} tokens on each side"
    elif last.HasField("recurrent"):
        attention = " without attention"
    return f"Encoder: {kinds[0]}; decoder: {kinds[1]}{attention}"


def _describe_stack(stack: Stack) -> str:
    first = stack.groups[0]
    if first.HasField("recurrent"):
        cell = next(name for name, value in CELLS.items() if value == first.recurrent.cell).upper()
        return f"bidirectional {cell}" if first.recurrent.is_bidirectional else cell
    norm = "pre" if stack.norm_position == NORM_POSITION_PRE else "post"
    kind = _CONVOLUTIONS[kind_of(stack)]
    experts = stack.groups[-1].mixture_of_experts
    if experts.num_experts:
        kind = f"{kind} of {experts.num_experts} experts, {experts.num_selected} for each token,"
    return f"{kind} with {norm}-norm"


def _describe_vocabulary(
    architecture: Architecture, data: TranslationData, has_new_tokenizer: bool
) -> str:
    """The embeddings and the tokenizers in one clause."""
    if architecture.shares_embeddings:
        embeddings, number = "one embedding for source, target and output", "joint"
    else:
        embeddings, number = "an embedding for the source and one for target and output", "separate"
    kind = KINDS[data.tokenizer_kind] if has_new_tokenizer else "vocabulary of the initial weights"
    return f"{embeddings}; {number} {kind}"


def _describe_additions(data: TranslationData) -> str:
    """How training pairs are mixed, what is added, changed and left out, in whole sentences."""
    sentences = _describe_mixture(data)
    sentences += [
        f"The pairs of {part.path.name} are marked with {part.choice}. "
        for part in data.parts
        if part.choice
    ]
    sentences += [
        f"Each pair of {extra.path.name} occurs {extra.repeats:,} times in an epoch. "
        for extra in data.extra
    ]
    if data.augmentation:
        sentences.append(
            f"Pairs are changed at random with these probabilities: {data.augmentation}. "
        )
    if filters := _describe_filters(data):
        sentences.append(f"Pairs are left out for these reasons: {', '.join(filters)}. ")
    return "".join(sentences)


def _describe_mixture(data: TranslationData) -> list[str]:
    weighted = [f"{each.path.name} {each.weight:g}" for each in data.train if each.weight]
    if len(weighted) > 1:
        return [f"The pairs are mixed with these weights: {', '.join(weighted)}. "]
    if len(data.train) > 1 and data.temperature != 1:
        names = ", ".join(each.path.name for each in data.train)
        return [f"The pairs of {names} are mixed with a temperature of {data.temperature:g}. "]
    return []


def _describe_filters(data: TranslationData) -> list[str]:
    text, lengths = data.text_filters, data.length_filters
    filters = [COPIES] * text.copies + [DUPLICATES] * text.duplicates
    if text.languages is not None:
        filters.append(f"{LANGUAGES} other than {' and '.join(text.languages)}")
    if lengths.max_ratio is not None:
        filters.append(f"{RATIO} above {lengths.max_ratio:g}")
    return filters


def _describe_metric(data: TranslationData) -> str:
    if data.augmentation:
        return "mean of greedy BLEU and greedy BLEU without capitals and final punctuation"
    return "greedy BLEU"


def language_model_recipe(
    architecture: Architecture, dropout: float, data: LanguageData, options: TrainingOptions
) -> str:
    """How a language model is trained, for the manifest and the model card."""
    group = architecture.decoder.groups[0]
    return (
        f"Causal language model of {group.num_layers} layers, dropout {dropout:g}, on sequences of "
        f"{data.max_tokens} tokens cut from the training text. {describe_schedule(options)}; "
        f"batches of {data.max_batch_tokens:,} tokens. The checkpoint with the lowest perplexity "
        f"on {data.valid.name}, measured every {options.validate_every_steps:,} steps."
    )


def classifier_recipe(
    pooling: str, dropout: float, data: ClassifierData, options: TrainingOptions
) -> str:
    """How a classification head is trained, for the manifest and the model card."""
    read = {
        CLASSIFY: "single texts",
        ENTAILMENT: "pairs of texts",
        SIMILARITY: "pairs of texts in both orders, whose scores are scaled to 0 to 1",
        MULTIPLE_CHOICE: "pairs of a context and each choice, of which one is right",
    }
    return (
        f"Classification head on the {pooling} pooling of an encoder, trained together on "
        f"{read[data.task]}, dropout {dropout:g}. {describe_schedule(options)}; batches of "
        f"{data.max_batch_tokens:,} padded tokens. The best checkpoint on {data.valid.name}, "
        f"measured every {options.validate_every_steps:,} steps."
    )


def word_vector_recipe(
    dimensions: int,
    data: WordVectorData,
    pairs: Pairs,
    options: TrainingOptions,
    sif_coefficient: float | None,
) -> str:
    """How word vectors are trained, for the manifest and the model card."""
    if isinstance(pairs, SkipGramOptions):
        objective = (
            "Skip-gram with negative sampling (Mikolov et al., 2013): windows of at most "
            f"{pairs.window} words, {pairs.num_negatives} negatives, subsampling of words above "
            f"the frequency {pairs.subsampling:g}"
        )
    else:
        objective = (
            "GloVe (Pennington et al., 2014; sums of word and context vectors): windows of "
            f"{pairs.window} words"
        )
    weights = "the same weight"
    if sif_coefficient is not None:
        weights = (
            "the weight of smooth inverse frequency (Arora et al., 2017) with the coefficient "
            f"{sif_coefficient:g}"
        )
    return (
        f"{objective}; vectors of {dimensions} values for at most {data.max_words:,} words that "
        f"occur at least {data.min_count:,} times. {describe_schedule(options, ADAGRAD)}; "
        f"batches of {pairs.max_pairs:,} pairs. The best checkpoint on {data.valid.name}, "
        f"measured every {options.validate_every_steps:,} steps. In a text, words have {weights}."
    )


def bert_recipe(
    architecture: Architecture,
    dropout: float,
    data: BertData,
    mlm: MlmOptions,
    contrastive: ContrastiveOptions,
) -> str:
    """How an embedding model is trained, for the manifest and the model card."""
    norm = "pre" if architecture.encoder.norm_position == NORM_POSITION_PRE else "post"
    phases = [
        f"BERT with {norm}-norm, dropout {dropout:g} and WordPiece, on texts of at most "
        f"{data.max_tokens} tokens."
    ]
    if contrastive.embedding_training is not None:
        phases.append(
            "Contrastive learning of the token embeddings alone (batches of at most "
            f"{contrastive.max_embedding_pairs} pairs): "
            f"{describe_schedule(contrastive.embedding_training)}."
        )
    if mlm.training is not None:
        phases.append(f"Masked language model alone: {describe_schedule(mlm.training)}.")
    phases.append(
        "Contrastive learning of translation and paraphrase pairs (batches of at most "
        f"{contrastive.max_pairs} pairs, temperature {contrastive.temperature:g}, "
        f"{contrastive.pooling} pooling) with {contrastive.mlm_weight:g} times the loss of a "
        f"masked language model ({mlm.mask_ratio:.0%} masked, batches of "
        f"{mlm.max_batch_tokens:,} padded tokens): {describe_schedule(contrastive.training)}. The "
        "checkpoint with the best mean of retrieval accuracy and masked accuracy on "
        f"{data.valid_pairs.name} and held-out documents."
    )
    return " ".join(phases)


def describe_teacher(
    name: str, license: str, data: BertData, distillation: DistillationOptions
) -> str:
    """A teacher and what is learned from it, in sentences that follow those of `bert_recipe`."""
    texts = [f"those of {path.name}" for path in data.teacher_texts]
    learned = " and ".join(["the first side of each pair, for both sides", *texts])
    sentence = (
        f" With {distillation.weight:g} times one minus the cosine to the vectors of the teacher "
        f"{name}, licence {license}: its vectors of {learned}."
    )
    if number := distillation.num_hard_negatives:
        sentence += f" {number} pairs that it finds similar to a pair share its batch."
    return sentence
