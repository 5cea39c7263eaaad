"""Hugging Face ``generate`` on a Marian model of our sizes, with random weights, in this process.

The weights decide only what is said, not how long a step takes. How long each output is comes from
elsewhere: a row that has all its tokens is stopped, and the batch with its last row.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import MarianConfig, MarianMTModel, StoppingCriteria, StoppingCriteriaList

PAD, EOS = 0, 2


class OutputLengths(StoppingCriteria):  # type: ignore[misc]
    """Ends every sentence, with all of its beams, at a length of its own."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self._lengths = torch.tensor(lengths)

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """Which rows are done; ``input_ids`` (rows, length) begin with the start token."""
        rows, length = input_ids.shape  # as many rows for each sentence as the search looks at
        is_done = self._lengths < length
        return is_done.repeat_interleave(rows // len(self._lengths))


class RandomMarian:
    """A model to be measured."""

    def __init__(self, sizes: Mapping[str, int], beam_size: int) -> None:
        torch.manual_seed(1)
        self._beam_size = beam_size
        config = MarianConfig(
            vocab_size=sizes["vocab_size"],
            d_model=sizes["d_model"],
            encoder_layers=sizes["num_encoder_layers"],
            decoder_layers=sizes["num_decoder_layers"],
            encoder_attention_heads=sizes["num_heads"],
            decoder_attention_heads=sizes["num_heads"],
            encoder_ffn_dim=sizes["d_feed_forward"],
            decoder_ffn_dim=sizes["d_feed_forward"],
            activation_function="relu",
            scale_embedding=True,
            pad_token_id=PAD,
            eos_token_id=EOS,
            decoder_start_token_id=PAD,
            forced_eos_token_id=None,
        )
        self._model = MarianMTModel(config).eval()

    @torch.inference_mode()
    def translate(self, sources: Sequence[Sequence[int]], lengths: Sequence[int]) -> int:
        """Translate a batch into outputs of these lengths; the number of tokens of all outputs."""
        source_lengths = torch.tensor([len(source) for source in sources])
        padded = torch.full((len(sources), int(source_lengths.max())), PAD)
        for row, source in zip(padded, sources, strict=True):
            row[: len(source)] = torch.tensor(source)
        mask = torch.arange(padded.shape[1]) < source_lengths[:, None]  # (batch, source)
        self._model.generate(
            input_ids=padded,
            attention_mask=mask.long(),
            num_beams=self._beam_size,
            do_sample=False,
            max_new_tokens=max(lengths),
            suppress_tokens=[EOS],
            early_stopping=self._beam_size > 1,
            stopping_criteria=StoppingCriteriaList([OutputLengths(lengths)]),
        )
        return sum(lengths)
