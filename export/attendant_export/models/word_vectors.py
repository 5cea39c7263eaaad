"""Word vectors that are trained: skip-gram with negative sampling (Mikolov et al., 2013) and GloVe.

GloVe is by Pennington, Socher and Manning, 2014. Depends on tensors only, not on tokenizers or
files.
"""

import torch
from attendant.v1.architecture_pb2 import Architecture
from torch import Tensor, nn

from attendant_export.data.word_tokenizer import UNKNOWN_ID


class WordVectors(nn.Module):
    """Two vectors for each word: one as a word, and one as the context of another word."""

    text_weights: Tensor

    def __init__(self, architecture: Architecture, sparse: bool = False) -> None:
        """``architecture`` is that of the static embeddings which the words become.

        ``sparse``: gradients have only the rows of the words of a batch.
        """
        super().__init__()
        self.architecture = architecture
        vocab_size, d_model = architecture.source_embeddings.vocab_size, architecture.d_model
        self.words = nn.Embedding(vocab_size, d_model, sparse=sparse)
        self.contexts = nn.Embedding(vocab_size, d_model, sparse=sparse)
        self.register_buffer("text_weights", torch.ones(vocab_size))
        """How much each word counts in the vector of a text."""

    def vectors(self) -> Tensor:
        """The vectors of words (vocab_size, d_model)."""
        return self.words.weight

    @torch.no_grad()
    def table(self) -> Tensor:
        """The rows (vocab_size, d_model) whose mean is the vector of a text."""
        table = self.vectors() * self.text_weights[:, None]
        table[UNKNOWN_ID] = 0
        return table


class SkipGram(WordVectors):
    """Tells the words near a word from words drawn at random."""

    def __init__(self, architecture: Architecture, sparse: bool = False) -> None:
        """Begin as word2vec: small random vectors of words, zeros as those of contexts."""
        super().__init__(architecture, sparse)
        _draw(self.words)
        nn.init.zeros_(self.contexts.weight)

    def forward(self, words: Tensor, contexts: Tensor) -> Tensor:
        """Scores (words, contexts) of each of the ``contexts`` to be near each of the ``words``.

        The logits of the probability of a pair to be one of the text.
        """
        scores: Tensor = self.words(words) @ self.contexts(contexts).T
        return scores


class GloVe(WordVectors):
    """Estimates the logarithms of co-occurrences."""

    def __init__(self, architecture: Architecture, sparse: bool = False) -> None:
        """Begin with small random vectors and without biases."""
        super().__init__(architecture, sparse)
        _draw(self.words)
        _draw(self.contexts)
        vocab_size = architecture.source_embeddings.vocab_size
        self.word_biases = nn.Parameter(torch.zeros(vocab_size))
        self.context_biases = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, words: Tensor, contexts: Tensor) -> Tensor:
        """Estimates (pairs) of the logarithm of the count of each pair, ``words`` (pairs)."""
        products: Tensor = (self.words(words) * self.contexts(contexts)).sum(dim=1)
        return products + self.word_biases[words] + self.context_biases[contexts]

    def vectors(self) -> Tensor:
        """The sums (vocab_size, d_model) of both vectors of each word (section 4.2)."""
        return self.words.weight + self.contexts.weight


def _draw(table: nn.Embedding) -> None:
    """Draw small vectors."""
    bound = 0.5 / table.embedding_dim
    nn.init.uniform_(table.weight, -bound, bound)
