"""Tables, pictures and the page: reads what runs and benchmarks left, and trains nothing."""
