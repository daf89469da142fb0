"""What people of the house type for other people of the house to read: reasons, notes, guidelines.

Such a sentence says easily whom it is about ("Anna Keller phoned, her label was wrong") and stays for ever, in rows,
on pages and in the audit trail. So it is masked before it is stored: those types of its assistant's policy that must
never be stored. What identifies only together with other things (places, say) stays, since in few words ("to canary")
much looks like a place that is none. Names that people give to things (queues, datasets, benchmarks, configurations)
are left as they are typed.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from django.contrib.auth.models import User

from assistants.models import Assistant

WITHHELD = "(not kept: it could not be checked for personal data)"
MAX_TYPED = 20_000

logger = logging.getLogger(__name__)


def masked_prose(text: str, *, assistant: Assistant | None, typed_by: User | None) -> str:
    """The text, stripped, with personal data masked. What nobody typed (``typed_by`` is None) is a sentence of our own
    and comes back as it is.

    Never fails: no rollback is lost over a recogniser. What cannot be checked is not kept; `WITHHELD` says so. The
    first call of a process loads the recognisers, which takes seconds.
    """
    text = text.strip()[:MAX_TYPED]
    if not text or typed_by is None:
        return text
    # The recognisers' libraries take seconds, and most processes never need them.
    from assistants.policies import policy_of
    from privacy.findings import HARD_TYPES, ScrubError
    from privacy.policy import Policy
    from privacy.scrubber import Scrubber

    policy = policy_of(assistant) if assistant is not None else Policy()
    policy = replace(policy, entity_types=policy.entity_types & HARD_TYPES)
    try:
        return Scrubber(policy).scrub_text(text).text
    except ScrubError as error:
        logger.warning("a typed text was not kept: %s", type(error).__name__)
        return WITHHELD
