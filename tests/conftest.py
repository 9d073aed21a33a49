"""Settings of all tests."""

from hypothesis import settings

# Time limits per example would fail on a busy machine; a failure prints how to repeat it.
settings.register_profile("qblock", deadline=None, print_blob=True)
settings.load_profile("qblock")
