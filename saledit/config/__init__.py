"""The configuration: frozen dataclasses, filled from YAML by OmegaConf."""

from saledit.config.describing import describe, differing, flatten
from saledit.config.editors import EditorConfig
from saledit.config.loading import found, load, to_yaml
from saledit.config.schema import (
    AdaptConfig,
    CachesConfig,
    DataConfig,
    FinetuneConfig,
    LossConfig,
    ModelConfig,
    RunConfig,
    ScheduleConfig,
    SiteConfig,
    TaskConfig,
    TestConfig,
    TraceConfig,
    TrainConfig,
)

__all__ = [
    "AdaptConfig",
    "CachesConfig",
    "DataConfig",
    "EditorConfig",
    "FinetuneConfig",
    "LossConfig",
    "ModelConfig",
    "RunConfig",
    "ScheduleConfig",
    "SiteConfig",
    "TaskConfig",
    "TestConfig",
    "TraceConfig",
    "TrainConfig",
    "describe",
    "differing",
    "flatten",
    "found",
    "load",
    "to_yaml",
]
