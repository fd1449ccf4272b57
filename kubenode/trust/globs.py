"""Path patterns of the trust policy: like .gitignore's, but always anchored at the top of the repo, and no more.

`*` and `?` stay inside one path part, `**` stands for any number of whole parts. There are no negations, classes or
escapes, and upper and lower case differ. Matching takes polynomial time whatever the pattern.
"""

from dataclasses import dataclass

MAX_PATTERN = 256


@dataclass(frozen=True)
class Glob:
    """A checked pattern; make one with `Glob.parse`."""

    pattern: str
    parts: tuple[str, ...]

    @classmethod
    def parse(cls, pattern: str) -> "Glob":
        """Check a pattern; raises ValueError with the reason, meant for people."""
        if not pattern or len(pattern) > MAX_PATTERN:
            raise ValueError(f"a pattern has 1 to {MAX_PATTERN} characters")
        if pattern.startswith("/"):
            raise ValueError("patterns start at the top of the repo by themselves; remove the leading `/`")
        if pattern.endswith("/"):
            raise ValueError(f"write `{pattern}**` for everything inside the folder")
        if pattern.startswith("!"):
            raise ValueError("negations are not supported; put a more special rule first")
        for sign in "[]{}\\":
            if sign in pattern:
                raise ValueError(f"`{sign}` has no meaning here; use only `*`, `?` and `**`")
        parts = tuple(pattern.split("/"))
        for before, part in zip(("", *parts), parts, strict=False):
            if part in ("", ".", ".."):
                raise ValueError("`//`, `.` and `..` are not allowed in a pattern")
            if "**" in part and part != "**":
                raise ValueError("`**` must stand alone between slashes, as in `a/**/b`")
            if part == before == "**":
                raise ValueError("`**/**` means the same as `**`")
        return cls(pattern, parts)

    def matches(self, path: str) -> bool:
        """Say whether the pattern matches a path of the repo (without leading slash)."""
        names = path.split("/")
        # reached[i]: the names read so far are matched by the first i parts of the pattern.
        reached = self._skip([True] + [False] * len(self.parts))
        for name in names:
            step = [False] * (len(self.parts) + 1)
            for index, part in enumerate(self.parts):
                if part == "**":
                    # `a/**` means everything inside a, not a itself: the last `**` takes at least one name.
                    step[index + 1] = step[index + 1] or reached[index] or reached[index + 1]
                    step[index] = step[index] or reached[index]
                elif reached[index] and _part_matches(part, name):
                    step[index + 1] = True
            reached = self._skip(step)
            if not any(reached):
                return False
        return reached[-1]

    def _skip(self, reached: list[bool]) -> list[bool]:
        """Let a `**` that is not the last part stand for no name at all."""
        for index, part in enumerate(self.parts[:-1]):
            if part == "**" and reached[index]:
                reached[index + 1] = True
        return reached

    def __str__(self) -> str:
        return self.pattern


def _part_matches(part: str, name: str) -> bool:
    """Match one path part with `*` and `?`, going back only to the last `*`."""
    at = 0
    star = -1
    resume = 0
    index = 0
    while index < len(name):
        if at < len(part) and part[at] == "*":
            star, resume = at, index
            at += 1
        elif at < len(part) and part[at] in ("?", name[index]):
            at += 1
            index += 1
        elif star >= 0:
            at = star + 1
            resume += 1
            index = resume
        else:
            return False
    return all(sign == "*" for sign in part[at:])
