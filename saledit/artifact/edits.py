"""Edits on disk: ``edits.safetensors`` and ``edits.json``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from saledit.artifact.recording import SCHEMA, sites_as_json, versions
from saledit.delta import Delta, Dense, Edits, LowRank
from saledit.delta.routed import Mixture, Routed
from saledit.errors import ArtifactError
from saledit.files import (
    check_numbers,
    file_hash,
    new_folder,
    read_json,
    read_tensors,
    write_json,
    write_tensors,
)
from saledit.models import fingerprint
from saledit.site import Site, resolve

EDITS_WEIGHTS = "edits.safetensors"
EDITS_FACTS = "edits.json"
MEMORY = "memory.safetensors"


def edits_as_tensors(edits: Edits) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Edits as named tensors, and what JSON has to say of them beside."""
    tensors: dict[str, Tensor] = {}
    routing: dict[str, list[list[int]]] = {}
    for site, delta in edits.items():
        if isinstance(delta, LowRank):
            tensors |= {f"{site.name}.u": delta.u, f"{site.name}.v": delta.v}
        elif isinstance(delta, Routed):
            own = {"gate": delta.gate, "u": delta.u, "v": delta.v}
            tensors |= {f"{site.name}.{part}": tensor for part, tensor in own.items()}
            routing[site.name] = [list(mixture) for mixture in delta.mixtures]
        else:
            tensors[f"{site.name}.w"] = delta.w
    value = {"schema": SCHEMA, "sites": sites_as_json(tuple(edits)), "versions": versions()}
    return tensors, value | ({"routing": routing} if routing else {})


def save_edits(
    folder: Path, edits: Edits, facts: Mapping[str, Any], memory: Mapping[str, Tensor] | None = None
) -> None:
    """Write ``edits.safetensors`` and ``edits.json``; the folder appears whole.

    Args:
        folder: where; an old one is replaced.
        edits: unbatched edits, or (E,) of them.
        facts: base model, failures and metrics, for the JSON file.
        memory: what the editor has to know to go on (``Editor.remember``), where that is kept.

    Raises:
        JobError: the disk is full.
    """
    tensors, value = edits_as_tensors(edits)
    with new_folder(folder) as part:
        write_tensors(part / EDITS_WEIGHTS, tensors)
        if memory:
            write_tensors(part / MEMORY, memory)
        write_json(part / EDITS_FACTS, {**value, **facts})


def load_edits(
    folder: str | Path, model: nn.Module, batched: bool = False, exact: bool = True
) -> Edits:
    """Read edits and check them against a model.

    Args:
        folder: what ``save_edits`` or ``saledit fix`` wrote.
        model: the base model they are to be applied to.
        batched: edits (E,) are expected, and else unbatched ones.
        exact: the model's weights are those that the edits were made for, to the bit. False
            where they are served in another number format, quantised or of half precision:
            then only sites and their sizes are held against it.

    Raises:
        ArtifactError: broken files, or edits of another model.
        SiteError: the model has no such site.
    """
    folder = Path(folder)
    shape = {**_FACTS, "base_model?": {"fingerprint": str}, "files?": {str: str}}
    facts = read_json(folder / EDITS_FACTS, "saved edits", shape)
    wanted = facts.get("base_model", {}).get("fingerprint")
    if exact and wanted != fingerprint(model):
        raise ArtifactError(
            f"{folder}: expected the base model with fingerprint {str(wanted)[:8]}, got "
            f"{fingerprint(model)[:8]}; edits fit only the weights they were made for (exact=False "
            "for these in another number format)"
        )
    print_ = facts.get("files", {}).get(EDITS_WEIGHTS)
    if print_ is not None and print_ != file_hash(folder / EDITS_WEIGHTS):
        raise ArtifactError(
            f"{folder}: expected the weights that {EDITS_FACTS} tells of, got others: a change was "
            f"cut off, or the file was changed; see: saledit log {folder}"
        )
    edits = read_edits(folder, lambda name: resolve(model, name), batched)
    for site, delta in edits.items():
        if isinstance(delta, Routed):
            _check_anchors(folder, site.name, delta, model)
    return edits


def read_edits(folder: Path, site_of: Callable[[str], Site], batched: bool = False) -> Edits:
    """Read edits, not yet of any model.

    Args:
        folder: what ``save_edits`` wrote.
        site_of: gives the site of a name.
        batched: edits (E,) are expected, and else unbatched ones.

    Raises:
        ArtifactError: broken files, or deltas of other shapes than the sites'.
    """
    facts = read_json(folder / EDITS_FACTS, "saved edits", _FACTS)
    tensors = read_tensors(folder / EDITS_WEIGHTS, "saved edits")
    check_numbers(tensors, folder / EDITS_WEIGHTS, "edits")
    names = {key.rsplit(".", 1)[0] for key in tensors}
    if names != {row["name"] for row in facts["sites"]}:
        raise ArtifactError(
            f"{folder}: expected edits of the sites that {EDITS_FACTS} tells of, got others; take "
            "the folder from a backup"
        )
    out: dict[Site, Delta] = {}
    for name in sorted(names):
        site = site_of(name)
        try:
            # Owned copies: the file may be replaced while the edits are in use.
            own = {part: tensors[f"{name}.{part}"].clone() for part in _parts_of(name, tensors)}
            if any(part.dim() != 2 + batched or not part.numel() for part in own.values()):
                raise ValueError("expected matrices" + " of several edits" * batched)
            if len({part.dtype for part in own.values()}) > 1:
                raise ValueError("expected factors of one type of numbers")
            delta: Delta
            if "w" in own:
                delta = Dense(own["w"])
                shape = tuple(delta.w.shape[-2:])
            else:
                if "gate" in own:
                    delta = Routed(_mixtures(facts["routing"][name]), **own)
                else:
                    delta = LowRank(**own)
                shape = (delta.v.shape[-1], delta.u.shape[-1])
        except (LookupError, TypeError, ValueError) as error:
            raise ArtifactError(f"{folder}: the factors of {name} do not fit: {error}") from error
        if shape != (site.d_out, site.d_in):
            raise ArtifactError(
                f"{folder}: expected a delta of shape {(site.d_out, site.d_in)} at {name}, "
                f"got {shape}"
            )
        out[site] = delta
    return Edits(out)


#: What every ``edits.json`` holds, at least.
_FACTS = {"sites": [{"name": str}], "routing?": {str: [[int]]}}


def load_memory(folder: Path) -> dict[str, Tensor]:
    """What the editor has to know to go on with saved edits; nothing where nothing was kept.

    Raises:
        ArtifactError: the file is broken.
    """
    path = folder / MEMORY
    if not path.exists():
        return {}
    found = read_tensors(path, "what an editor remembers")
    check_numbers(found, path, "what an editor remembers")
    return found


def _parts_of(name: str, tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """What the delta of a site is made of, by what its file holds.

    Raises:
        ValueError: the file holds something else of this site.
    """
    found = {key.rsplit(".", 1)[1] for key in tensors if key.rpartition(".")[0] == name}
    for parts in (("w",), ("u", "v"), ("gate", "u", "v")):
        if found == set(parts):
            return parts
    raise ValueError(f"expected u and v, or w, got {', '.join(sorted(found)):.60}")


def _mixtures(rows: Any) -> tuple[Mixture, ...]:
    """Mixtures from a JSON file."""
    return tuple(Mixture(*row) for row in rows)


def _check_anchors(folder: Path, name: str, delta: Routed, model: Any) -> None:
    size = int(model.get_input_embeddings().weight.shape[1])
    if delta.anchor_size != size:
        raise ArtifactError(
            f"{folder}: the factors of {name} do not fit: expected a gate of anchors of size "
            f"{size}, got {delta.anchor_size}"
        )
