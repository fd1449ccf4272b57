"""The SSH wire format (RFC 4251, section 5), read strictly: every length exact, every integer in its shortest form."""


class WireError(ValueError):
    """The bytes are not what the SSH wire format allows here; the text says which part."""


class Reader:
    """Reads one SSH structure from front to back."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int, what: str) -> bytes:
        """Return the next `count` bytes; raises WireError when there are fewer."""
        end = self._at + count
        if end > len(self._data):
            raise WireError(f"{what} is cut off")
        piece = self._data[self._at : end]
        self._at = end
        return piece

    def uint32(self, what: str) -> int:
        """Return a 32-bit unsigned integer."""
        return int.from_bytes(self.take(4, what), "big")

    def string(self, what: str) -> bytes:
        """Return a length-prefixed byte string."""
        return self.take(self.uint32(what), what)

    def text(self, what: str) -> str:
        """Return a length-prefixed string of printable ASCII."""
        value = self.string(what)
        if not all(0x20 < byte < 0x7F for byte in value):
            raise WireError(f"{what} is not printable ASCII")
        return value.decode("ascii")

    def positive(self, what: str) -> int:
        """Return a multiple precision integer that must be greater than zero and in its shortest form."""
        value = self.string(what)
        if not value or value[0] & 0x80:
            raise WireError(f"{what} is not a positive number")
        if value[0] == 0 and (len(value) == 1 or not value[1] & 0x80):
            raise WireError(f"{what} is not in its shortest form")
        return int.from_bytes(value, "big")

    def end(self, what: str) -> None:
        """Raise WireError when bytes are left over."""
        if self._at != len(self._data):
            raise WireError(f"{what} has {len(self._data) - self._at} bytes too many")


def string(value: bytes) -> bytes:
    """Return a byte string with its length in front."""
    return len(value).to_bytes(4, "big") + value
