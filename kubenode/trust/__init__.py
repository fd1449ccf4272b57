"""Evidence in, trusted values out: signed commits, the trust policy, and who built a release.

In: bytes that `host` read (commit objects, changed paths, trees, bundles). Out: `TrustedCommit`, `TrustedTree` and
verified releases, which only this package can construct, or `Untrusted` with a stable `Reason`. Nothing here reads a
file, a clock, a socket or git: the same evidence gives the same verdict everywhere.
"""
