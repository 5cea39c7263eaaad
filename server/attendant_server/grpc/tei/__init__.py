"""The gRPC services of Text Embeddings Inference, `tei.v1`, over the embedding models."""
