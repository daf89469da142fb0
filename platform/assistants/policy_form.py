"""The edit page of a privacy policy as a form: one row per type, two lists, the rest."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from django import forms
from django.forms import BoundField

from assistants.policies import MAX_REASON, MAX_VALUE_CHARS, MAX_VALUES, Rules
from assistants.policy_model import MAX_REVIEW_DAYS, DocumentMasking, Rendering
from privacy.findings import ALL_TYPES, HARD_TYPES

MAX_SAMPLE = 10_000
MAX_LIST_CHARS = MAX_VALUES * (MAX_VALUE_CHARS + 2)
_CODE = re.compile(r"[A-Z]{2}")
_LIST_ROWS = 6
EXPLAINED: dict[str, str] = {
    "PERSON": "Names of people.",
    "EMAIL": "E-mail addresses, spelled out ones as well.",
    "PHONE": "Telephone numbers in international form and in the form of the countries below.",
    "ADDRESS": "Streets with numbers, postcodes, boxes.",
    "CREDIT_CARD": "Card numbers whose check digit is right.",
    "IBAN": "International account numbers.",
    "BANK_ACCOUNT": "Account numbers and sort codes near a word about banks.",
    "NATIONAL_ID": "National numbers of other countries.",
    "US_SSN": "US social security numbers.",
    "UK_NINO": "UK national insurance numbers.",
    "PASSPORT": "Passport numbers near the word.",
    "DRIVER_LICENSE": "Driving licence numbers.",
    "IP_ADDRESS": "Addresses of computers.",
    "MAC_ADDRESS": "Addresses of network cards.",
    "SECRET": "Keys, tokens and passwords by their form.",
    "LOCATION": "Cities, regions and countries.",
    "DATE_OF_BIRTH": "Dates near words about birth.",
    "USERNAME": "User names and handles.",
    "URL": "Web addresses with a query or a user in them.",
}


@dataclass(frozen=True)
class TypeRow:
    """The four fields of one type."""

    name: str
    hard: bool
    explained: str
    mask: BoundField
    threshold: BoundField
    band: BoundField
    trusted: BoundField


class PolicyForm(forms.Form):
    """Edits `Rules`. ``trying``: a text is to be tried under what stands here, and nothing is saved."""

    number = forms.IntegerField(min_value=0, widget=forms.HiddenInput)
    deny = forms.CharField(
        label="Always masked",
        required=False,
        max_length=MAX_LIST_CHARS,
        strip=False,
        widget=forms.Textarea(attrs={"rows": _LIST_ROWS, "spellcheck": "false", "autocomplete": "off"}),
        help_text=f"One value on each line: a staff directory, code names. Up to {MAX_VALUES:,} values of "
        f"{MAX_VALUE_CHARS} characters. Seen by privacy officers and admins only.",
    )
    allow = forms.CharField(
        label="Never masked",
        required=False,
        max_length=MAX_LIST_CHARS,
        strip=False,
        widget=forms.Textarea(attrs={"rows": _LIST_ROWS, "spellcheck": "false", "autocomplete": "off"}),
        help_text="One value on each line: product names, the house's own addresses. What the assistant's own "
        "documents print as a contact is allowed already where they are trusted.",
    )
    trust_contexts = forms.BooleanField(
        label="Trust the assistant's own documents",
        required=False,
        help_text="In passages that stand word for word in a loaded document only the types of the last column are "
        "masked.",
    )
    documents = forms.ChoiceField(
        label="Documents, when they are loaded",
        choices=DocumentMasking.choices,
        help_text="What must not even stand in own documents: the types of the last column, and what is always masked. "
        "Counts for what is loaded from then on; documents that are there are scrubbed when they are loaded again.",
    )
    regions = forms.CharField(
        label="Countries whose telephone formats are known",
        max_length=200,
        help_text="ISO codes with spaces between: GB US DE.",
    )
    review_days = forms.IntegerField(
        label="Days that uncertain values wait for review",
        min_value=1,
        max_value=MAX_REVIEW_DAYS,
        help_text="Encrypted until then; afterwards the value is destroyed and the mask stays.",
    )
    rendering = forms.ChoiceField(
        label="What datasets write where something was masked",
        choices=Rendering.choices,
        help_text="Invented values read naturally and hide what was missed; placeholders teach the model to write "
        "them.",
    )
    reason = forms.CharField(
        label="Why",
        max_length=MAX_REASON,
        help_text="Kept with the version and in the audit trail; write no value here.",
    )
    sample = forms.CharField(
        label="Try it",
        required=False,
        max_length=MAX_SAMPLE,
        widget=forms.Textarea(attrs={"rows": _LIST_ROWS, "spellcheck": "false", "autocomplete": "off"}),
        help_text="Paste a text to see what would be masked, and why, with what stands above. Nothing is stored.",
    )
    sample_kind = forms.ChoiceField(
        label="Written by",
        required=False,
        choices=[("user", "a user or the chatbot"), ("context", "one of the assistant's own documents")],
    )

    def __init__(self, *args: Any, rules: Rules, trying: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.base = rules
        policy = rules.policy
        self.initial = {
            "number": rules.number,
            "deny": "\n".join(policy.deny),
            "allow": "\n".join(policy.allow),
            "trust_contexts": policy.trust_contexts,
            "regions": " ".join(policy.regions),
            "review_days": rules.review_days,
            "rendering": rules.rendering,
            "documents": rules.documents,
            **self.initial,
        }
        self.fields["reason"].required = not trying
        self.fields["sample"].required = trying
        for kind in sorted(ALL_TYPES, key=lambda name: (name not in HARD_TYPES, name)):
            self._add_type(kind)

    def _add_type(self, kind: str) -> None:
        policy, word = self.base.policy, kind.replace("_", " ").lower()
        self.fields[f"mask_{kind}"] = forms.BooleanField(
            required=False, initial=kind in policy.entity_types, label=f"Mask {word}"
        )
        self.fields[f"threshold_{kind}"] = _score(policy.threshold(kind), f"Threshold of {word}")
        self.fields[f"band_{kind}"] = _score(policy.review_band.get(kind, 0.0), f"Review band of {word}")
        self.fields[f"trusted_{kind}"] = forms.BooleanField(
            required=False, initial=kind in policy.trusted_types, label=f"Mask {word} in own documents"
        )

    @property
    def types(self) -> Iterator[TypeRow]:
        for kind in sorted(ALL_TYPES, key=lambda name: (name not in HARD_TYPES, name)):
            yield TypeRow(
                name=kind.replace("_", " ").lower(),
                hard=kind in HARD_TYPES,
                explained=EXPLAINED.get(kind, ""),
                mask=self[f"mask_{kind}"],
                threshold=self[f"threshold_{kind}"],
                band=self[f"band_{kind}"],
                trusted=self[f"trusted_{kind}"],
            )

    @property
    def types_are_wrong(self) -> bool:
        return any(name.startswith(("threshold_", "band_")) for name in self.errors)

    def clean_regions(self) -> tuple[str, ...]:
        from phonenumbers import SUPPORTED_REGIONS

        codes = tuple(dict.fromkeys(self.cleaned_data["regions"].replace(",", " ").upper().split()))
        unknown = [code for code in codes if not _CODE.fullmatch(code) or code not in SUPPORTED_REGIONS]
        if unknown:
            raise forms.ValidationError(f"{len(unknown)} of these are no country codes; write GB US DE.")
        return codes

    def rules(self) -> Rules:
        """What the form says; call it when `is_valid`. Lists are checked by the service that saves them."""
        values = self.cleaned_data
        old = self.base.policy
        policy = replace(
            old,
            entity_types=frozenset(kind for kind in ALL_TYPES if values[f"mask_{kind}"]),
            trusted_types=frozenset(kind for kind in ALL_TYPES if values[f"trusted_{kind}"]),
            thresholds={kind: values[f"threshold_{kind}"] for kind in ALL_TYPES},
            review_band={kind: values[f"band_{kind}"] for kind in ALL_TYPES if values[f"band_{kind}"]},
            allow=tuple(filter(str.strip, values["allow"].splitlines())),
            deny=tuple(filter(str.strip, values["deny"].splitlines())),
            trust_contexts=values["trust_contexts"],
            regions=values["regions"],
        )
        return Rules(values["number"], policy, values["review_days"], values["rendering"], values["documents"])


def _score(initial: float, label: str) -> forms.FloatField:
    widget = forms.NumberInput(attrs={"step": "0.01", "min": "0", "max": "1", "aria-label": label})
    return forms.FloatField(label=label, min_value=0, max_value=1, initial=initial, widget=widget)
