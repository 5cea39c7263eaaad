"""The protocol of OpenAI: models, embeddings and completions."""
