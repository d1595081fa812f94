"""Promise: an event that was acknowledged is in the store exactly once, whenever the server is killed (R1)."""
import random

import pytest

import crash_rounds


@pytest.mark.seconds(45)
def test_kill_9_at_random_instants_loses_and_repeats_nothing():
    check_rounds(20)


@pytest.mark.long
def test_kill_9_ten_times_as_often():
    check_rounds(200)


def check_rounds(count):
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    singles, elements = crash_rounds.run(count, seed)
    assert singles > 0 and elements > 0
