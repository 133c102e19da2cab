"""Settings of hypothesis: the same examples in every run, and no folder of its own beside the tests. And Ctrl-C."""

import signal

from hypothesis import settings

settings.register_profile("jostle", deadline=None, derandomize=True, database=None, max_examples=60)
settings.load_profile("jostle")

# Shells start what is to run in the background with SIGINT ignored, which children inherit: those of the tests too.
signal.signal(signal.SIGINT, signal.default_int_handler)
