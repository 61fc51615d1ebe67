"""Killed runs resume to the same bits; tests/kill.py does this for many more moments."""

import random

import pytest

from tests import kill


@pytest.mark.parametrize("variant", ["sgd, moving average, two workers"])
def test_a_run_killed_at_three_moments_ends_with_the_same_bits(tmp_path, variant):
    done, problems = kill.compare(tmp_path, variant, 3, random.Random(1))
    assert not problems and done
