-- Forget the old secret of an endpoint when its rotation is over.
UPDATE webhook_endpoints SET previous_secret = NULL, previous_until_us = NULL WHERE previous_until_us <= $1
