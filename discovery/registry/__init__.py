"""The registry: services are registered, found by URL, called and borrowed, with no server to run.

Every process announces what it offers and keeps a view of what it has heard, so a lookup asks nobody. The ideas are
Distribunaut's, on the tuples of Rinda.
"""

from discovery.registry.distributed import Distributed, default_registry, distributable, use_registry
from discovery.registry.finder import ServiceProxy
from discovery.registry.loan import Loan
from discovery.registry.offer import Service
from discovery.registry.registry import Registry
from discovery.registry.url import ServiceURL
from discovery.registry.view import ServiceChange, Watch

__all__ = [
    "Distributed",
    "Loan",
    "Registry",
    "Service",
    "ServiceChange",
    "ServiceProxy",
    "ServiceURL",
    "Watch",
    "default_registry",
    "distributable",
    "use_registry",
]
