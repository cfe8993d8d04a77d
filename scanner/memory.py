"""What was judged before: the questions that the pipeline asks, in the order in which it can ask them.

    expected -> fetch (-> confirm) -> recall -> decode -> recall_decoded -> score -> judge -> remember

One reason: the pipeline saves the work that a remembered verdict spares without knowing where verdicts are kept, nor
how two media are held to be the same (`scanner.cache.recall` does).
"""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from scanner.cache.validators import Validators
    from scanner.contract import Verdict
    from scanner.decoding.decode import Decoded
    from scanner.fetching.fetch import Fetched


class Memory(Protocol):
    """Verdicts of other scans, by one model.

    What is recalled has `cache` filled. A memory is a help and never a condition: one that cannot be reached says so in
    the log, recalls nothing and raises nothing.
    """

    async def expected(self, source: str) -> "tuple[Validators, Verdict] | None":
        """The verdict that holds if the server of `source` says that nothing changed, and what to ask it with."""

    async def confirm(self, source: str) -> None:
        """The server of `source` said that nothing changed: what was `expected` holds as from now."""

    async def recall(self, fetched: "Fetched") -> "Verdict | None":
        """The verdict on these very bytes."""

    async def recall_decoded(self, fetched: "Fetched", decoded: "Decoded") -> "Verdict | None":
        """The verdict on these very pixels, or on a picture that differs in nothing that matters."""

    async def remember(self, fetched: "Fetched", decoded: "Decoded", verdict: "Verdict") -> None:
        """Keep a fresh verdict for those who ask next."""
