"""Rules that no single document's schema can express; each function yields the problems of one subject.

In: a `Reading` with the sound documents. Out: problems. A check stays silent about what is not in the reading: the
reason for that is a problem already, and one mistake gives one problem.
"""
