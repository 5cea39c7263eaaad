"""The graphs of a translation bundle, and the caches of sentences that are searched with them.

Owns the sessions and all that is bound to them. Knows token ids only, no text and no search.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from attendant.v1.bundle_pb2 import Graph, PrecisionGraphs, SpecialTokens, TranslationSizes
from numpy.typing import NDArray

Array = NDArray[np.generic]
GREEDY_STEPS = "greedy_steps"
"""The graph that decodes several tokens in a run, for sentences of one row each."""
GREEDY_STEP = "greedy_step"
"""The graph that decodes one, for sentences of one row each."""
DECODER_STEP = "decoder_step"
"""The graph that decodes one, for sentences of any number of rows."""
SHORTLIST = "shortlist_"
"""What the names of graphs that choose from shortlists begin with."""
STEPS = (
    GREEDY_STEPS,
    GREEDY_STEP,
    DECODER_STEP,
    SHORTLIST + GREEDY_STEPS,
    SHORTLIST + DECODER_STEP,
)


class ParityError(ValueError):
    """The graphs do not do what the model does, or not the same in every batch."""


def check_finite(name: str, values: Array) -> None:
    """Raise ParityError unless all ``values`` are numbers: no comparison would notice a NaN."""
    if not np.isfinite(values).all():
        raise ParityError(f"{name} gives values that are not finite numbers")


def open_session(folder: Path, graph: Graph) -> ort.InferenceSession:
    """Open one graph of a bundle's folder on the CPU."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # Waiting threads that spin slow down everything else on a busy machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    path = str(folder / graph.path)
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def pad(sequences: Sequence[Sequence[int]], pad_id: int) -> NDArray[np.int64]:
    """Right-pad token ids to one (batch, longest) array."""
    padded = np.full((len(sequences), max(map(len, sequences))), pad_id, np.int64)
    for row, ids in zip(padded, sequences, strict=True):
        row[: len(ids)] = ids
    return padded


class TranslationGraphs:
    """The graphs of one precision of a translation bundle."""

    def __init__(
        self,
        folder: Path,
        graphs: PrecisionGraphs,
        sizes: TranslationSizes,
        special_tokens: SpecialTokens,
    ) -> None:
        self.sizes, self.special_tokens = sizes, special_tokens
        self.cache_type = np.float16 if graphs.name == "fp16" else np.float32
        self.encoder = open_session(folder, graphs.encoder)
        self.steps = {
            name: open_session(folder, getattr(graphs, name))
            for name in STEPS
            if getattr(graphs, name).path  # Bundles of older versions have decoder_step alone.
        }
        self.scorer = open_session(folder, graphs.scorer)
        layers = range(sizes.num_decoder_layers)
        self.cross_names = [f"cross_{kind}_{i}" for i in layers for kind in ("key", "value")]
        self.cache_names = [f"{kind}_{i}" for i in layers for kind in ("key", "value")]

    @property
    def has_shortlists(self) -> bool:
        """Whether there are graphs that choose from shortlists."""
        return SHORTLIST + DECODER_STEP in self.steps

    def steps_for(self, beam_size: int, uses_shortlists: bool = False) -> list[str]:
        """The graphs that can do the steps of a search, first the one that a CPU uses.

        With ``uses_shortlists`` those that choose from them, otherwise all.
        """
        return [
            name
            for name in self.steps
            if (beam_size == 1 or name.endswith(DECODER_STEP))
            and (name.startswith(SHORTLIST) or not uses_shortlists)
        ]

    def num_step_tokens(self, step: str) -> int:
        """Tokens that one run of the graph ``step`` decodes for each row."""
        if not step.endswith(GREEDY_STEPS):
            return 1
        (ids,) = (o for o in self.steps[step].get_outputs() if o.name == "candidate_ids")
        return int(ids.shape[1])

    def encode(self, sources: Sequence[Sequence[int]]) -> list[Array]:
        """Cross-attention keys and values of each layer, (batch, heads, source, head_dim) each."""
        return self._run_encoder(self.cross_names, sources)

    def shortlists(self, sources: Sequence[Sequence[int]]) -> Array:
        """The target tokens, not all different, that each source may become: (batch, listed)."""
        (listed,) = self._run_encoder(["shortlist"], sources)
        return listed

    def _run_encoder(self, names: list[str], sources: Sequence[Sequence[int]]) -> list[Array]:
        inputs = {
            "source": pad(sources, self.special_tokens.pad_id),
            "source_lengths": np.array([len(s) for s in sources]),
        }
        # Looking up shortlists must not encode.
        options = ort.RunOptions()
        options.only_execute_path_to_fetches = True
        return list(self.encoder.run(names, inputs, options))

    def score(
        self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        """Log-probability of every token of each target, teacher-forced in one padded batch."""
        pad_id, bos_id = self.special_tokens.pad_id, self.special_tokens.bos_id
        inputs = {
            "target_in": pad([[bos_id, *t[:-1]] for t in targets], pad_id),
            "target_out": pad(targets, pad_id),
            "source_lengths": np.array([len(s) for s in sources]),
            **dict(zip(self.cross_names, self.encode(sources), strict=True)),
        }
        (log_p,) = self.scorer.run(["log_probabilities"], inputs)  # (batch, target)
        rows = [row[: len(t)] for row, t in zip(log_p, targets, strict=True)]
        check_finite("scorer", np.concatenate(rows))
        return [row.tolist() for row in rows]
