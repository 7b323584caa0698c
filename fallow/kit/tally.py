"""What a run has bought so far: GPU-seconds and their cost, by the tick at whose price they ran.

Follows the leases' events and the ticks. A second belongs to the tick that was the last one then, and costs
that tick's price, or the frozen one under notice. When a lease ends, what was counted is brought in line with
its bill, so that the sums are the bills to the microdollar. `units` are microusd x seconds / hour: 3,600 of
them are a microdollar.
"""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from msgspec import Struct

from auction.units import MICROUSD_PER_USD, SECONDS_PER_HOUR
from fallow.client.model import Lease, Notice, Tick

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# A lease that ended for one of these ended as its tenant wished; every other end is an interruption.
WISHED_ENDS = frozenset({"released", "expired", "test"})


def second_of(at: datetime) -> int:
    """Return whole seconds since the epoch, rounded down: bills are by the second."""
    return (at - _EPOCH) // timedelta(seconds=1)


def microusd(dollars: Decimal) -> int:
    """Return dollars with at most six places as microdollars."""
    return int(dollars * MICROUSD_PER_USD)


def dollars(amount: int) -> Decimal:
    """Return microdollars as dollars with six places."""
    return (Decimal(amount) / MICROUSD_PER_USD).quantize(Decimal("0.000001"))


class Bought(Struct):
    """What ran between one tick and the next."""

    gpu_seconds: int = 0
    units: int = 0
    gpus: int = 0  # most at a time
    interruptions: int = 0
    notices: int = 0


class _Meter(Struct):
    bid: str
    gpus: int
    mark_s: int  # counted up to here
    frozen: int | None = None  # the price under notice, microusd per GPU-hour
    gpu_seconds: int = 0
    units: int = 0
    is_over: bool = False


class Tally:
    """The sums of one run; `take` what is told, in order."""

    def __init__(self) -> None:
        self._meters: dict[str, _Meter] = {}
        self._seen: set[str] = set()
        self._price = 0  # of the last tick that traded, microusd per GPU-hour
        self.bought = Bought()  # since the last tick
        self.total = Bought()

    @property
    def spent(self) -> int:
        """Microdollars, settled or not, rounded up."""
        return -(-self.total.units // SECONDS_PER_HOUR)

    def spent_by(self, bids: set[str]) -> int:
        """Return microdollars that these bids have cost, rounded up."""
        units = sum(meter.units for meter in self._meters.values() if meter.bid in bids)
        return -(-units // SECONDS_PER_HOUR)

    @property
    def bids(self) -> set[str]:
        """The bids that ever had a lease."""
        return {meter.bid for meter in self._meters.values()}

    @property
    def running_gpus(self) -> int:
        return sum(meter.gpus for meter in self._meters.values() if not meter.is_over)

    def adopt(self, lease: Lease, at: datetime) -> None:
        """Count a lease from before the run with its bill so far."""
        if lease.id in self._seen:
            return
        self._seen.add(lease.id)
        if lease.started_at is not None:
            self._correct(self._begin(lease, at), lease)
            self.take_lease(lease, at)

    def take_lease(self, lease: Lease, at: datetime) -> None:
        """A lease is as it is told here since `at`."""
        is_new = lease.id not in self._seen
        self._seen.add(lease.id)
        if lease.started_at is None:
            return
        meter = self._meters.get(lease.id)
        if meter is None:
            meter = self._begin(lease, at if is_new else lease.started_at)
        if meter.is_over:
            return
        self._count(meter, second_of(at if lease.ended_at is None else lease.ended_at))
        meter.gpus = lease.gpus
        meter.frozen = microusd(lease.price) if lease.state == "noticed" and lease.price else None
        if lease.state == "ended":
            meter.is_over = True
            self._correct(meter, lease)
            if lease.end_reason not in WISHED_ENDS:
                self.bought.interruptions += 1
                self.total.interruptions += 1
        self.bought.gpus = max(self.bought.gpus, self.running_gpus)

    def _begin(self, lease: Lease, at: datetime) -> _Meter:
        meter = self._meters[lease.id] = _Meter(lease.bid, lease.gpus, second_of(at))
        return meter

    def take_notice(self, notice: Notice, at: datetime) -> None:
        """Count a notice when it is issued; its lease pays the market's price again once it is withdrawn."""
        if notice.state == "issued":
            self.bought.notices += 1
            self.total.notices += 1
        meter = self._meters.get(notice.lease)
        if notice.state == "withdrawn" and meter is not None and not meter.is_over:
            self._count(meter, second_of(at))
            meter.frozen = None

    def take_tick(self, tick: Tick) -> Bought:
        """Return what ran since the tick before, and begin the next interval."""
        self.count_to(tick.cleared_at)
        if tick.price is not None:
            self._price = microusd(tick.price)
        bought, self.bought = self.bought, Bought(gpus=self.running_gpus)
        return bought

    def count_to(self, at: datetime) -> None:
        """Count what has run up to `at`."""
        for meter in self._meters.values():
            if not meter.is_over:
                self._count(meter, second_of(at))

    def _count(self, meter: _Meter, second: int) -> None:
        seconds = max(0, second - meter.mark_s)
        price = self._price if meter.frozen is None else meter.frozen
        meter.mark_s += seconds
        self._add(meter, meter.gpus * seconds, meter.gpus * seconds * price)

    def _correct(self, meter: _Meter, lease: Lease) -> None:
        units = microusd(lease.cost - lease.refunded) * SECONDS_PER_HOUR
        self._add(meter, lease.gpu_seconds - meter.gpu_seconds, units - meter.units)

    def _add(self, meter: _Meter, gpu_seconds: int, units: int) -> None:
        for sums in (meter, self.bought, self.total):
            sums.gpu_seconds += gpu_seconds
            sums.units += units
