"""Decides which states an engine keeps, and finds what is known of a new prompt."""

from charlstm.serving.prompt_cache import LEAST_LENGTH, Column, PromptCache
from charlstm.serving.sequences import Sequence

# While a long prompt is read, its state is kept each time that it has grown by this share.
GROWTH = 1 / 16


class Memory:
    """Keeps the states of texts that were read.

    Args:
      max_bytes: of all of them together; 0 keeps none.
    """

    def __init__(self, max_bytes: int):
        self._cache = PromptCache(max_bytes)

    @property
    def num_bytes(self) -> int:
        """The memory that the states take, in bytes."""
        return self._cache.num_bytes

    def helps(self, text: Sequence) -> bool:
        """Returns True if a text need not read its prompt once another one has read the same."""
        is_long = len(text.wish.prompt) >= LEAST_LENGTH
        return is_long and self._cache.keeps and not text.wish.of_prompt and text.column is None

    def known(self, text: Sequence, kind: int) -> Column | None:
        """Returns what is known of a text that gets a place, and marks it as read.

        Args:
          text: new, or with the state that it had when it lost its place.
          kind: see `PromptCache.longest`.
        """
        if text.column is not None:
            column, text.column = text.column, None
            return column
        found = None if text.wish.of_prompt else self._cache.longest(text.wish.prompt, kind)
        if found is None:
            return None
        text.num_read = text.remembered = found[0]
        return found[1]

    def wants(self, text: Sequence, has_ended: bool) -> bool:
        """Returns True if the state of a text is to be kept: at its ends, and now and then."""
        if not self._cache.keeps or (text.num_drawn and not has_ended):
            return False
        grown = text.length * GROWTH if text.prompt_left else 0
        return text.length - text.remembered >= max(LEAST_LENGTH, grown)

    def keep(self, text: Sequence, column: Column, kind: int) -> None:
        """Keeps the state of a text, if enough of it is new."""
        if self._cache.keeps and text.length - text.remembered >= LEAST_LENGTH:
            text.remembered = text.length
            self._cache.put(text.symbols(), column, kind)
