"""Settings of hypothesis: the same examples in every run, and no folder of its own beside the tests."""

from hypothesis import settings

settings.register_profile("jostle", deadline=None, derandomize=True, database=None, max_examples=60)
settings.load_profile("jostle")
