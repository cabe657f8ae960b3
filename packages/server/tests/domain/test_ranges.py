"""Sets of items as ranges."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from apothic_server.domain.ranges import Ranges


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30), st.integers(0, 8)), max_size=40))
def test_ranges_hold_what_a_set_holds(steps):
    ranges, model = Ranges(), set()
    for is_added, begin, length in steps:
        items = set(range(begin, begin + length))
        if not is_added:
            ranges.remove(begin, begin + length)
            model -= items
        elif not items & model:
            ranges.add(begin, begin + length)
            model |= items

        found = list(ranges)
        assert {item for low, high in found for item in range(low, high)} == model
        assert all(low < high for low, high in found)
        assert all(before[1] < after[0] for before, after in pairwise(found))
        assert ranges.items == len(model)
        for item in range(40):
            assert ranges.next_from(item) == min((other for other in model if other >= item), default=None)
            parts = ranges.within([(item, item + 6), (max(0, item - 9), item - 7), (item + 4, item + 8)])
            asked = {*range(item, item + 8), *range(max(0, item - 9), item - 7)}
            assert [number for low, high in parts for number in range(low, high)] == sorted(asked & model)
