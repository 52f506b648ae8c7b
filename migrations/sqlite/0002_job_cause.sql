-- The request that brought a job about: its log lines and its trace lead back to it.
ALTER TABLE oms_job ADD COLUMN request_id TEXT;
ALTER TABLE oms_job ADD COLUMN traceparent TEXT;
ALTER TABLE oms_job_dead ADD COLUMN request_id TEXT;
ALTER TABLE oms_job_dead ADD COLUMN traceparent TEXT;
