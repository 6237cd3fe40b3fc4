"""How a fix is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from saledit.errors import UserError
from saledit.run.fixes.guarding import Bounds


@dataclass(frozen=True, slots=True)
class FixOptions:
    """How ``fix`` goes about it.

    Attributes:
        check: data file of samples that must stay right; None for those kept by ``fit``.
        format: delta, merged or lora; None for that of the folder, delta where it is new.
        rank: of a LoRA adapter at most; 0 for as many terms as the edits have.
        bounds: what the edit has to keep.
        part: where it does not, write the largest part that does.
        stream: leave the model's weights on disk, whatever the run did.
        settings: ``key=value`` of how the edit is made, e.g. ``editor.looks=3``.
    """

    check: str | None = None
    format: str | None = None
    rank: int = 0
    bounds: Bounds = field(default_factory=Bounds)
    part: bool = False
    stream: bool = False
    settings: Sequence[str] = ()

    def verify(self) -> None:
        """Refuse what no fix can be of.

        Raises:
            UserError: a bound that is none, or a part of an edit without one.
        """
        self.bounds.check()
        if self.part and self.bounds.max_drawdown is None:
            raise UserError(
                "--part: expected --max-drawdown, the bound that the part is to keep, got none; "
                "e.g. --max-drawdown 0.01"
            )
