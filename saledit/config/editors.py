"""The editors' settings: those that all share, and each one's own.

An editor is given the section of its name in the registry, as arguments.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class MendConfig:
    """MEND's hypernetwork, and SaLEM's: editors/mend.py."""

    rank: int = 256
    """rank of the hypernetwork's blocks"""
    n_blocks: int = 2
    """residual blocks"""
    style: str = "bottleneck"
    """bottleneck, or published (MEND's equation 3)"""
    whiten: float = 0.1
    """relative ridge of the input whitening; 0 turns it off"""
    decouple: float = 0.5
    """how far the failures of one edit are kept from acting on each other, 0 (not) to 1"""


@dataclass(frozen=True)
class StepConfig:
    """One step along the gradient, no training: editors/step.py."""

    whiten: float = 0.1
    """relative ridge of the input whitening; 0 turns it off"""
    bound: float = 0.02
    """nats: mean KL(base || edited) on pass samples that a step may cost"""
    enough: float = 0.3
    """nats an answer: mean loss of an edit's failures at which a step is long enough"""


@dataclass(frozen=True)
class FtConfig:
    """Fine-tuning of the site on an edit's failures: editors/ft.py."""

    steps: int = 25
    """steps of Adam at most"""
    rate: float = 1e-3
    """learning rate; fit finds a factor on it by trial"""
    kl: float = 0.0
    """weight of KL(base || edited) on pass samples; 0 for none"""
    bound: float = 0.0
    """largest change of a weight, where rank is 0; 0 for no bound"""
    rank: int = 0
    """rank of the change (LoRA); 0 for a change of full rank"""
    enough: float = 0.1
    """nats an answer: mean loss of an edit's failures at which its steps end"""


@dataclass(frozen=True)
class MemoeConfig:
    """MEMoE, routed experts beside the site, fitted to an edit's failures: editors/memoe.py."""

    experts: int = 8
    """experts of an edit"""
    top_k: int = 2
    """experts that act at a position; the gate is fitted from 2 on"""
    rank: int = 2
    """rank of an expert"""
    steps: int = 50
    """steps of Adam at most"""
    rate: float = 1e-3
    """learning rate; an edit takes the steps that it needs, so it is not calibrated"""
    kl: float = 30.0
    """weight of KL(base || edited) on pass samples; 0 for none"""
    enough: float = 0.3
    """nats an answer: mean loss of an edit's failures at which its steps end"""


@dataclass(frozen=True)
class EnnConfig:
    """Editable neural networks: editors/enn.py."""

    steps: int = 1
    """gradient steps an edit"""
    rate: float = 1e-2
    """length of a step; fit finds a factor on it by trial, and training another"""
    second_order: bool = True
    """differentiate through the steps' gradients; False takes less memory and time"""


@dataclass(frozen=True)
class KeConfig:
    """KnowledgeEditor: editors/ke.py."""

    lstm: int = 128
    """hidden units of the LSTM in each direction"""
    condition: int = 1024
    """size of what it makes of a failure"""
    hidden: int = 128
    """hidden units of each site's network"""


@dataclass(frozen=True)
class MalmenConfig:
    """MEND's terms put together by least squares, for many failures an edit: editors/malmen.py."""

    rank: int = 256
    """rank of the hypernetwork's blocks"""
    n_blocks: int = 2
    """residual blocks"""
    style: str = "bottleneck"
    """bottleneck, or published (MEND's equation 3)"""
    whiten: float = 0.1
    """relative ridge of the input whitening; 0 turns it off, as published"""


@dataclass(frozen=True)
class LocateConfig:
    """Closed-form edits of a fact's key (ROME and its kin), no training: editors/locate.py."""

    solver: str = "memit"
    """rome, r-rome, memit, emmet or alphaedit"""
    at: str = "subject"
    """the token that stands for a fact: subject (its last), or last (of the prompt)"""
    contexts: int = 5
    """of text: beginnings, made up by the model, behind which a fact has to hold, too"""
    value_steps: int = 20
    """steps of Adam at most that a wanted output is found in"""
    value_rate: float = 0.5
    """their learning rate"""
    kl: float = 0.0625
    """of text, at: subject: weight of KL(changed || base) of what follows "SUBJECT is a" """
    decay: float = 0.5
    """weight of the change's size"""
    clamp: float = 4.0
    """largest change of an output, in sizes of the measure"""
    measure: str = "output"
    """sizes are of the map's output (ROME's code) or of what its block hands on: output, block"""
    weight: float = 15000.0
    """memit: weight of what must stay (lambda, mom2_update_weight)"""
    ridge: float = 0.1
    """emmet: added to the Gram matrix of several facts"""
    threshold: float = 2e-2
    """alphaedit: eigenvalues of the second moment that count as nothing"""
    norm: float = 10.0
    """alphaedit: weight of the change's own norm"""
    shrink: float = 1e-4
    """added to the second moment's diagonal before it is inverted, in medians of that diagonal"""


@dataclass(frozen=True)
class MomentsConfig:
    """Where second moments of the sites' inputs are from: whitening, and what must stay."""

    corpus: str = ""
    """data file of text (field text); "": the run's pass samples"""
    tokens: int = 100_000
    """tokens of it at most"""
    window: int = 256
    """tokens of a text at most"""


@dataclass(frozen=True)
class EditorConfig:
    """The editor."""

    name: str = "mend"
    """an editor of the registry (SaLEM is mend with one layer picked by saliency)"""
    sample_rank: int = 8
    """terms kept of each failure's gradient"""
    gradient_rank: int = 16
    """terms kept of the gradient of an edit, at least one a failure; 0 for all of them"""
    steps: list[float] = field(default_factory=lambda: [1.0])
    """lengths of an edit to try, in units of the editor's own; the first that mends is taken"""
    enough: float = 0.3
    """for steps and looks: mean loss of an edit's failures (nats an answer) that is mended"""
    bound: float = 0.0
    """KL on held pass samples that an edit may cost, in nats; longer ones are cut. 0: no bound"""
    looks: int = 1
    """steps of an edit at most, each from the model as edited so far while its loss is high"""
    held: int = 32
    """pass samples of the training part that an editor may look at; see docs/editors.md"""
    moments: MomentsConfig = field(default_factory=MomentsConfig)
    """for editors that whiten, or preserve"""
    mend: MendConfig = field(default_factory=MendConfig)
    """for name: mend"""
    step: StepConfig = field(default_factory=StepConfig)
    """for name: step"""
    ft: FtConfig = field(default_factory=FtConfig)
    """for name: ft (also as ft-kl, ft-l, lora-ft)"""
    memoe: MemoeConfig = field(default_factory=MemoeConfig)
    """for name: memoe"""
    enn: EnnConfig = field(default_factory=EnnConfig)
    """for name: enn"""
    ke: KeConfig = field(default_factory=KeConfig)
    """for name: ke"""
    malmen: MalmenConfig = field(default_factory=MalmenConfig)
    """for name: malmen"""
    locate: LocateConfig = field(default_factory=LocateConfig)
    """for name: locate (as rome, r-rome, memit, emmet, alphaedit)"""
