"""One register out of an odd number of memcacheds, of which a minority may fail."""

from election.stores.quorum.register import QuorumRegister, connect

__all__ = ["QuorumRegister", "connect"]
