"""What client, server, worker and runtime say to each other: identifiers, frames, messages, limits.

Standard library only, no I/O, Python 3.10 and later; everything here may be imported inside a user's environment.
"""
