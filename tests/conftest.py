"""Settings of all tests."""

import os

from hypothesis import settings

# The same examples each time, so that a change is judged by what it changes. `T2_CHANCE=1` draws new ones.
settings.register_profile("t2", deadline=None, derandomize="T2_CHANCE" not in os.environ)
settings.load_profile("t2")
