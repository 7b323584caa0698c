"""The routes that every account has: its keys, its webhooks, its bills."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime

from fallow.client.money import Money
from fallow.client.owner_model import (
    Delivery,
    Entry,
    Key,
    Replay,
    Statement,
    StatementHead,
    Usage,
    Webhook,
)
from fallow.client.requests import Page, Requests, terms_of


class AccountRoutes(Requests):
    """Keys, webhooks and bills of the account whose key this is."""

    async def create_key(
        self,
        name: str,
        scopes: Sequence[str],
        *,
        expires_at: datetime | None = None,
        allowed_networks: Sequence[str] | None = None,
        max_price_per_gpu_hour: Money | None = None,
        max_open_notional_per_hour: Money | None = None,
        spend_cap_per_day: Money | None = None,
        public_key: str | None = None,
    ) -> Key:
        """Make a key with some of this key's scopes; `secret` is shown this once.

        With the `public_key` of a pair (signing.py) there is none: its holder signs.
        """
        limits = terms_of(
            {
                "max_price_per_gpu_hour": max_price_per_gpu_hour,
                "max_open_notional_per_hour": max_open_notional_per_hour,
                "spend_cap_per_day": spend_cap_per_day,
            }
        )
        terms = terms_of(
            {
                "name": name,
                "scopes": list(scopes),
                "expires_at": expires_at,
                "allowed_networks": None if allowed_networks is None else list(allowed_networks),
                "limits": limits or None,
                "type": None if public_key is None else "ed25519",
                "public_key": public_key,
            }
        )
        return await self._post("/v1/keys", Key, terms)

    def keys(self) -> AsyncIterator[Key]:
        """Iterate over your keys, newest first; never their secrets."""
        return self._all("/v1/keys", Key)

    async def rotate_key(
        self, key: str, *, overlap_seconds: int | None = None, public_key: str | None = None
    ) -> Key:
        """Give a key a new secret, shown this once; the old one stays good for a while (default: an hour).

        A key pair is given its new `public_key` instead.
        """
        terms = terms_of({"overlap_seconds": overlap_seconds, "public_key": public_key})
        return await self._post(f"/v1/keys/{key}/rotate", Key, terms)

    async def revoke_key(self, key: str) -> Key:
        """Revoke a key: it stops working now."""
        found: Key = await self._transport.ask("DELETE", f"/v1/keys/{key}", Key)
        return found

    async def create_webhook(
        self, url: str, *, types: Sequence[str] = (), description: str | None = None
    ) -> Webhook:
        """Have events sent to an address; without types all of them. `secret` is shown this once."""
        terms = terms_of({"url": url, "types": list(types), "description": description})
        return await self._post("/v1/webhooks", Webhook, terms)

    def webhooks(self) -> AsyncIterator[Webhook]:
        """Iterate over your endpoints, newest first; never their secrets."""
        return self._all("/v1/webhooks", Webhook)

    async def delete_webhook(self, webhook: str) -> Webhook:
        """Remove an endpoint and all that was still to be sent to it."""
        found: Webhook = await self._transport.ask("DELETE", f"/v1/webhooks/{webhook}", Webhook)
        return found

    async def test_webhook(self, webhook: str) -> Delivery:
        """Have a signed `webhook.test` message sent."""
        return await self._post(f"/v1/webhooks/{webhook}/test", Delivery)

    async def replay_webhook(
        self,
        webhook: str,
        *,
        since: datetime,
        until: datetime | None = None,
        include_delivered: bool | None = None,
        cursor: str | None = None,
    ) -> Replay:
        """Have what failed in this time told again; go on with `next_cursor` where there is one."""
        terms = terms_of({name: value for name, value in locals().items() if name != "webhook"})
        return await self._post(f"/v1/webhooks/{webhook}/replay", Replay, terms)

    def webhook_deliveries(self, webhook: str, *, state: str | None = None) -> AsyncIterator[Delivery]:
        """Iterate over what was and is to be told to an endpoint, newest first."""
        return self._all(f"/v1/webhooks/{webhook}/deliveries", Delivery, state=state)

    def usage(
        self,
        *,
        group_by: str = "day",
        label: str | None = None,
        from_time: datetime | None = None,
        to_time: datetime | None = None,
    ) -> AsyncIterator[Usage]:
        """Iterate over metered GPU time and its cost by lease, bid, market, day, hour or label."""
        query = terms_of({"group_by": group_by, "label": label, "from": from_time, "to": to_time})
        return self._all("/v1/usage", Usage, **query)

    async def statements(self) -> list[StatementHead]:
        """Return the months since your account was opened, newest first."""
        return (await self._get("/v1/statements", Page[StatementHead])).data

    async def statement(self, statement: str) -> Statement:
        """Return a month (2026-11): what it began with, what moved, what it ended with."""
        return await self._get(f"/v1/statements/{statement}", Statement)

    def ledger(self) -> AsyncIterator[Entry]:
        """Iterate over every line of your ledger, newest first, each with the balance after it."""
        return self._all("/v1/ledger/entries", Entry)
