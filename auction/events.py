"""Event kinds: the names under which committed changes are told.

The first word names the struct in the event's body. Kinds are API.md's webhook types where one
exists; `bid.amended`, `lease.resized` and `offer.listed` complete the record that
`GET /v1/bids/{id}/events` shows.
"""

from enum import StrEnum


class EventKind(StrEnum):
    BID_ACCEPTED = "bid.accepted"
    BID_AMENDED = "bid.amended"
    BID_FILLED = "bid.filled"
    BID_PARTIAL = "bid.partial"
    BID_OUTBID = "bid.outbid"
    BID_CANCELLED = "bid.cancelled"
    BID_EXHAUSTED = "bid.exhausted"
    BID_EXPIRED = "bid.expired"
    BID_REJECTED = "bid.rejected"
    LEASE_AWARDED = "lease.awarded"
    LEASE_STARTING = "lease.starting"
    LEASE_STARTED = "lease.started"
    LEASE_RESIZED = "lease.resized"
    LEASE_PREEMPTING = "lease.preempting"
    LEASE_ENDED = "lease.ended"
    LEASE_FAILED = "lease.failed"
    NOTICE_ISSUED = "notice.issued"
    NOTICE_ACKNOWLEDGED = "notice.acknowledged"
    NOTICE_WITHDRAWN = "notice.withdrawn"
    OFFER_LISTED = "offer.listed"
    OFFER_LEASED = "offer.leased"
    OFFER_WITHDRAWN = "offer.withdrawn"
    NODE_ONLINE = "node.online"
    NODE_DEGRADED = "node.degraded"
    NODE_OFFLINE = "node.offline"
    BALANCE_DEPOSITED = "balance.deposited"
    BALANCE_ADJUSTED = "balance.adjusted"
    BALANCE_LOW = "balance.low"
    BALANCE_EXHAUSTED = "balance.exhausted"
    PAYOUT_CREATED = "payout.created"
    PAYOUT_PAID = "payout.paid"
    PAYOUT_FAILED = "payout.failed"
    LIMIT_WARNING = "limit.warning"
    KEY_STOPPED = "key.stopped"
    KEY_RESUMED = "key.resumed"
    MARKET_CREATED = "market.created"
    MARKET_HALTED = "market.halted"
    MARKET_RESUMED = "market.resumed"
    TICK_CLEARED = "tick.cleared"
