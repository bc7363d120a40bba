"""How good a model is when it runs free: from a cold start, on its own memory, with no teacher."""
