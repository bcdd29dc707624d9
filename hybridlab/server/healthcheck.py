"""`python -m hybridlab.server.healthcheck PORT`: exit code 0 where it takes requests now.

What a container's health check runs: it needs no curl, no token, and no proxy of the environment.
"""

from __future__ import annotations

import http.client
import sys

TIMEOUT_S = 5.0


def ready(port: int) -> bool:
    """What `/health/ready` of this host says; False where it does not answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(0 if ready(int(sys.argv[1])) else 1)
