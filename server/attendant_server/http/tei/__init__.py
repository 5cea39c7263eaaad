"""The HTTP routes of Text Embeddings Inference, over the embedding models."""
