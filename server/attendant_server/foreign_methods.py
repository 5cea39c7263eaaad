"""The methods of other protocols, with the method of attendant.v1 that does the work of each.

Permissions, metrics and limits of a foreign method are those of the method of attendant.v1.
"""

from collections.abc import Mapping

KSERVE = "inference.GRPCInferenceService"
"""The service of KServe's protocol version 2, with the extensions of Triton."""
TEI = "tei.v1."
"""The package of Text Embeddings Inference."""

HTTP = "http"
"""The service of HTTP whose methods are health checks and descriptions of the server."""
OPENAI, LIBRETRANSLATE, TEI_HTTP = "http.openai", "http.libretranslate", "http.tei"
PAGE = "http.page"
"""Services of HTTP."""

ANY_CALLER = ""
"""Needs no permission: tells nothing of models, or does nothing."""
CHOSEN_LATER = ""
"""The front door finds the operation in the request, and checks the permission for it."""
PROBES = frozenset({"ServerLive", "ServerReady", "ModelReady"})
"""Methods of `KSERVE` that are health checks."""
INTERACTIVE_STREAMS = frozenset({"ModelStreamInfer"})
"""Streams of requests for whose answers somebody waits."""

OPERATIONS: Mapping[str, Mapping[str, str]] = {
    KSERVE: {
        "ServerLive": ANY_CALLER,
        "ServerReady": ANY_CALLER,
        "ModelReady": ANY_CALLER,  # says no more of a forbidden model than of one that is missing
        "ServerMetadata": ANY_CALLER,
        "ModelMetadata": "GetModel",
        "ModelConfig": "GetModel",
        "ModelInfer": CHOSEN_LATER,
        "ModelStreamInfer": CHOSEN_LATER,
        "ModelStatistics": "ListModels",
        "RepositoryIndex": "ListModels",
        "RepositoryModelLoad": "LoadModel",
        "RepositoryModelUnload": "UnloadModel",
        "SystemSharedMemoryStatus": ANY_CALLER,
        "SystemSharedMemoryRegister": ANY_CALLER,
        "SystemSharedMemoryUnregister": ANY_CALLER,
        "CudaSharedMemoryStatus": ANY_CALLER,
        "CudaSharedMemoryRegister": ANY_CALLER,
        "CudaSharedMemoryUnregister": ANY_CALLER,
        "TraceSetting": ANY_CALLER,
        "LogSettings": ANY_CALLER,
    },
    f"{TEI}Info": {"Info": "GetModel"},
    f"{TEI}Embed": {
        "Embed": "Embed",
        "EmbedStream": "Embed",
        "EmbedSparse": "EmbedSparse",
        "EmbedSparseStream": "EmbedSparse",
        "EmbedAll": "EmbedTokens",
        "EmbedAllStream": "EmbedTokens",
    },
    f"{TEI}Predict": {
        "Predict": "Classify",
        "PredictPair": "Classify",
        "PredictStream": "Classify",
        "PredictPairStream": "Classify",
    },
    f"{TEI}Rerank": {"Rerank": "Rerank", "RerankStream": "Rerank"},
    f"{TEI}Tokenize": {
        "Tokenize": "Tokenize",
        "TokenizeStream": "Tokenize",
        "Decode": "Tokenize",
        "DecodeStream": "Tokenize",
    },
    OPENAI: {
        "ListModels": "ListModels",
        "RetrieveModel": "GetModel",
        "CreateEmbedding": "Embed",
        "CreateCompletion": CHOSEN_LATER,
    },
    LIBRETRANSLATE: {
        "Translate": "Translate",
        "Languages": "ListModels",
        "Detect": "DetectLanguage",
        "FrontendSettings": ANY_CALLER,
    },
    TEI_HTTP: {
        "Embed": "Embed",
        "EmbedAll": "EmbedTokens",
        "EmbedSparse": "EmbedSparse",
        "Predict": "Classify",
        "Rerank": "Rerank",
        "Tokenize": "Tokenize",
        "Decode": "Tokenize",
        "Info": "GetModel",
    },
    PAGE: {"Statistics": "ListModels"},
}
"""The method of attendant.v1 for each method, by service."""
