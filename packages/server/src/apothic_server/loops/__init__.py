"""Background loops: each re-reads the world on a timer or a hint and does one idempotent step."""
