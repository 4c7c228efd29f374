import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.abi import counting
from aios.abi.counting import count_values


@pytest.mark.parametrize(("few", "n_counted"), [(0, 2), (7, 2), (8, 8), (9, 8)])
def test_marks_in_strings_count_only_if_all_are_few(few: int, n_counted: int) -> None:
    assert count_values(json.dumps({"a": "[],{}:,,"}).encode(), few) == n_counted


@given(st.binary(max_size=200) | st.text('"\\a[', max_size=60).map(str.encode))
def test_strings_are_left_out_in_stretches_as_at_once(body: bytes) -> None:
    few = counting._STRETCH.pattern.replace(b"1024", b"2").replace(b"64", b"1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "_STRETCH", re.compile(few, re.DOTALL))
        patch.setattr(
            counting,
            "_PIECE",
            re.compile(counting._PIECE.pattern.replace(b"65536", b"2"), re.DOTALL),
        )
        assert counting.without_strings(body) == counting._STRING.sub(b"", body)
