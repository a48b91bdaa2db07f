"""Commands of the README, so that tests can run them as they stand."""

import re
import shlex

from token_geometry.base import project


def commands(*beginning: str) -> list[list[str]]:
    """Words of every command that begins with these words, in the order of the README."""
    text = (project.root() / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
    lines = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    return [words for words in lines if words and tuple(words[: len(beginning)]) == beginning]
