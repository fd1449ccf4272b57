"""For all tests: generated cases are the same in every run; `--hypothesis-profile=random` looks for others."""

from hypothesis import settings

settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("random", deadline=None)
settings.load_profile("same")
