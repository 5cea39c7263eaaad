"""The system that the server runs on: processors, memory, control groups, standard streams."""
