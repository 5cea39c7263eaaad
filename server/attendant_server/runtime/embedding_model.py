"""The embedding model over ONNX Runtime."""

from collections.abc import Sequence

import numpy as np
from attendant_manifest.sizes import num_layers, sparse_dimension, text_dimension, token_dimension
from numpy.typing import NDArray

from attendant_server.bundles import Bundle
from attendant_server.engine.attention_calls import Attention
from attendant_server.engine.calls import TokenIds
from attendant_server.engine.encoder_calls import (
    LABEL_SCORES,
    SPARSE_VECTORS,
    TOKEN_VECTORS,
    MaskCandidates,
)
from attendant_server.runtime.attention_graph import AttentionGraph
from attendant_server.runtime.model_graphs import (
    MAX_TRIAL_TOKENS,
    NUM_TRIAL_TOKENS,
    CountedGraph,
    RunCounter,
    ThreadedGraph,
    trial_run,
)
from attendant_server.runtime.padding import pad
from attendant_server.runtime.signatures import check_interface


class OnnxEmbeddingModel:
    """A model of a BERT bundle; implements the engine's `EmbeddingModel`."""

    def __init__(
        self, bundle: Bundle, num_threads: int, device: str, run_counter: RunCounter
    ) -> None:
        """Load the graphs of ``bundle`` in its chosen precision.

        A run uses ``num_threads`` threads, or all threads of ``run_counter`` if it is the only run
        and that is faster. Raises ValueError or an error of ONNX Runtime for a graph that differs
        from the manifest or cannot run.
        """
        manifest = bundle.manifest
        self.num_layers = num_layers(manifest.architecture.encoder)
        self._last_hidden = f"hidden_{self.num_layers}"
        self._pad_id = manifest.special_tokens.pad_id
        self._num_prompt_tokens = (
            manifest.embedding.num_prompt_tokens
            if manifest.architecture.text_vectors.excludes_prompt
            else None
        )
        architecture = manifest.architecture
        self.vocab_size = architecture.source_embeddings.vocab_size
        self._widths = {
            "mean_pooled": ("architecture.text_vectors", text_dimension(architecture)),
            TOKEN_VECTORS: ("architecture.token_vectors", token_dimension(architecture)),
            LABEL_SCORES: ("classification.labels", len(manifest.classification.labels)),
        }
        """The field that states the width of an output, and that width."""
        self.reads_token_types = "first_lengths" in bundle.graphs.embedder.inputs
        self._has_unattended_tokens = architecture.token_vectors.has_unattended_tokens
        self._embedder = ThreadedGraph(
            bundle.graph_path("embedder"), num_threads, device, run_counter
        )
        self.mlm_head = (
            CountedGraph(bundle.graph_path("mlm_head"), num_threads, device, run_counter)
            if bundle.has_graph("mlm_head")
            else None
        )
        self._sparse_dimension = sparse_dimension(architecture)
        self._sparse_head = (
            ThreadedGraph(bundle.graph_path("sparse_head"), num_threads, device, run_counter)
            if self._sparse_dimension
            else None
        )
        self.attention: AttentionGraph | None = None
        if bundle.has_graph("attention"):
            self.attention = AttentionGraph(bundle, num_threads, device, run_counter)
        check_interface(self._embedder.shared, bundle.graphs.embedder)
        if self._sparse_head is not None:
            check_interface(self._sparse_head.shared, bundle.graphs.sparse_head)
        if self.mlm_head is not None:
            check_interface(self.mlm_head.shared, bundle.graphs.mlm_head)
        if device == "cpu":
            self._try_graphs(bundle.graphs.embedder.outputs, manifest.limits.max_tokens)
        self._keep_what_pays(min(NUM_TRIAL_TOKENS, manifest.limits.max_tokens))

    def _keep_what_pays(self, num_tokens: int) -> None:
        """Keep sessions for lone runs where they are faster, tried with a text of this length."""
        feeds = self._feeds([[self._pad_id] * num_tokens])
        self._embedder.keep_what_pays(lambda session: session.run(["mean_pooled"], feeds))
        if self._sparse_head is not None:
            (hidden,) = self._embedder.shared.run([self._last_hidden], feeds)
            sparse_feeds = {"hidden": hidden, "lengths": feeds["lengths"]}
            self._sparse_head.keep_what_pays(
                lambda session: session.run([SPARSE_VECTORS], sparse_feeds)
            )

    def _try_graphs(self, outputs: Sequence[str], max_tokens: int) -> None:
        """Run each graph, also with the longest text; raises ValueError if one cannot run."""
        with trial_run("embedder"):
            found = self.embed([[self._pad_id]], outputs)
            hidden = found[self._last_hidden]
        for name, (field, width) in self._widths.items():
            with trial_run("embedder", field):
                if name in found and found[name].shape[-1] != width:
                    raise ValueError(f"{name} has {found[name].shape[-1]} values, not {width}")
        if self._sparse_head is not None:
            with trial_run("sparse_head", "architecture.source_embeddings.vocab_size"):
                size = self._sparse_vectors(hidden, np.ones(1, np.int64)).shape[1]
                if size != self._sparse_dimension:
                    raise ValueError(f"it weighs {size} tokens, not {self._sparse_dimension}")
        with trial_run("embedder", "limits.max_tokens"):
            self._run_embedder_and_shrink(min(max_tokens, MAX_TRIAL_TOKENS))
        if self.mlm_head is not None:
            with trial_run("mlm_head"):
                self.fill(hidden[0], top_k=1)

    def embed(
        self,
        texts: Sequence[TokenIds],
        outputs: Sequence[str],
        first_lengths: Sequence[int] | None = None,
        attended_lengths: Sequence[int] | None = None,
        num_prompt_tokens: Sequence[int | None] | None = None,
    ) -> dict[str, NDArray[np.float32]]:
        """Run texts as one padded batch; pooled outputs (batch, d), hidden (batch, length, d).

        ``first_lengths`` are the numbers of tokens of type 0, ``attended_lengths`` of those that
        are attended to; None if all tokens are. ``num_prompt_tokens`` are the numbers of first
        tokens that poolings leave out; None for those of the default prompt.
        """
        feeds = self._feeds(texts, first_lengths, attended_lengths, num_prompt_tokens)
        names = list(outputs)
        if is_sparse := SPARSE_VECTORS in names:
            names.remove(SPARSE_VECTORS)
            names.append(self._last_hidden)
        with self._embedder.session() as session:
            arrays = session.run(names, feeds)
        found = dict(zip(names, arrays, strict=True))
        if is_sparse:
            vectors = self._sparse_vectors(found[self._last_hidden], feeds["lengths"])
            found[SPARSE_VECTORS] = vectors
        return found

    def _sparse_vectors(
        self, hidden: NDArray[np.float32], lengths: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Weights of tokens (batch, vocab) for last hidden states (batch, length, d)."""
        assert self._sparse_head is not None
        with self._sparse_head.session() as session:
            (vectors,) = session.run([SPARSE_VECTORS], {"hidden": hidden, "lengths": lengths})
        found: NDArray[np.float32] = vectors
        return found

    def _feeds(
        self,
        texts: Sequence[TokenIds],
        first_lengths: Sequence[int] | None = None,
        attended_lengths: Sequence[int] | None = None,
        num_prompt_tokens: Sequence[int | None] | None = None,
    ) -> dict[str, NDArray[np.int64]]:
        token_ids, lengths = pad(texts, self._pad_id)
        feeds = {"token_ids": token_ids, "lengths": lengths}
        if self.reads_token_types:
            feeds["first_lengths"] = (
                lengths if first_lengths is None else np.array(first_lengths, np.int64)
            )
        if self._has_unattended_tokens:
            feeds["attended_lengths"] = (
                lengths if attended_lengths is None else np.array(attended_lengths, np.int64)
            )
        if self._num_prompt_tokens is not None:
            default = self._num_prompt_tokens
            feeds["num_prompt_tokens"] = np.array(
                [
                    default if number is None else number
                    for number in num_prompt_tokens or [None] * len(texts)
                ],
                np.int64,
            )
        return feeds

    def fill(self, hidden: NDArray[np.float32], top_k: int) -> MaskCandidates:
        """The ``top_k`` likeliest tokens for hidden states (masks, d) of the last layer."""
        assert self.mlm_head is not None
        feeds = {"hidden": hidden, "top_k": np.array([top_k], dtype=np.int64)}
        names = ["candidate_ids", "candidate_probabilities"]
        with self.mlm_head.session() as session:
            token_ids, probabilities = session.run(names, feeds)
        return MaskCandidates(token_ids, probabilities)

    def attend(self, text: TokenIds) -> Attention:
        """The attention weights of one text."""
        assert self.attention is not None, "the application checks it"
        feeds = {"token_ids": text}
        if not self.reads_token_types:
            return self.attention.run(feeds)
        return self.attention.run(feeds, {"first_lengths": len(text)})

    def stop_runs(self) -> None:
        """Let the present runs raise soon. Any thread."""
        for graph in (self._embedder, self.mlm_head, self._sparse_head):
            if graph is not None:
                graph.stop_runs()
        if self.attention is not None:
            self.attention.stop_runs()

    def release_memory(self) -> None:
        """Release the working memory of runs, and close the attention graph."""
        if self.attention is not None:
            self.attention.close()
        if not self._embedder.can_shrink:
            return
        self._run_embedder_and_shrink(num_tokens=1)
        if self.mlm_head is None and self._sparse_head is None:
            return
        (hidden,) = self.embed([[self._pad_id]], [self._last_hidden]).values()
        if self.mlm_head is not None:
            head_feeds = {"hidden": hidden[0], "top_k": np.array([1], dtype=np.int64)}
            self.mlm_head.shrink(lambda session: session.run(["candidate_ids"], head_feeds))
        if self._sparse_head is not None:
            sparse_feeds = {"hidden": hidden, "lengths": np.ones(1, np.int64)}
            self._sparse_head.shrink(lambda session: session.run([SPARSE_VECTORS], sparse_feeds))

    def _run_embedder_and_shrink(self, num_tokens: int) -> None:
        """Run one text of this many tokens and release the working memory."""
        feeds = self._feeds([[self._pad_id] * num_tokens])
        self._embedder.shrink(lambda session: session.run([self._last_hidden], feeds))
