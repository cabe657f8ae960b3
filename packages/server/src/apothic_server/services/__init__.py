"""Use cases. Every public function takes the Actor first; no SQL text, no HTTP."""
