"""How clouds are shared out among the replicas that are alive."""


def fair_share(resources: int, replicas: int) -> int:
    """How many resources one replica may hold: rounded up, so that all together hold all."""
    return -(-resources // max(1, replicas))
