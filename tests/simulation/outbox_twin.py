"""The webhook sender's side of the database over the storage twin's rows: `WebhookOutbox`'s words, no SQL.

What it keeps outlives every server: the position, the deliveries and what became of each. Statements of the
month and the sweeping of what is old are outside of the simulation, which is shorter than either.
"""

from sql.webhook_outbox import DueDelivery
from sql.webhook_store import StoredEvent


class Endpoint:
    """One receiver of one account; it wants the kinds in `types`."""

    def __init__(self, name, account, url, secret, types):
        self.name = name
        self.account = account
        self.url = url
        self.secret = secret
        self.types = types
        self.failures = 0
        self.closed_until_us = 0


class Delivery:
    """A row: what is to be told, and how it stands."""

    def __init__(self, number, new):
        self.id = number
        self.new = new
        self.state = "pending"
        self.next_attempt_at_us = new.next_attempt_at_us
        self.attempts = 0


class OutboxRows:
    """What outlives a sender."""

    def __init__(self):
        self.endpoints = {}
        self.position = 0
        self.deliveries = {}
        self.by_key = {}
        self.pending = {}


class OutboxTwin:
    """One sender's way to those rows."""

    def __init__(self, shard, rows, trip):
        self._shard = shard
        self._rows = rows
        self._trip = trip

    async def watched(self):
        await self._trip()
        return frozenset(endpoint.account for endpoint in self._rows.endpoints.values())

    async def position(self):
        await self._trip()
        return self._rows.position

    async def save_position(self, position):
        await self._trip()
        self._rows.position = max(self._rows.position, position)

    async def head(self):
        await self._trip()
        return len(self._shard.events)  # an event's number is its place in the order of commits

    async def wanted(self, after, upto, types):
        await self._trip()
        found = []
        for number in range(max(after[0], 1), upto + 1):
            event = self._shard.events[number - 1]
            for name, endpoint in sorted(self._rows.endpoints.items()):
                is_own = event.account in (None, endpoint.account)
                if is_own and event.kind in types and event.kind in endpoint.types and (number, name) > after:
                    body = event.body if event.kind.startswith("notice.") else None
                    found.append(
                        StoredEvent(
                            number, event.account, event.account_seq, str(event.kind), event.at_us, name, body
                        )
                    )
        return found

    async def add(self, deliveries):
        await self._trip()
        for new in deliveries:
            key = (new.endpoint, new.message)
            if key not in self._rows.by_key:
                delivery = Delivery(len(self._rows.deliveries) + 1, new)
                self._rows.by_key[key] = delivery
                self._rows.deliveries[delivery.id] = self._rows.pending[delivery.id] = delivery

    async def due(self, now_us, *, in_flight, full_endpoints, full_for_ordinary, full_accounts, **bounds):
        await self._trip()
        places, found = {}, []
        for delivery in sorted(self._rows.pending.values(), key=_turn):
            endpoint, new = self._rows.endpoints[delivery.new.endpoint], delivery.new
            is_held = endpoint.name in full_endpoints or endpoint.account in full_accounts
            is_shut = bounds["urgent_only"] or endpoint.closed_until_us > now_us
            is_shut = is_shut or endpoint.name in full_for_ordinary
            is_time = delivery.next_attempt_at_us <= now_us < new.deadline_us
            if delivery.id in in_flight or is_held or not is_time or (is_shut and not new.is_urgent):
                continue
            place = places[endpoint.name] = places.get(endpoint.name, 0) + 1
            if place <= bounds["per_endpoint"]:
                found.append(((not new.is_urgent, place, delivery.next_attempt_at_us, delivery.id), delivery))
        found.sort(key=lambda one: one[0])
        return [self._due(delivery) for _, delivery in found[: bounds["limit"]]]

    def _due(self, delivery):
        new, endpoint = delivery.new, self._rows.endpoints[delivery.new.endpoint]
        event = None if new.event is None else self._shard.events[new.event - 1]
        return DueDelivery(
            delivery.id,
            endpoint.name,
            endpoint.account,
            endpoint.url,
            endpoint.secret,
            None,
            None,
            new.message,
            new.kind,
            new.is_urgent,
            new.at_us,
            new.deadline_us,
            delivery.attempts,
            new.body,
            event,
        )

    async def next_due_us(self, now_us, in_flight):
        await self._trip()
        dues = []
        for delivery in self._rows.pending.values():
            closed_us = self._rows.endpoints[delivery.new.endpoint].closed_until_us
            due_us = delivery.next_attempt_at_us
            due_us = due_us if delivery.new.is_urgent else max(due_us, closed_us)
            if delivery.id not in in_flight and due_us > now_us:
                dues.append(due_us)
        return min(dues, default=None)

    async def record(self, delivery, result, breaker):
        await self._trip()
        row = self._rows.pending.get(delivery.id)
        if row is None:
            return
        row.state, row.next_attempt_at_us = result.state, result.next_attempt_at_us
        row.attempts += 1
        if row.state != "pending":
            del self._rows.pending[row.id]
        endpoint = self._rows.endpoints[row.new.endpoint]
        if row.state == "delivered":
            endpoint.failures = endpoint.closed_until_us = 0
            return
        endpoint.failures += 1
        over = endpoint.failures - breaker.failures
        shut_us = 0 if over < 0 else min(breaker.most_us, breaker.first_us << min(over, 20))
        endpoint.closed_until_us = shut_us and result.attempted_at_us + shut_us

    async def sweep(self, now_us):
        """Give up what is too late, as the first of the sweeps does."""
        await self._trip()
        for delivery in list(self._rows.pending.values()):
            if delivery.new.deadline_us <= now_us:
                delivery.state = "failed"
                del self._rows.pending[delivery.id]

    async def tell_statement(self, month, month_end_us, news):
        await self._trip()


def _turn(delivery):
    return not delivery.new.is_urgent, delivery.next_attempt_at_us, delivery.id
