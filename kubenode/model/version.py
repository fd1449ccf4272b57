"""Release versions: dotted numbers such as 2026.11.2, compared number by number."""

import re
from dataclasses import dataclass
from functools import cached_property, total_ordering

PATTERN = r"^(0|[1-9][0-9]{0,5})(\.(0|[1-9][0-9]{0,5})){1,3}$"
_PATTERN = re.compile(PATTERN)


@total_ordering
@dataclass(frozen=True)
class Version:
    """A release version; two to four numbers, ordered as systemd-boot orders them (UAPI version format)."""

    text: str

    def __post_init__(self) -> None:
        """Raise ValueError when `text` is not two to four dotted numbers without leading zeros."""
        if not _PATTERN.fullmatch(self.text):
            raise ValueError(f"{self.text!r} is not a version such as 2026.11.2")

    @cached_property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of the version, most significant first."""
        return tuple(int(part) for part in self.text.split("."))

    def __lt__(self, other: "Version") -> bool:
        return self.numbers < other.numbers

    def __str__(self) -> str:
        return self.text
