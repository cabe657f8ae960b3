"""The operations face: health, readiness, metrics."""
