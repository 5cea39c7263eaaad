"""Translation models in the original implementation, ``transformers``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from attendant_export.data.batches import pad
from attendant_export.verify.agreement import TokenIds, trace_of
from attendant_export.verify.embedding import FloatArray
from attendant_export.verify.language_samples import Sample
from attendant_export.verify.original import IMPLEMENTATION, Original, OriginalError
from attendant_export.verify.recorded_search import BeamRecorder
from attendant_export.verify.reference_search import ReferenceHypothesis, SearchTrace

SPACE = "\u2581"
"""The character of a space in pieces of SentencePiece."""


class OriginalTranslator(Original):
    """A translation model in the original implementation, with the options of its checkpoint."""

    def __init__(self, folder: Path) -> None:
        """Raises OriginalError."""
        super().__init__(folder, "AutoModelForSeq2SeqLM")
        if self._missing:
            raise OriginalError(
                f"{IMPLEMENTATION} {self.version} finds no weights for {self._missing[0]} in "
                f"{folder}"
            )
        _compute_positions(self._model)
        options = self._model.generation_config
        # The server reports such a translation as truncated instead.
        options.forced_eos_token_id = None
        options.max_length = None
        options.num_return_sequences = 1  # The first one is the translation.
        self.default_beam_size: int = options.num_beams or 1
        self.length_penalty: float = (
            1.0 if options.length_penalty is None else options.length_penalty
        )
        for name in ("decoder_start_token_id", "eos_token_id", "pad_token_id"):
            if getattr(options, name) is None:  # The network's configuration may state it instead.
                setattr(options, name, getattr(self._model.config, name))
        self._start_id, self._pad_id = options.decoder_start_token_id, options.pad_token_id
        eos = options.eos_token_id
        self._eos_id: int = eos[0] if isinstance(eos, list) else eos
        self._penalty: float = options.repetition_penalty or 1.0
        self._left_out: list[int] = []
        if options.renormalize_logits:
            words = [token for word in options.bad_words_ids or () for token in word]
            self._left_out = [*words, *(options.suppress_tokens or ())]

    def sample_ids(self, sample: Sample) -> list[int]:
        """The token ids of a text in its language, special tokens included.

        Raises OriginalError if the tokenizer of the original lacks the language.
        """
        if sample.language_id is not None:
            token = self._tokenizer.convert_ids_to_tokens(sample.language_id)
            if token is None:
                raise OriginalError(
                    f"the tokenizer of {IMPLEMENTATION} {self.version} has no token with the id "
                    f"{sample.language_id}, which selects a language"
                )
            self._tokenizer.src_lang = token.strip("_")
        prefix = self._prefix(sample.prefix_ids) if sample.prefix_ids else ""
        return self.token_ids(prefix + sample.text)

    def _prefix(self, token_ids: TokenIds) -> str:
        """The text of these tokens: the prefix of a task, or else a code, after a space or none."""
        tasks = getattr(self._model.config, "task_specific_params", None) or {}
        for task in tasks.values():
            prefix = task.get("prefix") if isinstance(task, dict) else None
            if prefix and (*token_ids, self._eos_id) == tuple(self.token_ids(prefix)):
                return str(prefix)
        texts = {token_id: text for text, token_id in self._tokenizer.get_vocab().items()}
        return "".join(texts[each] for each in token_ids).strip(SPACE) + " "

    def translate(
        self,
        samples: Sequence[Sample],
        beam_size: int,
        max_tokens: int,
        processors: Sequence[Any] = (),
    ) -> list[TokenIds]:
        """The best translation of each sample, in one batch. Raises OriginalError.

        The samples have the same forced tokens, at most one.
        """
        token_ids = pad([sample.token_ids for sample in samples], self._pad_id)
        lengths = torch.tensor([len(sample.token_ids) for sample in samples])
        forced = samples[0].forced_ids
        with self.running(token_ids.shape[1]):
            found = self._model.generate(
                input_ids=token_ids,
                attention_mask=(torch.arange(token_ids.shape[1]) < lengths[:, None]).long(),
                num_beams=beam_size,
                max_new_tokens=max_tokens,
                forced_bos_token_id=forced[0] if forced else None,
                logits_processor=list(processors),
            )
        return [self._until_end(ids[1:]) for ids in found.tolist()]

    def trace(self, sample: Sample, beam_size: int, max_tokens: int) -> SearchTrace:
        """The search for one sample with the candidates of each step. Raises OriginalError."""
        recorder = BeamRecorder(beam_size, self._eos_id, normalizes=bool(self._left_out))
        (ids,) = self.translate([sample], beam_size, max_tokens, [recorder])
        best = ReferenceHypothesis(ids, ())
        return trace_of(best) if beam_size == 1 else SearchTrace([best], recorder.steps)

    def score(
        self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], beam_size: int
    ) -> list[list[float]]:
        """The value by which a search ranks each token of the targets. Raises OriginalError."""
        return [
            self._ranked(self._decode(source, target).logits[0], target, beam_size)
            for source, target in zip(sources, targets, strict=True)
        ]

    def run(
        self, source: Sequence[int], target: Sequence[int]
    ) -> tuple[list[FloatArray], list[float]]:
        """Cross-attention keys and values, and log-probabilities. Raises OriginalError."""
        output = self._decode(source, target)
        # The name of the field depends on the version.
        cache = output["cache"] if "cache" in output else output["past_key_values"]
        layers = cache.cross_attention_cache.layers
        states = [state.numpy() for layer in layers for state in (layer.keys, layer.values)]
        return states, _chosen(output.logits[0].log_softmax(-1), target).tolist()

    def _decode(self, source: Sequence[int], target: Sequence[int]) -> Any:
        """The output of the network, without the logits of tokens that are left out."""
        with self.running(len(source)):
            output = self._model(
                input_ids=torch.tensor([list(source)]),
                decoder_input_ids=torch.tensor([[self._start_id, *target[:-1]]]),
                use_cache=True,
            )
            output.logits[..., self._left_out] = -torch.inf
        return output

    def _ranked(self, logits: torch.Tensor, target: Sequence[int], beam_size: int) -> list[float]:
        """Log-probabilities of ``target`` after the repetition penalty of its earlier tokens."""
        log_p = _chosen(logits.log_softmax(-1), target)
        # A greedy search of `generate` penalizes logits, a beam search log-probabilities.
        values = _chosen(logits, target) if beam_size == 1 else log_p
        penalized = torch.where(values < 0, values * self._penalty, values / self._penalty)
        before = (self._start_id, *target)
        is_repeated = torch.tensor([token in before[: i + 1] for i, token in enumerate(target)])
        return torch.where(is_repeated, log_p + (penalized - values), log_p).tolist()

    def _until_end(self, ids: list[int]) -> TokenIds:
        return tuple(ids[: ids.index(self._eos_id) + 1] if self._eos_id in ids else ids)


def _chosen(scores: torch.Tensor, target: Sequence[int]) -> torch.Tensor:
    """The scores of the tokens of ``target``, one of each row."""
    return scores.gather(1, torch.tensor([list(target)]).T)[:, 0]


@torch.no_grad()
def _compute_positions(model: Any) -> None:
    """Replace tables of sinusoids in a checkpoint, which may be rounded to fp16, by exact ones."""
    for module in model.modules():
        if hasattr(module, "create_weight"):
            module.weight.copy_(module.create_weight())
