"""The node agent: what an owner runs on a machine whose GPUs it lends."""
