"""The host: /proc and signals, other processes' descriptors and memory, the Docker engine."""
