-- An engine writes a whole transaction as one statement where it can (sql/store.py). Its fence, the first part of
-- it, must then end the statement itself when it does not hold.

CREATE FUNCTION require_fence(rows_held bigint) RETURNS bigint LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF rows_held = 0 THEN
        RAISE EXCEPTION 'another engine has taken the shard' USING ERRCODE = 'FA001';
    END IF;
    RETURN rows_held;
END $$;
REVOKE ALL ON FUNCTION require_fence FROM PUBLIC;
GRANT EXECUTE ON FUNCTION require_fence TO fallow_engine;
