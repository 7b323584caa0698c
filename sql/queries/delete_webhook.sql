-- Hide an endpoint ($1 account, $2 id, $3 now) and forget its secrets; the sweep takes the rows away.
UPDATE webhook_endpoints
SET state = 'deleted', reason = NULL, secret = '', previous_secret = NULL, previous_until_us = NULL,
    updated_at_us = $3, version = version + 1
WHERE account = $1 AND id = $2 AND state <> 'deleted'
