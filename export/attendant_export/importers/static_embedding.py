"""Static embeddings: Model2Vec models, and those of sentence-transformers.

The vector of a text is the mean of the vectors of its tokens, without special tokens around it.
Folders of Model2Vec have a configuration, and ``embeddings`` beside it, optionally with a weight
for each token and the row of each token (vocabulary quantization). Folders of sentence-transformers
have a list of modules, and ``embedding.weight`` in the folder of the first module.
"""

from attendant.v1.bundle_pb2 import EmbeddingDefaults
from attendant.v1.embedding_pb2 import POOLING_MEAN
from attendant_manifest.part_rules import MAX_TOKENS
from tokenizers import Tokenizer
from torch import Tensor

from attendant_export.data.tokenizer import TOKENIZER, load_tokenizer, unknown_token_id
from attendant_export.importers.checkpoint import CONFIG, Checkpoint, CheckpointError, Weights
from attendant_export.importers.imported import ImportedEncoder
from attendant_export.importers.prompts import read_prompts
from attendant_export.importers.sentence_transformers import (
    STATIC,
    is_sentence_transformer,
    read_dense_layers,
    read_modules,
)
from attendant_export.importers.special_tokens import read_tokenizer
from attendant_export.importers.tokenizer_checks import largest_id
from attendant_export.models.encoder import Encoder
from attendant_export.models.static_embedding import TABLE, static_encoder

MODEL2VEC = "model2vec"
"""The ``model_type`` of Model2Vec, which its configurations may lack."""
SENTENCE_TRANSFORMERS = "static-embedding"
"""Name of the family of models of sentence-transformers."""
EMBEDDINGS, ROWS, TOKEN_WEIGHTS = "embeddings", "mapping", "weights"
"""Tensors of Model2Vec: the table, the row of each token, and the weight of each token."""
DEFAULT_MAX_TOKENS = 512
"""Limit of Model2Vec for a text, if the configuration states none."""
PADS = ("[PAD]", "<pad>")


def is_static(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint has static embeddings. Raises CheckpointError for unknown modules."""
    if checkpoint.has(CONFIG) and "model_type" in checkpoint.config:
        return bool(checkpoint.config.get("model_type") == MODEL2VEC)
    if is_sentence_transformer(checkpoint):
        return read_modules(checkpoint)[0].name == STATIC
    return checkpoint.has(CONFIG) and EMBEDDINGS in checkpoint.weights.shapes


def is_model2vec(checkpoint: Checkpoint) -> bool:
    """Whether static embeddings are in Model2Vec's own layout. Raises CheckpointError."""
    return checkpoint.has(CONFIG) and EMBEDDINGS in checkpoint.weights.shapes


def read_static(checkpoint: Checkpoint) -> ImportedEncoder:
    """The model of a checkpoint with static embeddings; raises CheckpointError."""
    if is_model2vec(checkpoint):
        return _read_model2vec(checkpoint)
    if not is_sentence_transformer(checkpoint):
        names = ", ".join(sorted(checkpoint.weights.shapes))
        raise CheckpointError(
            f"{checkpoint.title}: the weights {names} lack {EMBEDDINGS}, which Model2Vec needs"
        )
    modules = read_modules(checkpoint)
    model, tokenizer = _read_model(checkpoint, modules[0].path)
    architecture = model.architecture
    model.dense = read_dense_layers(checkpoint, architecture.d_model)
    architecture.text_vectors.dense_layers.extend(model.dense.part.dense_layers)
    prompts = read_prompts(checkpoint, tokenizer)
    defaults = EmbeddingDefaults(
        pooling=POOLING_MEAN,
        normalize=modules[-1].name == "Normalize",
        prompts=prompts.texts,
        default_prompt=prompts.default,
    )
    max_tokens = _max_tokens(checkpoint, modules[0].path)
    return ImportedEncoder(SENTENCE_TRANSFORMERS, model, tokenizer, max_tokens, defaults)


def _read_model2vec(checkpoint: Checkpoint) -> ImportedEncoder:
    config = checkpoint.config
    model, tokenizer = _read_model(checkpoint, "")
    unknown = unknown_token_id(tokenizer)
    if unknown is not None:
        model.architecture.text_vectors.excluded_token_id = unknown
    has_limit = "max_length" in config or "max_length" not in config.names
    limit = config.integer("max_length", DEFAULT_MAX_TOKENS) if has_limit else MAX_TOKENS
    defaults = EmbeddingDefaults(
        pooling=POOLING_MEAN, normalize=config.flag("normalize", default=False)
    )
    return ImportedEncoder(MODEL2VEC, model, tokenizer, min(limit, MAX_TOKENS), defaults)


def _read_model(checkpoint: Checkpoint, folder: str) -> tuple[Encoder, Tokenizer]:
    """The model and the tokenizer in a folder of the checkpoint, "" for its own."""
    file = _tokenizer_file(folder)
    checkpoint.path(file)
    tokenizer = read_tokenizer(checkpoint, file)
    if tokenizer.num_special_tokens_to_add(is_pair=False):
        tokenizer.post_processor = None
    table = _read_table(checkpoint, folder)
    if (largest := largest_id(tokenizer)) >= len(table):
        raise CheckpointError(
            f"{checkpoint.folder / file}: token id {largest} exceeds the {len(table)} vectors"
        )
    pads = (tokenizer.token_to_id(pad) for pad in PADS)
    pad_id = next((pad_id for pad_id in pads if pad_id is not None and pad_id < len(table)), 0)
    return static_encoder(table, pad_id), tokenizer


def _tokenizer_file(folder: str) -> str:
    return f"{folder}/{TOKENIZER}" if folder else TOKENIZER


def _max_tokens(checkpoint: Checkpoint, folder: str) -> int:
    """The length to which the tokenizer in a folder truncates, as sentence-transformers does."""
    truncation = load_tokenizer(checkpoint.path(_tokenizer_file(folder))).truncation
    return min(truncation["max_length"], MAX_TOKENS) if truncation else MAX_TOKENS


def _read_table(checkpoint: Checkpoint, folder: str) -> Tensor:
    """The vector of each token, times its weight: (tokens, d_model). Raises CheckpointError."""
    weights = checkpoint.weights_in(folder)
    try:
        return _folded_table(weights)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.folder / folder}: {error}") from error


def _folded_table(weights: Weights) -> Tensor:
    shapes = dict(weights.shapes)
    name = TABLE if TABLE in shapes else EMBEDDINGS
    known = {TABLE} if name == TABLE else {EMBEDDINGS, ROWS, TOKEN_WEIGHTS}
    if name not in shapes or not shapes.keys() <= known:
        raise CheckpointError(
            f"the weights are {', '.join(sorted(shapes))}; supported: {TABLE}, or {EMBEDDINGS}, "
            f"optionally with {ROWS} and {TOKEN_WEIGHTS}"
        )
    if len(shapes[name]) != 2 or 0 in shapes[name]:
        raise CheckpointError(f"{name} is {shapes[name]}, want (tokens, dimension)")
    table = weights.read(name)
    if ROWS in shapes:
        rows = weights.read(ROWS)
        is_row = (rows >= 0) & (rows < len(table)) & (rows == rows.trunc())
        if rows.ndim != 1 or not is_row.all():
            raise CheckpointError(
                f"{ROWS} {tuple(rows.shape)} has other numbers than those of rows"
            )
        table = table[rows.long()]
    if TOKEN_WEIGHTS in shapes:
        if shapes[TOKEN_WEIGHTS] != (len(table),):
            raise CheckpointError(
                f"{TOKEN_WEIGHTS} is {shapes[TOKEN_WEIGHTS]}, not ({len(table)},)"
            )
        table = table * weights.read(TOKEN_WEIGHTS)[:, None]
    return table
