"""Writes every generated page, and removes those whose command is gone."""

import sys

from docs.generate.pages import DOCS, OWNED, pages


def main() -> None:
    """Write what differs and say what was written."""
    wanted = pages()
    for name, text in wanted.items():
        path = DOCS / name
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            print(f"wrote docs/{name}", file=sys.stderr)
    for folder in OWNED:
        for path in (DOCS / folder).iterdir():
            if path.relative_to(DOCS).as_posix() not in wanted:
                path.unlink()
                print(f"removed {path.relative_to(DOCS.parent)}", file=sys.stderr)


if __name__ == "__main__":
    main()
