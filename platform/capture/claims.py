"""Which quarantined items a worker may take: each by one worker at a time, a conversation's items in order.

A claim is a lease (``claimed_until``): a worker that dies loses it by the clock, and whoever comes next does the work
again from the start. The time of the lease is also its token: a worker that was only slow finds at writing that its
rows carry another time, or none, and writes nothing. Beside it the worker's session holds an advisory lock, which goes
with the session: a lease without its lock belongs to nobody, and need not be waited for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.db import connection, transaction
from django.db.models import F, Min
from django.utils import timezone

from capture.models import Quarantine

LEASE = timedelta(minutes=10)
BATCH = 64
MAX_CLAIMS = 3
_CLAIM_LOCK, _LEASE_LOCKS = 0x5C2B, 0x5C2C
"""Advisory lock: claims are made one after the other (milliseconds each), so two can never share a conversation."""


class LeaseLost(Exception):
    """Somebody else has the items now, or a person has removed them: write nothing."""


@dataclass(frozen=True)
class Claim:
    rows: list[Quarantine]
    until: datetime

    def of(self, rows: Iterable[Quarantine]) -> Claim:
        return Claim(list(rows), self.until)

    @property
    def keys(self) -> list[int]:
        return [row.pk for row in self.rows]


@transaction.atomic
def claim(*, limit: int = BATCH, only: int | None = None) -> Claim:
    """The next items in order of arrival; none of a conversation that another worker has.

    Items that were claimed before without an outcome (their worker died) come one by one, so that one that kills
    workers takes no others with it; after `MAX_CLAIMS` it is held.

    Args:
        only: this item or nothing.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_CLAIM_LOCK])
    now = timezone.now()
    _end_orphaned(now)
    _hold_killers(now)
    taken = Quarantine.objects.filter(claimed_until__gt=now).values("conversation_key")
    free = Quarantine.objects.waiting().exclude(conversation_key__in=taken).order_by("pk")
    if only is not None:
        free = free.filter(pk=only)
    rows = list(free.select_for_update(skip_locked=True, of=("self",))[:limit])
    rows = _without_overtaking(_one_by_one(rows))
    until = now + LEASE
    if rows:
        _lock_lease(until)
    Quarantine.objects.filter(pk__in=[row.pk for row in rows]).update(claimed_until=until, attempts=F("attempts") + 1)
    return Claim(rows, until)


def release(claimed: Claim) -> None:
    """Gives up a claim: what is undone goes back, for a reason that is not the items'."""
    give_back(claimed)
    done(claimed)


def give_back(claimed: Claim) -> None:
    """Puts some of the items back into the line undone; the claim of the others stands."""
    Quarantine.objects.filter(pk__in=claimed.keys, claimed_until=claimed.until).update(
        claimed_until=None, attempts=F("attempts") - 1
    )


def done(claimed: Claim) -> None:
    """Lets go of the lock behind the lease, when nothing of the claim is left to do."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_unlock(%s, %s)", [_LEASE_LOCKS, _token(claimed.until)])


def hold(claimed: Claim, error: str) -> None:
    """Puts items aside until a person decides. ``error``: a sentence without any of the text."""
    Quarantine.objects.filter(pk__in=claimed.keys, claimed_until=claimed.until).update(
        state=Quarantine.State.HELD, claimed_until=None, error=error[:300]
    )


def remove(claimed: Claim) -> None:
    """Destroys the payloads, in the transaction that writes what was in them.

    Raises:
        LeaseLost: not all of them are still ours; the transaction must be rolled back.
    """
    mine = Quarantine.objects.filter(pk__in=claimed.keys, claimed_until=claimed.until)
    if mine.delete()[0] != len(claimed.rows):
        raise LeaseLost


def _lock_lease(until: datetime) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s, %s)", [_LEASE_LOCKS, _token(until)])


def _token(until: datetime) -> int:
    """Microseconds, as many as an advisory lock has bits for."""
    return (until - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1) % 2**31


# An attempt that ended because the database did is not the item's fault.
_END_ORPHANED = f"""
UPDATE {Quarantine._meta.db_table}
SET claimed_until = %(now)s,
    attempts = greatest(
        0, attempts - (pg_postmaster_start_time() > claimed_until - make_interval(secs => %(lease)s))::int
    )
WHERE claimed_until > %(now)s AND NOT EXISTS (
    SELECT FROM pg_locks
    WHERE locktype = 'advisory' AND classid = %(locks)s AND objsubid = 2
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND objid = ((extract(epoch FROM claimed_until) * 1000000)::bigint %% 2147483648)::oid
)
"""  # noqa: S608


def _end_orphaned(now: datetime) -> None:
    """Ends leases of workers whose session is gone: killed, or the database was."""
    with connection.cursor() as cursor:
        cursor.execute(_END_ORPHANED, {"now": now, "lease": LEASE.total_seconds(), "locks": _LEASE_LOCKS})


def _hold_killers(now: datetime) -> None:
    dead = Quarantine.objects.waiting().filter(claimed_until__lte=now, attempts__gte=MAX_CLAIMS)
    dead.update(
        state=Quarantine.State.HELD, claimed_until=None, error=f"Workers stopped {MAX_CLAIMS} times on this item."
    )


def _one_by_one(rows: list[Quarantine]) -> list[Quarantine]:
    for place, row in enumerate(rows):
        if row.attempts > 0:
            return rows[: max(place, 1)]
    return rows


def _without_overtaking(rows: list[Quarantine]) -> list[Quarantine]:
    """Leaves out what would pass an earlier item of its conversation (one that is locked by somebody just now)."""
    if not rows:
        return []
    first = dict(
        Quarantine.objects.waiting()
        .filter(conversation_key__in={row.conversation_key for row in rows})
        .values_list("conversation_key")
        .annotate(first=Min("pk"))
    )
    have = {row.pk for row in rows}
    return [row for row in rows if first[row.conversation_key] in have]
