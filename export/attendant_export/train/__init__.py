"""Training: the loop, the tasks, and training in several processes."""
