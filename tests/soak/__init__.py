"""The soak: runs are killed and resumed for minutes. See `make soak`."""
