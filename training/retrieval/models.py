"""Two retrieval configurations on the same questions."""

from __future__ import annotations

from django.db import models

from assistants.background import BackgroundQuerySet, BackgroundWork
from assistants.models import Assistant
from knowledge.models import RetrievalConfiguration


class RetrievalComparison(BackgroundWork):
    """Both configurations retrieve for every question of a benchmark that says where its answer stands.

    ``result`` holds measures, paired differences and the rank of each question's first right passage; no text.
    """

    needs_device = False

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="retrieval_comparisons")
    benchmark = models.ForeignKey("training.Benchmark", on_delete=models.CASCADE, related_name="retrieval_comparisons")
    first = models.ForeignKey(RetrievalConfiguration, on_delete=models.CASCADE, related_name="+")
    second = models.ForeignKey(RetrievalConfiguration, on_delete=models.CASCADE, related_name="+")
    result = models.JSONField(default=dict, editable=False, help_text="What training.retrieval.comparing found.")

    objects = BackgroundQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return f"Comparison {self.pk}"

    def perform(self) -> None:
        from training.retrieval.comparing import perform

        perform(self)


class RetrieverTuning(BackgroundWork):
    """One learning of a map of questions, from marks, missed passages and written questions.

    ``result`` holds counts and measures; no text.
    """

    needs_device = True

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="retriever_tunings")
    benchmark = models.ForeignKey(
        "training.Benchmark", null=True, blank=True, on_delete=models.SET_NULL, related_name="+",
        help_text="On which the new version is compared with the active one when it is there.",
    )  # fmt: skip
    configuration = models.ForeignKey(
        RetrievalConfiguration, null=True, editable=False, on_delete=models.SET_NULL, related_name="+"
    )
    comparison = models.ForeignKey(
        RetrievalComparison, null=True, editable=False, on_delete=models.SET_NULL, related_name="+"
    )
    result = models.JSONField(default=dict, editable=False, help_text="What training.retrieval.tuning measured.")

    objects = BackgroundQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return f"Tuning {self.pk}"

    def perform(self) -> None:
        from training.retrieval.tuning import perform

        perform(self)
