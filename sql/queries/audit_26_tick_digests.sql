-- every tick's digest is the SHA-256 of its contents
--
-- Read in blocks and hashed outside the server, with another implementation of the hash.
SELECT market, tick, previous_digest, input_hash, output_hash, digest FROM ticks
