"""Second moments as they are added up: one sum for each input that sites read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

_MOMENT, _COUNT = "moment.{}", "count.{}"


class RunningSums:
    """Sums of x x^T over the inputs x of sites, and how many they are of.

    They are in double precision. Inputs of one token can be a thousand times as large as all
    others' (an attention sink), and in single precision the squares of those would drown what the
    others leave. (No model is put where there is none, see ``saledit.run.setup.placing``.) They
    stay where the model is: a matrix may be gigabytes.

    Sites that read one input (gate and up, say) have one sum, that of the first of them; which do
    is seen by the first inputs.
    """

    def __init__(self) -> None:
        self._same_as: list[int] = []
        self._sums: dict[str, Tensor] = {}

    @classmethod
    def of(cls, kept: Mapping[str, Tensor], device: torch.device | str) -> RunningSums:
        """Go on from ``tensors``, with a copy of them on a device."""
        own = cls()
        own._same_as = kept["same_as"].tolist()
        for i in set(own._same_as):
            for name in (_MOMENT.format(i), _COUNT.format(i)):
                own._sums[name] = kept[name].to(device, copy=True)
        return own

    def add(self, inputs: Sequence[Tensor], masks: Sequence[Tensor]) -> None:
        """Add a batch.

        Args:
            inputs: what each site reads (..., D_in).
            masks: which of it counts, bool (...), of the same size.
        """
        if not self._same_as:
            seen: dict[tuple[object, ...], int] = {}
            self._same_as = [
                seen.setdefault((x.data_ptr(), x.shape, x.stride()), i)
                for i, x in enumerate(inputs)
            ]
        for i in sorted(set(self._same_as)):
            x, moment, count = inputs[i], _MOMENT.format(i), _COUNT.format(i)
            mask = masks[i].reshape(x.shape[:-1])
            if moment not in self._sums:
                size = x.shape[-1]
                self._sums[moment] = torch.zeros(size, size, dtype=torch.double, device=x.device)
                self._sums[count] = torch.zeros((), dtype=torch.long, device=x.device)
            z = x[mask].double()  # (tokens, D_in)
            self._sums[moment].addmm_(z.mT, z)
            self._sums[count] += len(z)

    def tensors(self) -> dict[str, Tensor]:
        """The sums, in main memory.

        Returns:
            ``same_as`` (sites,), for each site the first one that reads the same, and of each of
            these I ``moment.I`` (D_in, D_in) and ``count.I`` (). Nothing before anything was added.
        """
        if not self._same_as:
            return {}
        own = {name: tensor.cpu() for name, tensor in self._sums.items()}
        return {**own, "same_as": torch.tensor(self._same_as)}


def means(
    sums: Mapping[str, Tensor], device: torch.device | str, places: Sequence[int]
) -> list[Tensor]:
    """Mean of x x^T for some sites, (D_in, D_in); of one input the same one.

    Args:
        sums: as ``RunningSums.tensors`` gives them.
        device: where they are put; one at a time, as each may be gigabytes.
        places: of the sites.
    """
    firsts = [int(sums["same_as"][place]) for place in places]
    found = {
        i: sums[_MOMENT.format(i)].to(device) / sums[_COUNT.format(i)].to(device)
        for i in dict.fromkeys(firsts)
    }
    return [found[i] for i in firsts]
