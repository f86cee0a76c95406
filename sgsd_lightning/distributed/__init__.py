"""Several processes: collectives, sharded policies, and all private FSDP2 API in one place."""
