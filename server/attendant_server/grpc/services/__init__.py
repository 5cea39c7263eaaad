"""The gRPC services: protobuf in, engine calls out, protobuf back. Nothing is computed here."""
