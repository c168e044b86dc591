"""What the pool knows: plain records, read and written under the pool's lock unless a line says otherwise."""

from __future__ import annotations

import enum
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .forecast import new_log

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable

    import torch

    from .device import Device
    from .guest import Seat
    from .weights import Instance, Master


@dataclass(frozen=True)
class ModelSource:
    """A model the pool can load.

    Attributes:
        key: names the weights; two sources with one key must build the same module.
        load: builds the module on the CPU, in eval mode. The module belongs to the pool from then on: when it is
            dropped, its tensors become empty. Called outside the lock, never twice at once for a key, under
            ``no_grad``; it must not lease.
        weight_bytes: estimate of parameters and buffers; the pool corrects it after the load.
    """

    key: str
    load: Callable[[], torch.nn.Module]
    weight_bytes: int


class Phase(enum.Enum):
    """Where a resident is on its way."""

    ARRIVING = "arriving"
    RESIDENT = "resident"
    LEAVING = "leaving"


@dataclass(eq=False, slots=True)
class Charge:
    """Bytes of one tier that one holder answers for.

    Attributes:
        held: present now, or reserved so that they may be allocated at any moment.
        promised: will be held once the evictions that make room for them are done.
        leaving: an eviction is freeing the held bytes; they count as present until it has.
    """

    held: int = 0
    promised: int = 0
    leaving: bool = False


@dataclass(eq=False, slots=True)
class Ledger:
    """The account of one tier: an accelerator's memory, or the host's.

    Two sums matter. *Used* is what is there now and never exceeds the budget (I1). *Committed* is what will be there
    when the evictions under way are done: a request is admitted only if that sum stays within the budget, so every
    promise can be kept by waiting for evictions alone, which wait for nothing.

    Attributes:
        place: what callers name the tier by.
        device: how to reach the memory; None for the host's.
        limit_bytes: what the user allows; None leaves it to the device.
        checked_at: when the device was last asked for its capacity, on the pool's clock.
        fenced: why nothing more is asked of the device; empty while it works.
        residents: by model key; the host's are the warm modules.
        overdrawn: the budget was lowered below what is pinned; releases bring it down.
        uses: keys of what was leased here, the latest last; see `forecast`.
        bytes_per_s: measured rate at which weights come here: over the bus, or from disk for the host.
    """

    place: torch.device
    device: Device | None
    budget_bytes: int
    limit_bytes: int | None = None
    checked_at: float = float("-inf")
    fenced: str = ""
    charges: set[Charge] = field(default_factory=set)
    residents: dict[str, Resident] = field(default_factory=dict)
    peak_bytes: int = 0
    overdrawn: bool = False
    uses: deque[str] = field(default_factory=new_log)
    bytes_per_s: float = 0.0

    def measure(self, n_bytes: int, seconds: float) -> None:
        """Note how long a transfer took; the latest one counts as much as all before it."""
        if seconds > 0 and n_bytes > 0:
            rate = n_bytes / seconds
            self.bytes_per_s = (self.bytes_per_s + rate) / 2 if self.bytes_per_s else rate

    @property
    def used_bytes(self) -> int:
        """Present now, evictions under way included."""
        return sum(charge.held for charge in self.charges)

    @property
    def committed_bytes(self) -> int:
        """Present when the evictions under way are done and every promise is kept."""
        return sum(charge.held + charge.promised for charge in self.charges if not charge.leaving)

    @property
    def working_bytes(self) -> int:
        """Held beside weights, by leases that are out."""
        return self.used_bytes - sum(resident.charge.held for resident in self.residents.values())

    @property
    def is_host(self) -> bool:
        """Whether this is the memory that masters live in."""
        return self.device is None


class Flight:
    """A load or promotion under way, which others may wait for.

    It ends done; or with ``error``, of which every waiter raises a copy; or abandoned, when whoever worked on it was
    interrupted or must ask for more room: the waiters then ask anew and one of them takes over.
    """

    __slots__ = ("abandoned", "done", "error", "landed", "thread")

    def __init__(self, lock: threading.Lock, thread: threading.Thread | None = None) -> None:
        self.landed = threading.Condition(lock)
        self.thread = thread  # who works on it
        self.done = False
        self.abandoned = False
        self.error: Exception | None = None

    def finish(self, error: Exception | None = None, *, abandoned: bool = False) -> None:
        """End it and wake who waits; only the first call counts."""
        if not self.done:
            self.done, self.error, self.abandoned = True, error, abandoned
            self.landed.notify_all()


@dataclass(eq=False, slots=True)
class Entry:
    """A model the pool knows.

    Attributes:
        n_bytes: real size once it was loaded, the source's estimate before.
        charge: the master's bytes on the host's ledger.
        master: None while cold, and while hot if RAM ran short.
        loading: the load under way.
        transit: grants that still need the master.
        surplus: modules that look at the master and are about to be emptied; its memory is free only then (I4).
        stale: drop at last release; never handed out again.
        working_bytes: of its last lease.
    """

    key: str
    n_bytes: int
    charge: Charge = field(default_factory=Charge)
    master: Master | None = None
    loading: Flight | None = None
    transit: set[Grant] = field(default_factory=set)
    surplus: int = 0
    residents: dict[Ledger, Resident] = field(default_factory=dict)
    stale: bool = False
    last_used: int = 0
    working_bytes: int = 0
    load_s: float = 0.0

    @property
    def in_flight(self) -> bool:
        """Whether something of it is being loaded or promoted."""
        return self.loading is not None or any(each.phase is Phase.ARRIVING for each in self.residents.values())

    @property
    def pinned(self) -> bool:
        """Whether a grant uses it anywhere."""
        return bool(self.transit) or any(each.grants for each in self.residents.values())

    @property
    def blank(self) -> bool:
        """Whether nothing of it is left."""
        return self.master is None and self.loading is None and not self.residents and not self.transit


@dataclass(eq=False, slots=True)
class Resident:
    """A model on one tier. On the host it stands for the warm module and shares the entry's charge.

    Attributes:
        instance: the module; None until it has arrived.
        storages: the device's copy of the weights; empty on the host.
        master: where its pointers go home to; None once RAM let go of it.
        since: when it became resident, on the pool's clock.
        foreseen: a plan had it brought, and no lease has used it yet.
        marks: of the work that may still read its weights; see `Device.mark`.
        seat: how the host that manages the same accelerator knows it, if there is one and it was told.
        recalled: the host wants it gone; it leaves at its last release.
    """

    entry: Entry
    ledger: Ledger
    charge: Charge
    flight: Flight
    phase: Phase = Phase.ARRIVING
    instance: Instance | None = None
    storages: list[torch.UntypedStorage] = field(default_factory=list)
    master: Master | None = None
    grants: set[Grant] = field(default_factory=set)
    last_used: int = 0
    since: float = 0.0
    foreseen: bool = False
    marks: Any = None
    seat: Seat | None = None
    recalled: bool = False

    @property
    def ready(self) -> bool:
        """Whether the module may be used where it is."""
        return self.phase is Phase.RESIDENT


class Grant:
    """What one lease holds. The lease points at it and nothing here points back, so a lost lease can be collected."""

    __slots__ = (
        "arrivals",
        "failure",
        "foreseen",
        "ledger",
        "loads",
        "pending",
        "released",
        "residents",
        "since",
        "thread",
        "working",
    )

    def __init__(self, thread: threading.Thread, since: float, ledger: Ledger, *, foreseen: bool = False) -> None:
        self.thread = thread  # the object, not its number: that is given anew once a thread has ended
        self.since = since
        self.ledger = ledger
        self.residents: tuple[Resident, ...] = ()
        self.working: Charge | None = None
        self.arrivals: tuple[Resident, ...] = ()  # those this grant's thread has to bring
        self.loads: tuple[Entry, ...] = ()  # those it has to load
        self.pending: list[tuple[Ledger, Charge]] = []  # promises not yet kept
        self.failure: tuple[Entry, Exception] | None = None  # what could not be brought, for those who wait for it
        self.foreseen = foreseen  # held by the prefetcher while it brings what a plan names
        self.released = False


@dataclass(frozen=True)
class Request:
    """What a lease asks for: everything at once, so that nobody waits while holding half of it."""

    sources: tuple[ModelSource, ...]
    ledger: Ledger
    working_bytes: int
    thread: threading.Thread
    priority: int = 0
    foreseen: bool = False  # by a plan: nobody waits for it yet


PRIORITY_STEP = 16
"""How many earlier requests one step of priority is worth. Counted in requests and not in seconds, so that a busy pool
and a slow one behave alike; those who wait grow older with every request that comes, so nobody waits for ever."""


@dataclass(eq=False, slots=True)
class Waiter:
    """A request in the queue.

    Attributes:
        ticket: order of arrival; kept when the request has to ask again.
        turn: its own condition.
        waits_for: the ledgers it is blocked on.
        bypassed: how many later requests were let past it.
    """

    request: Request
    ticket: int
    turn: threading.Condition
    grant: Grant | None = None
    error: Exception | None = None
    waits_for: frozenset[Ledger] = frozenset()
    bypassed: int = 0

    @property
    def rank(self) -> tuple[int, int]:
        """Place in the queue: the order of arrival, moved ahead by priority."""
        return self.ticket - PRIORITY_STEP * self.request.priority, self.ticket


@dataclass(eq=False, slots=True)
class Departure:
    """Something decided on that is still to be done outside the lock.

    Attributes:
        resident: what leaves its accelerator; where it and ``surplus`` are None, the entry's master leaves RAM.
        home: the master the resident's pointers return to; None where its weights are to be dropped.
        surplus: a second module over the master that nobody needs any longer.
        spent: the module that was dropped, kept until the lock is open again.
    """

    entry: Entry
    resident: Resident | None = None
    home: Master | None = None
    surplus: Instance | None = None
    spent: Instance | None = None


STALL_CAUSES = ("turn", "eviction", "load", "copy", "other_thread")
"""What a lease may have to wait for: others' leases to end, evicted bytes to be free, its models to be read from disk
or copied to the device, another thread that does so already."""


@dataclass(slots=True)
class Counters:
    """Totals since the pool was made; ``stalls_s`` splits ``stall_s`` by cause."""

    hits: int = 0
    promotions: int = 0
    cold_loads: int = 0
    load_s: float = 0.0
    failed_loads: int = 0
    refused_loads: int = 0
    joined_loads: int = 0
    foreseen_promotions: int = 0
    foreseen_loads: int = 0
    foreseen_hits: int = 0
    foreseen_wasted: int = 0
    evictions: int = 0
    ram_evictions: int = 0
    recalls: int = 0
    bytes_to_device: int = 0
    waits: int = 0
    timeouts: int = 0
    memory_retries: int = 0
    smaller_tiles: int = 0
    moved_elsewhere: int = 0
    devices_lost: int = 0
    policy_faults: int = 0
    stall_s: float = 0.0
    stalls_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STALL_CAUSES, 0.0))
    double_releases: int = 0
    lost_leases: int = 0
