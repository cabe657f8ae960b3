"""The worker link: frames in and out of a WebSocket. Prose: `docs/reference/worker-link.md`."""
