"""Experiments: recipes, the runner that carries them out, and the probes of a finished run."""
