"""Connect and gRPC-Web: the methods of attendant.v1 for browsers and scripts."""
