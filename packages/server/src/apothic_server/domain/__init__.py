"""Values, rules and decisions. No I/O, no clocks, no randomness, no framework types."""
