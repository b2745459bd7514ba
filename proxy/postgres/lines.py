"""What the files of the login have in common: mistakes are told by line number, and all of them at once.

No sentence repeats what stands in a file: it may be a secret, or another file than was meant.
"""

from collections.abc import Iterable


class WrongLines(ValueError):
    """``found`` holds (line number from 1, sentence) for each line that is wrong."""

    def __init__(self, found: Iterable[tuple[int, str]]) -> None:
        self.found = list(found)
        super().__init__("; ".join(self.sentences()))

    def sentences(self) -> list[str]:
        """One sentence for each line."""
        return [f"line {number}: {sentence}" for number, sentence in self.found]
