"""How a picture looks: rich's terminal window without its web fonts, so that no viewer asks another server.

Spaces at the beginning of a line are kept by every viewer, not only by browsers.
"""

import re

from rich._export_format import CONSOLE_SVG_FORMAT

_WEB_FONT = re.compile(r"\s*@font-face \{\{.*?\}\}", re.DOTALL)
FORMAT = _WEB_FONT.sub("", CONSOLE_SVG_FORMAT).replace("Fira Code", "Fira Code, DejaVu Sans Mono, Menlo, Consolas")
FORMAT = FORMAT.replace("<svg ", '<svg xml:space="preserve" ', 1)
