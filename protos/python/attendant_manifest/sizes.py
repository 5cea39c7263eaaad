"""The sizes of a network, from its architecture."""

from attendant.v1.architecture_pb2 import Architecture, LayerGroup, Stack
from attendant.v1.model_pb2 import EmbeddingSizes, LanguageModelSizes, TranslationSizes


def translation_sizes(architecture: Architecture) -> TranslationSizes:
    """Sizes of an encoder-decoder network; the first decoder layer's if layers differ.

    Heads are those of cross-attention if the layer has no self-attention, and 0 without both.
    """
    first = architecture.decoder.groups[0]
    has_attention = first.HasField("self_attention")
    attention = first.self_attention if has_attention else first.cross_attention
    return TranslationSizes(
        d_model=architecture.d_model,
        num_heads=attention.num_heads,
        head_dim=attention.head_dim,
        d_feed_forward=first.feed_forward.d_feed_forward,
        num_encoder_layers=num_layers(architecture.encoder),
        num_decoder_layers=num_layers(architecture.decoder),
        vocab_size=architecture.target_embeddings.vocab_size,
    )


def embedding_sizes(architecture: Architecture) -> EmbeddingSizes:
    """Sizes of an encoder; the first layer's if layers differ, 0 if there are none."""
    first, dimension = [*architecture.encoder.groups, LayerGroup()][0], text_dimension(architecture)
    return EmbeddingSizes(
        d_model=architecture.d_model,
        num_heads=first.self_attention.num_heads,
        head_dim=first.self_attention.head_dim,
        d_feed_forward=first.feed_forward.d_feed_forward,
        num_layers=num_layers(architecture.encoder),
        vocab_size=architecture.source_embeddings.vocab_size,
        text_dimension=dimension if dimension != architecture.d_model else None,
        token_dimension=token_dimension(architecture) or None,
        sparse_dimension=sparse_dimension(architecture) or None,
    )


def language_model_sizes(architecture: Architecture) -> LanguageModelSizes:
    """Sizes of a causal language model; the first layer's if layers differ."""
    first = architecture.decoder.groups[0]
    attention = first.self_attention
    return LanguageModelSizes(
        d_model=architecture.d_model,
        num_heads=attention.num_heads,
        num_key_value_heads=attention.num_key_value_heads or attention.num_heads,
        head_dim=attention.head_dim,
        d_feed_forward=first.feed_forward.d_feed_forward,
        num_layers=num_layers(architecture.decoder),
        vocab_size=architecture.target_embeddings.vocab_size,
    )


def text_dimension(architecture: Architecture) -> int:
    """Dimension of the vectors of whole texts."""
    widths = [dense.d_output for dense in architecture.text_vectors.dense_layers]
    return [architecture.d_model, *widths][-1]


def token_dimension(architecture: Architecture) -> int:
    """Dimension of the vectors of tokens for late interaction; 0 without such vectors."""
    widths = [dense.d_output for dense in architecture.token_vectors.dense_layers]
    return [0, *widths][-1]


def sparse_dimension(architecture: Architecture) -> int:
    """Dimension of the sparse vectors of whole texts; 0 without such vectors."""
    has_vectors = architecture.HasField("sparse_vectors")
    return architecture.source_embeddings.vocab_size if has_vectors else 0


def num_source_heads(group: LayerGroup) -> int:
    """Number of heads by which a decoder layer attends to the source; 0 if it does not."""
    return 1 if group.HasField("alignment_attention") else group.cross_attention.num_heads


def num_layers(stack: Stack) -> int:
    """Number of layers that run, in all groups."""
    return sum(group.num_layers * (group.num_repeats or 1) for group in stack.groups)
