"""Edits on disk: ``edits.safetensors`` and ``edits.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from saledit.artifact.building import SCHEMA, sites_as_json, versions
from saledit.delta import Dense, Edits, LowRank
from saledit.errors import ArtifactError
from saledit.files import new_folder, read_json, read_tensors, write_json, write_tensors
from saledit.models import fingerprint
from saledit.records import Sample
from saledit.site import Site, resolve

EDITS_WEIGHTS = "edits.safetensors"
EDITS_FACTS = "edits.json"


def save_edits(folder: Path, edits: Edits, facts: Mapping[str, Any]) -> None:
    """Write ``edits.safetensors`` and ``edits.json``; the folder appears whole.

    Args:
        folder: where; an old one is replaced.
        edits: unbatched edits.
        facts: base model, failures and metrics, for the JSON file.

    Raises:
        JobError: the disk is full.
    """
    tensors: dict[str, Tensor] = {}
    for site, delta in edits.items():
        if isinstance(delta, LowRank):
            tensors |= {f"{site.name}.u": delta.u, f"{site.name}.v": delta.v}
        else:
            tensors[f"{site.name}.w"] = delta.w
    with new_folder(folder) as part:
        write_tensors(part / EDITS_WEIGHTS, tensors)
        value = {"schema": SCHEMA, "sites": sites_as_json(tuple(edits)), "versions": versions()}
        write_json(part / EDITS_FACTS, {**value, **facts})


def load_edits(folder: str | Path, model: nn.Module) -> Edits:
    """Read edits and check them against a model.

    Args:
        folder: what ``save_edits`` wrote.
        model: the base model they are to be applied to.

    Raises:
        ArtifactError: broken files, or edits of another model.
        SiteError: the model has no such site.
    """
    folder = Path(folder)
    facts = read_json(folder / EDITS_FACTS, "saved edits")
    tensors = read_tensors(folder / EDITS_WEIGHTS, "saved edits")
    wanted = facts.get("base_model", {}).get("fingerprint") if isinstance(facts, dict) else None
    if wanted != fingerprint(model):
        raise ArtifactError(
            f"{folder}: expected the base model with fingerprint {str(wanted)[:8]}, got "
            f"{fingerprint(model)[:8]}; edits fit only the weights they were made for"
        )
    out: dict[Site, LowRank | Dense] = {}
    for name in sorted({key.rsplit(".", 1)[0] for key in tensors}):
        site = resolve(model, name)
        try:
            delta: LowRank | Dense
            if f"{name}.w" in tensors:
                delta = Dense(tensors[f"{name}.w"].clone())
                shape = tuple(delta.w.shape)
            else:
                delta = LowRank(tensors[f"{name}.u"].clone(), tensors[f"{name}.v"].clone())
                shape = (delta.v.shape[-1], delta.u.shape[-1])
        except (KeyError, ValueError) as error:
            raise ArtifactError(f"{folder}: the factors of {name} do not fit: {error}") from error
        if shape != (site.d_out, site.d_in):
            raise ArtifactError(
                f"{folder}: expected a delta of shape {(site.d_out, site.d_in)} at {name}, "
                f"got {shape}"
            )
        out[site] = delta
    return Edits(out)


def failures_as_json(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Failures for ``edits.json``."""
    return [{"id": s.id, "inputs": list(s.inputs), "target": s.target} for s in samples]
