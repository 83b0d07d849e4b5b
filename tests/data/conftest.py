"""What the tests of data share: how a refusal must read."""

import pytest

from lowerbound.data import load_rows
from lowerbound.errors import InputError


@pytest.fixture
def refused():
    """Check that loading is refused in one short line that holds all the given words."""

    def check(spec, *words, **options):
        with pytest.raises(InputError) as caught:
            load_rows(spec, **options)
        message = str(caught.value)
        assert "\n" not in message
        assert len(message) <= 300, message
        for word in words:
            assert str(word) in message, message
        return message

    return check
