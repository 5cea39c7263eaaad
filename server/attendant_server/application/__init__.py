"""The methods of the server, independent of transport: dataclasses for requests and answers."""
