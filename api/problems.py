"""Every problem code the market can answer with: its status, and what to do about it.

The texts are served at /problems/{code}, which is the `type` of each problem. A code is part of the
contract: it may gain a better text, never another meaning or status.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """One code. `fix` tells the caller what to change; a retryable one may be sent again as it is."""

    status: int
    title: str
    fix: str
    is_retryable: bool = False


PROBLEMS: dict[str, Kind] = {
    # 400: could not be read at all
    "malformed": Kind(400, "Malformed request", "Send a complete JSON or msgpack document in UTF-8."),
    "malformed_header": Kind(
        400, "Malformed header", "Idempotency-Key: 1..255 printable ASCII characters; If-Match: one ETag."
    ),
    # 401, 403: who
    "unauthenticated": Kind(
        401, "No valid key", "Send `Authorization: Bearer fal_…` with a key that is still valid."
    ),
    "signature_untimely": Kind(
        401,
        "Signed at another time",
        "Set the clock; `GET /v1/time` tells the server's. Sign each request anew.",
    ),
    "signature_replayed": Kind(
        401, "Signed before", "Use a fresh nonce for every request, repeats included."
    ),
    "content_digest_mismatch": Kind(
        401, "Not the body that was signed", "Send the Content-Digest of the body (RFC 9530) and sign it."
    ),
    "origin_refused": Kind(
        403,
        "Not from a page of this server",
        "With a session's cookie, send this server's Origin; or use a key.",
    ),
    "scope_missing": Kind(403, "The key lacks a scope", "Use a key with the scope named in `scope`."),
    "scope_exceeded": Kind(403, "Scope not yours to give", "A key can mint only a subset of its own scopes."),
    "account_frozen": Kind(403, "The account is frozen", "Ask the operator of this market to reopen it."),
    "address_not_allowed": Kind(
        403, "Not from this address", "Use the key from its networks, or one that is bound to none."
    ),
    "key_stopped": Kind(
        403, "The key was stopped", "POST /v1/keys/{key}/resume with another key of the account."
    ),
    "key_limited": Kind(403, "The key has limits itself", "Use a key of the account that has none."),
    "not_a_buyer": Kind(403, "The account is no buyer", "Use an account with the role `buyer`."),
    "not_an_owner": Kind(403, "The account is no owner", "Use an account with the role `owner`."),
    "not_an_operator": Kind(403, "The account is no operator", "Use an operator's key."),
    "deposit_not_allowed": Kind(
        403, "Deposits are the operator's", "Only a demo lets you deposit to your own account."
    ),
    "simulation_not_allowed": Kind(
        403, "No simulated nodes here", "Simulated nodes exist on demo markets only; enrol a real node."
    ),
    # 402
    "insufficient_funds": Kind(
        402,
        "Not enough available money",
        "Deposit what `required` exceeds `available` by, or bid less.",
    ),
    # 404, 405, 406
    "not_found": Kind(404, "Not found", "Check the id; what belongs to another account is not found either."),
    "market_not_found": Kind(404, "No such market", "List the markets with GET /v1/markets."),
    "method_not_allowed": Kind(405, "Method not allowed", "See /openapi.json for the methods of this path."),
    "not_acceptable": Kind(406, "No such representation", "Accept application/json or application/msgpack."),
    "request_timeout": Kind(408, "The body came too slowly", "Send it at once.", is_retryable=True),
    # 409: state
    "client_bid_id_conflict": Kind(
        409, "client_bid_id used for another bid", "Use a new client_bid_id, or repeat the first bid exactly."
    ),
    "batch_aborted": Kind(
        409,
        "Nothing of the atomic batch was done",
        "One operation was refused; its own result says why. Correct it or leave it out, and send all again.",
    ),
    "idempotency_in_progress": Kind(
        409, "The first request still runs", "Send it again in a moment.", is_retryable=True
    ),
    "sessions_reached": Kind(
        409, "Too many browsers are signed in", "Sign one out: DELETE /v1/sessions/{id}."
    ),
    "sign_in_links_reached": Kind(409, "Too many unused sign-in links", "Wait ten minutes, or use one."),
    "bid_final": Kind(409, "The bid has ended", "Place a new bid."),
    "payout_above_earning": Kind(
        409, "More than is earned", "`available` is what you have earned and not asked for yet."
    ),
    "payout_limit_reached": Kind(409, "Too many open payouts", "Wait until one is paid."),
    "payout_closed": Kind(409, "The payout is closed", "It is paid or failed; ask for a new one."),
    "bid_lapsed": Kind(409, "The bid's last tick is over", "It keeps what it has; place a new bid for more."),
    "bid_limit_reached": Kind(409, "Too many live bids", "Cancel bids of this market first."),
    "self_trade": Kind(409, "Both sides of one market", "One account either bids or offers in a market."),
    "node_gpus_exceeded": Kind(409, "The node has no such free GPUs", "Offer fewer, or withdraw an offer."),
    "node_name_taken": Kind(409, "The name is taken", "Give the node another name."),
    "node_in_use": Kind(
        409, "Offers or leases are on the node", "Recall it; when the last lease has ended, ask again."
    ),
    "replay_running": Kind(409, "A replay is running", "Ask again when it has ended.", is_retryable=True),
    "journal_too_long": Kind(409, "The journal is too long to replay here", "Run `fallow replay`."),
    "offer_final": Kind(409, "The offer has ended", "Post a new offer."),
    "notice_closed": Kind(409, "The notice is closed", "Nothing is left to acknowledge."),
    "lease_ended": Kind(409, "The lease has ended", "Nothing is left to release or report."),
    "invalid_transition": Kind(409, "Not in this state", "Read the object again and act on its state."),
    "account_exists": Kind(409, "The account exists", "Use the account, or send another id."),
    "market_exists": Kind(409, "The market exists", "Use another id."),
    "account_limit_reached": Kind(409, "Too many accounts", "This market is full."),
    "key_revoked": Kind(409, "The key is revoked", "It stays revoked; create a new one."),
    "webhook_limit_reached": Kind(
        409, "Too many webhook endpoints", "Delete one first; `detail` says how many."
    ),
    "webhook_disabled": Kind(409, "The endpoint is disabled", "Enable it: PATCH it with `enabled: true`."),
    "open_notional_exceeded": Kind(
        409,
        "More than this key or account may have open",
        "Bid for `available` per hour at most, cancel bids, or have the limit raised.",
    ),
    "spend_cap_reached": Kind(
        409,
        "The day's spend cap is reached",
        "`available` is left of today, UTC; wait for tomorrow, or have the cap raised.",
    ),
    "target_limit_reached": Kind(409, "Too many targets", "Cancel one, or wait until one has ended."),
    "target_final": Kind(409, "The target has ended", "Make a new one."),
    "bid_of_target": Kind(
        409,
        "A target looks after this bid",
        "Change the target: PATCH /v1/targets/{target}; it is in `labels`.",
    ),
    "limited_scopes_reached": Kind(409, "Too many keys with limits", "Revoke some."),
    "affiliation_full": Kind(409, "Too many accounts belong together", "Use another affiliation."),
    # 412, 413, 415, 428
    "version_mismatch": Kind(412, "Changed in between", "Read it again and send the new ETag in If-Match."),
    "too_large": Kind(413, "The body is too large", "At most 64 KiB, 256 kB for a batch: send several."),
    "unsupported_media_type": Kind(
        415, "Not a type this server reads", "Send application/json or application/msgpack, not compressed."
    ),
    "precondition_required": Kind(428, "If-Match is required", "Send the ETag of what you read in If-Match."),
    # 422: readable, but a value is wrong
    "invalid_value": Kind(422, "A value is not allowed", "`errors` names each field and what was expected."),
    "unknown_field": Kind(422, "A field does not exist", "Remove it; /openapi.json lists the fields."),
    "missing_field": Kind(422, "A field is missing", "Add it; /openapi.json lists the fields."),
    "nothing_to_change": Kind(422, "Nothing to change", "Send at least one field."),
    "payload_invalid": Kind(
        422, "Not a payload", "Send a command, an image or both, 16 KiB as JSON at most, keys included."
    ),
    "price_not_on_increment": Kind(
        422, "The price is between two steps", "Use `below` or `above`, the nearest legal prices."
    ),
    "price_out_of_range": Kind(422, "The price is out of range", "See the market's increment and cap."),
    "max_price_exceeded": Kind(
        422, "Above what this key or account may bid", "Bid `maximum` at most, or have the limit raised."
    ),
    "confirmation_required": Kind(
        422,
        "Far above the market's price",
        "If you mean it, send it again with `confirm_limit: true`; up to `maximum` nobody asks.",
    ),
    "target_unreachable": Kind(
        422,
        "The target cannot be met",
        "`accepted` names values of which each alone, all else as sent, would make it one.",
    ),
    "gpus_out_of_range": Kind(422, "The number of GPUs is out of range", "See `errors` for the bounds."),
    "alternatives_invalid": Kind(
        422,
        "The alternatives do not go together",
        "Name up to 8 different markets of one price increment instead of `market` and its limit.",
    ),
    "market_required": Kind(
        422, "The bid has a limit in each of its markets", "Send `market` with the new limit."
    ),
    "colocate_invalid": Kind(
        422,
        "The GPUs cannot be co-located",
        "Ask for 1, 2, 4 or 8 GPUs (`fabric`: also 16, 32 or 64) with no `min_gpus` but `gpus`.",
    ),
    "min_gpus_out_of_range": Kind(422, "min_gpus is out of range", "It is at least 1 and at most `gpus`."),
    "time_in_force_invalid": Kind(
        422,
        "The bid's ends contradict each other",
        "gtt needs `expires_at`; ioc has neither that nor `valid_until_tick`, and `on_preempt` cancel.",
    ),
    "expires_at_passed": Kind(422, "expires_at is in the past", "Send a time to come; see GET /v1/time."),
    "valid_until_tick_passed": Kind(
        422, "That tick is over", "Send a tick to come; see the market's `tick`."
    ),
    "max_spend_too_small": Kind(
        422, "The cap is below the hold", "Raise max_spend to `minimum`, or bid less."
    ),
    "notice_seconds_out_of_range": Kind(
        422, "The notice is out of range", "An offer promises at least its market's notice."
    ),
    "window_invalid": Kind(422, "The window is empty", "available_until lies after available_from and now."),
    "window_too_long": Kind(422, "The time is too long", "Ask for a shorter one; `detail` says how long."),
    "too_many_groups": Kind(422, "Too many groups", "Ask for a shorter time."),
    "amount_out_of_range": Kind(422, "The amount is out of range", "Amounts are above zero and bounded."),
    "market_invalid": Kind(422, "The market's settings contradict", "See `detail`."),
    "timing_invalid": Kind(422, "The market's times contradict", "See `detail`."),
    "cost_out_of_range": Kind(422, "A cost is out of range", "`errors` names the input and its bounds."),
    "residual_invalid": Kind(
        422, "The residual value is too low", "A machine is worth more than its scrap value until the end."
    ),
    "power_invalid": Kind(422, "Idle power above load", "idle_watts is at most load_watts."),
    "role_unknown": Kind(422, "No such role", "Roles are buyer, owner and operator."),
    "state_unknown": Kind(422, "No such state", "See `detail` for the states."),
    "webhook_url_invalid": Kind(
        422,
        "Not an address for webhooks",
        "Send `https://host/path` in ASCII, on port 443, without user or fragment; see `detail`.",
    ),
    "webhook_address_forbidden": Kind(
        422,
        "The address is not public",
        "Use an address that is reachable from everywhere; an operator can allow more (`webhook_reach`).",
    ),
    "idempotency_key_reused": Kind(
        422, "Idempotency-Key used for another request", "Use a new key for a new request."
    ),
    # 429, 5xx
    "rate_limited": Kind(429, "Too many requests", "Wait for Retry-After.", is_retryable=True),
    "too_many_tickets": Kind(
        429, "Too many unused tickets", "Use them, or wait until they are over.", is_retryable=True
    ),
    "too_many_signatures": Kind(
        429, "Too many nonces to remember", "Sign again a minute later, or send less.", is_retryable=True
    ),
    "signed_before_start": Kind(
        503, "Signed before this server began", "Sign again, with a new nonce.", is_retryable=True
    ),
    "engine_error": Kind(
        500, "Our fault", "Nothing was done. Sent again it fails again: the operator has to look at it."
    ),
    "internal_error": Kind(500, "Our fault", "Repeat it with the same Idempotency-Key.", is_retryable=True),
    "market_halted": Kind(503, "The market is halted", "Cancels work; try again later.", is_retryable=True),
    "market_cancel_only": Kind(
        503, "The market accepts cancels only", "Cancel, or try again later.", is_retryable=True
    ),
    "inbox_full": Kind(503, "The market is busy", "Wait for Retry-After.", is_retryable=True),
    "storage_unavailable": Kind(503, "The database is away", "Wait for Retry-After.", is_retryable=True),
    "storage_full": Kind(
        503, "The database has no room", "Cancels and reads still work; try again later.", is_retryable=True
    ),
    "draining": Kind(503, "The server is stopping", "Wait for Retry-After.", is_retryable=True),
    "too_many_connections": Kind(
        503, "Too many connections", "Use one connection for many requests; try again.", is_retryable=True
    ),
    "not_ready": Kind(503, "The market is starting", "Wait for Retry-After.", is_retryable=True),
}
