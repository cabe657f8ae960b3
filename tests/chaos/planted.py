"""Known bugs, planted into the running code by the harness alone, which it has to find."""

from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Bug:
    """One bug: where it is put, and what is put there in place of what.

    Attributes:
        owner: Class or module whose attribute is replaced.
        name: That attribute.
        make: Makes the broken one from the right one.
    """

    owner: object
    name: str
    make: object

    def plant(self):
        """Put it in for the rest of the process; returns what takes it out again."""
        right = getattr(self.owner, self.name)
        setattr(self.owner, self.name, self.make(right))
        return lambda: setattr(self.owner, self.name, right)

    @contextmanager
    def planted(self):
        """Put it in until the block ends."""
        take_out = self.plant()
        try:
            yield
        finally:
            take_out()


PLANTED: dict[str, Bug] = {}
