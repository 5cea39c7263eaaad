"""The batching engine: token ids in, token ids and arrays out.

It knows no tokenizer, protobuf, gRPC, metrics library or model runtime; it imports the standard
library, numpy and the error classes only. Models, clock and limits come in through constructors.
"""
