"""Choose between two rings. Each contains a tuple that says which ring it is."""

from discovery import RingFinger, RingServer
from discovery.errors import RingNotFound


def main() -> None:
    here = "127.0.0.1"  # leave it out to share the rings with the whole network
    with RingServer(port=0, host=here) as first, RingServer(port=0, host=here) as second:
        first.space.write(("ring", "first"))
        second.space.write(("ring", "second"))

        finger = RingFinger(["localhost"], port=second.port)
        print(f"before the lookup: {finger.primary}")
        finger.lookup_ring_any()
        assert finger.primary is not None
        print(f"by its port: {finger.primary.read(('ring', None))[1]}")

        # A ring that is found under several names counts once.
        finger = RingFinger(["localhost", "127.0.0.1", f"localhost:{second.port}"], port=first.port)
        print(f"all: {sorted(ring.read(('ring', None))[1] for ring in finger)}")

    try:
        finger.lookup_ring_any(timeout=1)
    except RingNotFound as exc:
        print(f"closed: {str(exc).split(' within')[0].replace(str(first.port), 'N').replace(str(second.port), 'M')}")


if __name__ == "__main__":
    main()
