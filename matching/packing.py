"""Placement: which bid's GPUs come from which offer, once the clearing has said how many.

The cheapest units are sold, as the price rule assumes. Who already runs on a sold unit stays there;
the rest goes where it fits best. Without co-location placement cannot fail: the fills add up to the
units sold. Integers in, integers out; the result depends on the order of the arguments only through
the offers' and bids' own numbers.
"""

from collections.abc import Mapping, Sequence

OfferUnits = tuple[int, int, int]  # (reserve, number, gpus)


def sold_by_offer(offers: Sequence[OfferUnits], sold: int, kept: Mapping[int, int]) -> dict[int, int]:
    """Spread `sold` GPUs over offers, cheapest first; return {number: gpus} without zeros.

    Offers are (reserve, number, gpus). Inside the marginal reserve level, units on which winners run
    now (`kept`, by offer) come first: nobody is moved between equal prices without need.
    """
    result: dict[int, int] = {}
    left = sold
    ordered = sorted(offers)
    start = 0
    while left > 0:
        assert start < len(ordered), "more sold than offered"
        end = start
        while end < len(ordered) and ordered[end][0] == ordered[start][0]:
            end += 1
        level = ordered[start:end]
        if sum(gpus for _, _, gpus in level) <= left:
            for _, number, gpus in level:
                result[number] = gpus
                left -= gpus
        else:
            for _, number, gpus in level:
                taken = min(left, gpus, kept.get(number, 0))
                if taken:
                    result[number] = taken
                    left -= taken
            for _, number, gpus in level:
                taken = min(left, gpus - result.get(number, 0))
                if taken:
                    result[number] = result.get(number, 0) + taken
                    left -= taken
        start = end
    return result


def place(
    fills: Sequence[tuple[int, int]],
    offers: Sequence[OfferUnits],
    held: Mapping[tuple[int, int], int],
    pending: Mapping[tuple[int, int], int],
) -> dict[tuple[int, int], int]:
    """Assign fills to offers; return {(bid, offer): gpus}.

    `fills` are (bid number, gpus > 0); `held` and `pending` say how many GPUs of which offer a bid
    occupies or waits for now. A bid first stays where it runs, then keeps what it waits for, then
    takes the smallest offer that holds all it still needs, else the largest ones.
    """
    wanted = dict(fills)
    kept: dict[int, int] = {}
    for (bid, offer), gpus in held.items():
        if bid in wanted:
            kept[offer] = kept.get(offer, 0) + min(gpus, wanted[bid])
    free = sold_by_offer(offers, sum(wanted.values()), kept)
    placed: dict[tuple[int, int], int] = {}

    def take(bid: int, offer: int, gpus: int) -> None:
        taken = min(gpus, wanted[bid], free.get(offer, 0))
        if taken > 0:
            placed[bid, offer] = placed.get((bid, offer), 0) + taken
            wanted[bid] -= taken
            free[offer] -= taken

    for current in (held, pending):
        for bid, offer in sorted(current):
            if bid in wanted:
                take(bid, offer, current[bid, offer])
    for bid in sorted(wanted, key=lambda bid: (-wanted[bid], bid)):
        while wanted[bid] > 0:
            open_offers = [(gpus, offer) for offer, gpus in free.items() if gpus > 0]
            enough = [choice for choice in open_offers if choice[0] >= wanted[bid]]
            gpus, offer = min(enough) if enough else max(open_offers, key=lambda c: (c[0], -c[1]))
            take(bid, offer, gpus)
    return placed
