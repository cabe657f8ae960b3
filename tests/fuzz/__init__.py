"""Random bytes for everything that reads what others wrote: only the documented errors may come out.

`python -m tests.fuzz` runs all targets under Atheris, which lets the code's branches guide it; the test suite runs them
with a mutator of our own and fixed seeds.
"""
