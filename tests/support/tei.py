"""The stubs of Text Embeddings Inference."""

from typing import Any

from attendant_vendored.tei import tei_pb2_grpc


class TeiStubs:
    """The stubs of all services of TEI."""

    def __init__(self, channel: Any) -> None:
        self.info: Any = tei_pb2_grpc.InfoStub(channel)
        self.embed: Any = tei_pb2_grpc.EmbedStub(channel)
        self.predict: Any = tei_pb2_grpc.PredictStub(channel)
        self.rerank: Any = tei_pb2_grpc.RerankStub(channel)
        self.tokenize: Any = tei_pb2_grpc.TokenizeStub(channel)
