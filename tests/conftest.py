"""Settings of all tests."""

import signal

from hypothesis import settings

# Started in the background, a test run may ignore Ctrl-C, and so would the processes that the
# tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Time limits per example would fail on a busy machine; a failure prints how to repeat it.
settings.register_profile("qblock", deadline=None, print_blob=True)
settings.load_profile("qblock")
