"""The venue of the API's tests, for those that need packages which the usual run does without."""

from tests.api.conftest import api_server, config, database, venue

__all__ = ["api_server", "config", "database", "venue"]
