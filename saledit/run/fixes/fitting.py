"""Whether a folder of fixes, and its form, fit the editor whose fix is to go there."""

from __future__ import annotations

import torch

from saledit.artifact import TrainedEditor, sites_as_json
from saledit.delta import Edits
from saledit.errors import UserError
from saledit.export import FORMATS, state
from saledit.ledger import EditFolder
from saledit.models import TaskModel
from saledit.run.fixes.head import beginning
from saledit.run.fixes.options import FixOptions


def check_place(folder: EditFolder, options: FixOptions) -> None:
    """Refuse a folder of other things, or in another form.

    Raises:
        UserError: it is one.
        ArtifactError: its ledger has lost entries.
    """
    path = folder.path
    if folder.is_new:
        return
    if not folder.entries:
        raise UserError(
            f"--out {path}: expected a new folder, or one that saledit fix made, got one with "
            "other files; name another"
        )
    state(folder)
    held = folder.head["format"]
    if options.format not in (None, held):
        raise UserError(
            f"--format {options.format}: expected that of the fixes in {path} ({held}); leave it "
            "out, or name another --out"
        )
    if options.rank and options.rank != folder.head.get("rank", 0):
        raise UserError(
            f"--rank {options.rank}: expected that of the fixes in {path} "
            f"({folder.head.get('rank', 0)}); leave it out, or name another --out"
        )


def check_form(
    folder: EditFolder, trained: TrainedEditor, options: FixOptions, is_on_disk: bool
) -> None:
    """Refuse an editor whose edits the folder's form cannot hold.

    Raises:
        UserError: its edits are routed, and the form takes matrices; or it takes a whole model,
            which is not loaded.
    """
    form = folder.head["format"] if folder.entries else options.format or "delta"
    if options.rank and form != "lora":
        raise UserError(f"--rank: only for --format lora, got {form}; leave it out")
    if form == "merged" and is_on_disk:
        raise UserError(
            "--format merged: expected a model that is loaded, got one that stays on disk "
            "(--stream, or model.stream in the run's config.yaml); use --format delta or lora, or "
            "load it"
        )
    if trained.editor.needs_anchor and not FORMATS[form].takes_routed:
        raise UserError(
            f"--format {form}: expected edits that are matrices, got routed ones (editor: "
            f"{trained.config.editor.name}); use --format delta, in a new folder"
        )


def begun_by(
    folder: EditFolder, trained: TrainedEditor, base: TaskModel, options: FixOptions
) -> EditFolder:
    """The folder with a beginning that the editor's fixes belong to.

    Raises:
        UserError: its fixes are of another model or layer, or of another editor that changes the
            model before any edit.
    """
    ground = trained.editor.resident.detach().map(torch.Tensor.cpu)
    sites = sites_as_json(trained.layer.sites)
    if folder.entries:
        for what, same in (
            ("model", base.fingerprint == folder.head["base_model"]["fingerprint"]),
            ("layer", sites == folder.head["sites"]),
            ("editor", is_same(ground, folder.ground)),
        ):
            if not same:
                raise UserError(
                    f"{folder.path}: expected an editor that its fixes go on with, got one of "
                    f"another {what}; name another --out"
                )
        return folder
    head = beginning(
        base, trained.config.model, trained.config.task, trained.layer, options.format or "delta",
        options.rank, folder.path,
    )  # fmt: skip
    return folder.begun(head, ground)


def is_same(one: Edits, other: Edits) -> bool:
    """Whether edits are the same numbers at the same sites."""
    if one.keys() != other.keys():
        return False
    pairs = (zip(one[s].tensors(), other[s].tensors(), strict=True) for s in one)  # in any order
    return all(torch.equal(a, b) for own in pairs for a, b in own)
