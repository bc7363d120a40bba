"""The soak: training and serving are killed for minutes. See `make soak`."""
