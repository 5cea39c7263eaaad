"""The gRPC front door: requests in, application calls, responses out."""
