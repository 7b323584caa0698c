"""The shape of a risk estimate. See wire.py for the rules that all wire modules follow."""

from msgspec import Struct


class InterruptionsView(Struct, frozen=True):
    """How likely a lease of this limit, running now, is outbid within the horizon; from the market's record.

    `samples` is the number of stretches of the record, as long as the horizon, that the estimate looked at;
    with fewer than `samples_min`, or with nothing on offer, `probability` is null. `median_run_seconds` is
    null while fewer than half of the runs of such a limit have ended in the record.
    """

    market: str
    tick: int
    limit_price_per_gpu_hour: str
    horizon_seconds: int
    probability: str | None
    samples: int
    samples_min: int
    median_run_seconds: int | None
    record_from: str | None
    record_seconds: int
