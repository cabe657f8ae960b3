"""A pytest plugin for property tests: an example has no limit of time, for a busy machine is no fault of the code."""

from hypothesis import settings

settings.register_profile("apothic", deadline=None)
settings.load_profile("apothic")
