"""Wait until a service is ready: `ready.py HOST:PORT SECONDS`; exit 1 where it is not by then."""

import sys
import time
import urllib.request
from contextlib import suppress

EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def main(place: str, seconds: str) -> bool:
    """Whether `/readyz` said so in time; no proxy is asked."""
    host, _, port = place.rpartition(":")
    host = EVERYWHERE.get(host, host)
    url = f"http://[{host}]:{port}/readyz" if ":" in host else f"http://{host}:{port}/readyz"
    http = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        with suppress(OSError, ValueError), http.open(url, timeout=5):
            return True
        time.sleep(0.3)
    return False


if __name__ == "__main__":
    sys.exit(not main(*sys.argv[1:]))
