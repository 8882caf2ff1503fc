"""Every error that `discovery` raises; `DiscoveryError` catches them all."""


class DiscoveryError(Exception):
    """The root of every error of this package."""


class BadTuple(DiscoveryError, ValueError):
    """Not a tuple: neither a sequence nor a mapping with string keys."""


class BadTemplate(DiscoveryError, ValueError):
    """Not a template, or one whose own `matches` raised."""


class BadTime(DiscoveryError, ValueError):
    """A timeout or an expiry that is no number of seconds."""


class RequestExpired(DiscoveryError):
    """Nothing matched within the timeout. Not a TimeoutError: those are OSErrors, and failing work raises them."""


class RequestCanceled(DiscoveryError):
    """The request was given up, or the space or stream was closed, before there was an answer."""


class BadAnnouncement(DiscoveryError, ValueError):
    """What was to be announced cannot be sent."""


class MulticastUnavailable(DiscoveryError, OSError):
    """The machine, or the interface that was named, has no multicast."""
