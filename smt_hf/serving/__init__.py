"""What stands before the OpenAI-compatible server of `transformers`: who may ask, what, and how much."""
