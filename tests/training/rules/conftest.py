from tests.training.finetune.conftest import base, run_settings

__all__ = ["base", "run_settings"]
