"""Causal language models in the original implementation, ``transformers``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from attendant_export.verify.agreement import TokenIds, trace_of
from attendant_export.verify.embedding import FloatArray
from attendant_export.verify.language_samples import Sample
from attendant_export.verify.original import IMPLEMENTATION, Original, OriginalError, is_installed
from attendant_export.verify.recorded_search import BeamRecorder
from attendant_export.verify.reference_search import ReferenceHypothesis, SearchTrace


class OriginalLanguageModel(Original):
    """A language model in the original implementation. Sources are prompts.

    It searches without the options of its checkpoint that also apply to the tokens of prompts.
    """

    default_beam_size = 1
    length_penalty = 1.0

    def __init__(self, folder: Path, eos_id: int, pad_id: int) -> None:
        """The end token and the padding are those of the bundle. Raises OriginalError."""
        super().__init__(folder, "AutoModelForCausalLM")
        if self._missing:
            raise OriginalError(
                f"{IMPLEMENTATION} {self.version} finds no weights for {self._missing[0]} in "
                f"{folder}"
            )
        self._set_tokens(eos_id, pad_id)

    def _set_tokens(self, eos_id: int, pad_id: int) -> None:
        import transformers

        self._eos_id, self._pad_id = eos_id, pad_id
        self._model.generation_config = transformers.GenerationConfig(
            eos_token_id=eos_id, pad_token_id=pad_id, do_sample=False
        )

    def sample_ids(self, sample: Sample) -> list[int] | None:
        """The token ids of a text, special tokens included."""
        return self.token_ids(sample.text)

    def translate(
        self,
        samples: Sequence[Sample],
        beam_size: int,
        max_tokens: int,
        processors: Sequence[Any] = (),
    ) -> list[TokenIds]:
        """The best continuation of each prompt, in one batch padded on the left.

        Raises OriginalError.
        """
        longest = max(len(sample.token_ids) for sample in samples)
        rows = [list(sample.token_ids) for sample in samples]
        padding = [longest - len(row) for row in rows]
        mask = torch.arange(longest) >= torch.tensor(padding)[:, None]
        with self.running(longest):
            found = self._model.generate(
                input_ids=torch.tensor(
                    [[self._pad_id] * n + row for n, row in zip(padding, rows, strict=True)]
                ),
                attention_mask=mask.long(),
                num_beams=beam_size,
                max_new_tokens=max_tokens,
                logits_processor=list(processors),
            )
        return [self._until_end(ids[longest:]) for ids in found.tolist()]

    def trace(self, sample: Sample, beam_size: int, max_tokens: int) -> SearchTrace:
        """The search for one prompt with the candidates of each step. Raises OriginalError."""
        recorder = BeamRecorder(
            beam_size, self._eos_id, normalizes=False, num_before=len(sample.token_ids)
        )
        (ids,) = self.translate([sample], beam_size, max_tokens, [recorder])
        best = ReferenceHypothesis(ids, ())
        return trace_of(best) if beam_size == 1 else SearchTrace([best], recorder.steps)

    def score(
        self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], beam_size: int
    ) -> list[list[float]]:
        """The log-probability of each token of continuations. Raises OriginalError."""
        pairs = zip(sources, targets, strict=True)
        return [self._log_probabilities(source, target)[0] for source, target in pairs]

    def run(
        self, source: Sequence[int], target: Sequence[int]
    ) -> tuple[list[FloatArray], list[float]]:
        """Keys and values of the prompt without its last token, and log-probabilities.

        Raises OriginalError.
        """
        values, cache = self._log_probabilities(source, target)
        num_past = len(source) - 1
        states = [
            state[:, :, :num_past].numpy()
            for layer in cache.layers
            for state in (layer.keys, layer.values)
        ]
        return states, values

    def _log_probabilities(
        self, source: Sequence[int], target: Sequence[int]
    ) -> tuple[list[float], Any]:
        """The log-probability of each token of a continuation, and the cache of all tokens."""
        text = [*source, *target]
        with self.running(len(text)):
            output = self._model(input_ids=torch.tensor([text[:-1]]), use_cache=True)
        log_p = output.logits[0, len(source) - 1 :].log_softmax(-1)
        chosen = log_p.gather(1, torch.tensor([list(target)]).T)[:, 0]
        return chosen.tolist(), output.past_key_values

    def _until_end(self, ids: list[int]) -> TokenIds:
        return tuple(ids[: ids.index(self._eos_id) + 1] if self._eos_id in ids else ids)


class LoadedLanguageModel(OriginalLanguageModel):
    """A network of the original implementation with given weights and without a tokenizer."""

    def __init__(
        self,
        family: str,
        fields: Mapping[str, Any],
        tensors: Mapping[str, torch.Tensor],
        eos_id: int,
        pad_id: int,
    ) -> None:
        """``fields`` are those of the configuration of a ``family``. Raises OriginalError.

        ``tensors`` have the names of the original, and a tied head has none.
        """
        if not is_installed():
            raise OriginalError(f"a comparison with the original needs {IMPLEMENTATION}")
        import transformers

        self.version = transformers.__version__
        try:
            config = transformers.AutoConfig.for_model(family, **fields)
            model: Any = transformers.AutoModelForCausalLM.from_config(config)
            missing, unexpected = model.load_state_dict(tensors, strict=False)
        except Exception as error:  # The library raises no narrower class.
            raise OriginalError(f"{IMPLEMENTATION} {self.version}: {error}") from error
        if unexpected or set(missing) - {"lm_head.weight"}:
            raise OriginalError(f"{IMPLEMENTATION} {self.version} lacks {missing} {unexpected}")
        self._model = model.eval()
        self._set_tokens(eos_id, pad_id)

    def sample_ids(self, sample: Sample) -> None:
        """None: there is no tokenizer to compare with."""
