"""The gRPC services: convert protobuf messages to application requests, and answers back."""
