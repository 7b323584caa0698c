/* The O(N) clearings that the kernel is compared with: one pass over all bids, in plain C.

   `full_pass` clears flat columns that lie in order of arrival and writes who won. The flat book keeps
   its bids in slots like the kernel does, takes the same changes and reports the same differences, but
   looks at every slot at each clearing. Divisible bids, no handicap; `supply[level]` is the number of
   GPUs with a reserve up to that level; levels are 1..level_count, NONE is no price. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { NONE = -1, LEVELS_MAX = 1 << 17, BLOCK = 64 };

typedef struct {
    int32_t price;
    int32_t margin;      /* the highest level that is not fully served; 0: there is none */
    int64_t sold;
    int64_t left;        /* GPUs for the bids of that level */
    int64_t margin_bid;  /* the bid that is served in part, or NONE */
    int64_t margin_fill; /* what it gets */
} Result;

typedef struct {
    int32_t *limits, *gpus, *min_gpus, *accounts, *valid_until, *fills;
    uint64_t *arrivals; /* tick * 2^32 + hash */
    int64_t *seqs;
    int32_t *free_slots;
    int64_t free_count, end, capacity;
} FlatBook;

typedef struct {
    uint64_t arrival;
    int64_t seq;
    int32_t slot;
} Marginal;

/* Finds the margin and the price (RULES.md R5 and R6 for divisible newcomers). */
static void cross(const int64_t *demand, const int64_t *supply, int32_t level_count, Result *result)
{
    int64_t sold = 0;
    int32_t level = level_count, ceil = NONE, floor = 0, price;
    result->margin = 0;
    result->left = 0;
    for (; level >= 1; level--) {
        if (demand[level] == 0)
            continue;
        if (sold + demand[level] > supply[level]) {
            result->margin = level;
            result->left = supply[level] > sold ? supply[level] - sold : 0;
            sold += result->left;
            if (result->left > 0)
                ceil = level;
            break;
        }
        sold += demand[level];
        ceil = level;
    }
    result->sold = sold;
    result->price = NONE;
    if (sold == 0)
        return;
    while (supply[floor] < sold)
        floor++;
    price = floor > result->margin ? floor : result->margin;
    if (price > ceil)
        price = ceil;
    if (supply[level_count] > sold) {
        int32_t unsold = floor;
        while (supply[unsold] <= sold)
            unsold++;
        if (price > unsold)
            price = unsold;
    }
    result->price = price;
}

/* Clears `count` bids in order of arrival; won[i] is 1 for each that is served in full. */
void full_pass(
    int64_t count, const int32_t *limits, const int32_t *gpus, int32_t level_count, const int64_t *supply,
    uint8_t *won, Result *result)
{
    static int64_t demand[LEVELS_MAX + 1];
    memset(demand, 0, (level_count + 1) * sizeof(demand[0]));
    for (int64_t i = 0; i < count; i++)
        demand[limits[i]] += gpus[i];
    cross(demand, supply, level_count, result);
    int32_t margin = result->margin;
    int64_t left = result->left;
    result->margin_bid = NONE;
    result->margin_fill = 0;
    for (int64_t start = 0; start < count; start += BLOCK) {
        int64_t end = start + BLOCK < count ? start + BLOCK : count;
        int32_t is_marginal = 0;
        for (int64_t i = start; i < end; i++) {
            won[i] = limits[i] > margin;
            is_marginal |= limits[i] == margin;
        }
        if (!is_marginal || left == 0)
            continue;
        for (int64_t i = start; i < end && left > 0; i++) {
            if (limits[i] != margin)
                continue;
            if (gpus[i] <= left) {
                won[i] = 1;
                left -= gpus[i];
            } else {
                result->margin_bid = i;
                result->margin_fill = left;
                left = 0;
            }
        }
    }
}

/* Takes a tick's changes: returns 0, or NONE for a bid that is not there or not valid. */
int32_t flat_apply(
    FlatBook *book, int32_t level_count, int64_t cancel_count, const int32_t *cancels, int64_t place_count,
    const int32_t *limits, const int32_t *gpus, const int32_t *min_gpus, const uint32_t *hashes,
    const int32_t *accounts, const int32_t *valid_until, int64_t tick, int64_t first_seq, int32_t *slots)
{
    for (int64_t i = 0; i < cancel_count; i++) {
        int32_t slot = cancels[i];
        if (slot < 0 || slot >= book->end || book->gpus[slot] == 0)
            return NONE;
        book->gpus[slot] = 0;
        book->fills[slot] = 0;
        book->free_slots[book->free_count++] = slot;
    }
    for (int64_t i = 0; i < place_count; i++) {
        if (limits[i] < 1 || limits[i] > level_count || min_gpus[i] < 1 || gpus[i] < min_gpus[i])
            return NONE;
        if (book->free_count == 0 && book->end == book->capacity)
            return NONE;
        int32_t slot = book->free_count ? book->free_slots[--book->free_count] : (int32_t) book->end++;
        book->limits[slot] = limits[i];
        book->gpus[slot] = gpus[i];
        book->min_gpus[slot] = min_gpus[i];
        book->arrivals[slot] = ((uint64_t) tick << 32) + hashes[i];
        book->seqs[slot] = first_seq + i;
        book->accounts[slot] = accounts[i];
        book->valid_until[slot] = valid_until[i];
        book->fills[slot] = 0;
        slots[i] = slot;
    }
    return 0;
}

static int by_arrival(const void *a, const void *b)
{
    const Marginal *x = a, *y = b;
    if (x->arrival != y->arrival)
        return x->arrival < y->arrival ? -1 : 1;
    return (x->seq > y->seq) - (x->seq < y->seq);
}

/* Clears the flat book; writes the slots whose fill changed and returns how many, or NONE. */
int64_t flat_clear(
    FlatBook *book, int32_t level_count, const int64_t *supply, int32_t *changed, int32_t *changed_fills,
    Result *result)
{
    static int64_t demand[LEVELS_MAX + 1];
    memset(demand, 0, (level_count + 1) * sizeof(demand[0]));
    for (int64_t slot = 0; slot < book->end; slot++)
        demand[book->limits[slot]] += book->gpus[slot];
    cross(demand, supply, level_count, result);
    int32_t margin = result->margin;
    const int32_t *limits = book->limits, *gpus = book->gpus;
    int32_t *fills = book->fills;
    int64_t count = 0, marginal_count = 0;
    /* A bid asks for one GPU at least. */
    Marginal *marginals = malloc(((margin ? demand[margin] : 0) + 1) * sizeof(Marginal));
    if (marginals == NULL)
        return NONE;
    for (int64_t start = 0; start < book->end; start += BLOCK) {
        int64_t end = start + BLOCK < book->end ? start + BLOCK : book->end;
        int32_t is_changed = 0;
        /* Without branches, so that the compiler makes vectors of it; few blocks are looked at again. */
        for (int64_t slot = start; slot < end; slot++) {
            int32_t fill = -(limits[slot] > margin) & gpus[slot];
            is_changed |= (fill ^ fills[slot]) | (limits[slot] == margin);
        }
        if (!is_changed)
            continue;
        for (int64_t slot = start; slot < end; slot++) {
            if (limits[slot] == margin) {
                if (gpus[slot] > 0)
                    marginals[marginal_count++] =
                        (Marginal) {book->arrivals[slot], book->seqs[slot], (int32_t) slot};
                continue;
            }
            int32_t fill = limits[slot] > margin ? gpus[slot] : 0;
            if (fill != fills[slot]) {
                fills[slot] = fill;
                changed[count] = (int32_t) slot;
                changed_fills[count++] = fill;
            }
        }
    }
    qsort(marginals, marginal_count, sizeof(Marginal), by_arrival);
    int64_t left = result->left;
    for (int64_t i = 0; i < marginal_count; i++) {
        int32_t slot = marginals[i].slot;
        int32_t fill = book->gpus[slot] < left ? book->gpus[slot] : (int32_t) left;
        left -= fill;
        if (fill != book->fills[slot]) {
            book->fills[slot] = fill;
            changed[count] = slot;
            changed_fills[count++] = fill;
        }
    }
    free(marginals);
    return count;
}
