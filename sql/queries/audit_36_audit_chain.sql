-- the audit log is one chain: numbered without a gap, each row's hash over itself and the row before
SELECT previous_hash, hash, id, at_us, account, key, scope, address, request_id, method, path,
    encode(request_sha256, 'hex') AS request_sha256, request, status, subject, answer, before
FROM audit_log ORDER BY id
