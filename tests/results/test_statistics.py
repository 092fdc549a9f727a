import math

import pytest

from lmms_tokendrop.results.statistics import mean_and_stderr


def test_mean_and_standard_error():
    assert mean_and_stderr([1.0, 0.0, 1.0, 0.0]) == (0.5, pytest.approx((1 / 3 / 4) ** 0.5))
    assert math.isnan(mean_and_stderr([1.0])[1])
