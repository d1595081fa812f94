"""Promise: an event that was acknowledged is in the store exactly once, whenever the server is killed (R1)."""
import random

import crash_rounds


def test_kill_9_at_random_instants_loses_and_repeats_nothing():
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    singles, elements = crash_rounds.run(20, seed)
    assert singles > 0 and elements > 0
