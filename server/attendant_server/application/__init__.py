"""The methods of the server, independent of transport: plain requests in, plain answers out."""
