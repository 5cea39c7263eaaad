"""KServe's protocol version 2 with Triton's extensions: tensors to requests, answers to tensors."""
