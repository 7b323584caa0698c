"""The owner's routes: nodes, what they offer, what they earned."""

from collections.abc import AsyncIterator
from datetime import datetime

from msgspec.structs import replace

from fallow.client.money import Money
from fallow.client.owner_model import Node, Offer, OwnerSummary, Recall
from fallow.client.requests import PAGE, ROWS_MAX, Requests, terms_of


class OwnerRoutes(Requests):
    """Nodes and offers of the account whose key this is."""

    async def create_node(
        self,
        name: str,
        market: str,
        *,
        gpus: int,
        fabric: str | None = None,
        simulated: bool | None = None,
    ) -> Node:
        """Register a machine; a simulated one is played by the server, on demo markets."""
        return await self._post("/v1/nodes", Node, terms_of(locals()))

    async def node(self, node: str) -> Node:
        """Return one node, with how it delivered in the last 30 days."""
        return await self._get(f"/v1/nodes/{node}", Node)

    def nodes(self) -> AsyncIterator[Node]:
        """Iterate over your nodes, newest first."""
        return self._all("/v1/nodes", Node)

    async def cordon(self, node: str) -> Node:
        """Stop new leases on a node; what runs goes on."""
        return await self._post(f"/v1/nodes/{node}/cordon", Node)

    async def uncordon(self, node: str) -> Node:
        """Allow new leases on a node again."""
        return await self._post(f"/v1/nodes/{node}/uncordon", Node)

    async def recall(
        self, node: str, *, notice_seconds: int | None = None, version: int | None = None
    ) -> Recall:
        """Take a node back: its offers are withdrawn and its leases get their notice.

        Without `notice_seconds` it is the notice that each offer promised. With the `version` of a preview
        it is refused if the node has changed since.
        """
        terms = terms_of({"notice_seconds": notice_seconds})
        path = f"/v1/nodes/{node}/recall"
        found: Recall = await self._transport.ask("POST", path, Recall, body=terms, version=version)
        return found

    async def preview_recall(self, node: str, *, notice_seconds: int | None = None) -> Recall:
        """Return the leases that a recall would end; nothing happens, and no notice is issued."""
        terms = terms_of({"notice_seconds": notice_seconds, "preview": True})
        return await self._post(f"/v1/nodes/{node}/recall", Recall, terms)

    async def create_offer(
        self,
        node: str,
        *,
        gpus: int,
        reserve_price_per_gpu_hour: Money,
        available_from: datetime | None = None,
        available_until: datetime | None = None,
        notice_seconds: int | None = None,
    ) -> Offer:
        """Offer GPUs of a node at no less than a reserve."""
        return await self._post("/v1/offers", Offer, terms_of(locals()))

    async def offer(self, offer: str) -> Offer:
        """Return one offer."""
        return await self._get(f"/v1/offers/{offer}", Offer)

    def offers(self, *, node: str | None = None, status: str | None = None) -> AsyncIterator[Offer]:
        """Iterate over your offers, newest first."""
        return self._all("/v1/offers", Offer, node=node, status=status)

    async def amend_offer(
        self,
        offer: str,
        *,
        reserve_price_per_gpu_hour: Money | None = None,
        available_until: datetime | None = None,
        version: int | None = None,
    ) -> Offer:
        """Change an offer's reserve or end, of the version given or else of the one that is read first."""
        terms = terms_of(
            {"reserve_price_per_gpu_hour": reserve_price_per_gpu_hour, "available_until": available_until}
        )
        version = (await self.offer(offer)).version if version is None else version
        path = f"/v1/offers/{offer}"
        found: Offer = await self._transport.ask("PATCH", path, Offer, body=terms, version=version)
        return found

    async def withdraw_offer(self, offer: str, *, version: int | None = None) -> Offer:
        """Withdraw an offer: leases on it get the notice it promised."""
        version = (await self.offer(offer)).version if version is None else version
        found: Offer = await self._transport.ask("DELETE", f"/v1/offers/{offer}", Offer, version=version)
        return found

    async def owner_summary(
        self,
        *,
        group_by: str = "day",
        node: str | None = None,
        from_time: datetime | None = None,
        to_time: datetime | None = None,
        purchase_price_per_gpu: Money | None = None,
    ) -> OwnerSummary:
        """Return what your nodes offered, leased and earned, by day, node or node_day; a week by default.

        With the price paid for a GPU it is held against the costs.
        """
        query = terms_of(
            {
                "group_by": group_by,
                "node": node,
                "from": from_time,
                "to": to_time,
                "purchase_price_per_gpu": purchase_price_per_gpu,
                "limit": PAGE,
            }
        )
        summary = await self._get("/v1/owner/summary", OwnerSummary, **query)
        groups, cursor = list(summary.data), summary.next_cursor
        while cursor is not None and len(groups) < ROWS_MAX:
            following = await self._get("/v1/owner/summary", OwnerSummary, **query, cursor=cursor)
            groups += following.data
            cursor = following.next_cursor
        return replace(summary, data=groups, next_cursor=cursor)
