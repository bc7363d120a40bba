"""How fast, and in how much memory: our models beside others of the same size, and beside two floors."""
