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


class BadAccessRule(DiscoveryError, ValueError):
    """An access list holds something that is not `allow` or `deny` with an address, a network or `all`."""


class BadAddress(DiscoveryError, ValueError):
    """A text is not the address of an object; the message shows the text and the form."""


class BadMessage(DiscoveryError):
    """Bytes arrived over the network that are not a valid message of this protocol."""


class CannotTravel(DiscoveryError, TypeError):
    """A value that cannot be sent to another process, refused before anything is sent."""


class ConnectionLost(DiscoveryError, ConnectionError):
    """The other side could not be reached, refused us, or went away.

    `maybe_executed` is False when the call was certainly not carried out, so that another provider may safely be
    asked instead; True when it may have been. `value` is what a `take` had brought, where the connection broke while
    the take was being confirmed: it may still be in the space as well.
    """

    maybe_executed = False
    value: object = None

    def __init__(self, message: str, *, maybe_executed: bool = False, value: object = None) -> None:
        super().__init__(message)
        self.maybe_executed = maybe_executed
        self.value = value


class CallTimeout(ConnectionLost, TimeoutError):
    """No answer in the time that the client allows for a call."""


class NoSuchObject(DiscoveryError, LookupError):
    """The server has no such object: it never had it, or serves it no longer."""


class NoSuchMethod(DiscoveryError, AttributeError):
    """The object has no public method of that name."""


class UnknownClass(DiscoveryError, AttributeError):
    """A method or an attribute of a value was used, but the class of the value is not known in this process."""


class RemoteError(DiscoveryError):
    """The served object raised an error of a class that is not known here.

    `type_name` is the class's full name over there, `remote_traceback` where it was raised, as text.
    """

    type_name = ""
    remote_traceback = ""

    def __init__(self, type_name: str, message: str, remote_traceback: str = "") -> None:
        super().__init__(f"{type_name}: {message}")
        self.type_name = type_name
        self.remote_traceback = remote_traceback


class RingNotFound(DiscoveryError, LookupError):
    """No ring answered; the message says which hosts were asked, and what they answered."""


class BadAnnouncement(DiscoveryError, ValueError):
    """The properties of an announcement cannot be sent; the message says why."""


class MulticastUnavailable(DiscoveryError, OSError):
    """The machine, or the interface that was named, has no multicast."""


class BadURL(DiscoveryError, ValueError):
    """A text is not the URL of a service; the message shows the form."""


class ServiceNotFound(DiscoveryError, LookupError):
    """No provider is known; the message says what was looked for, where, and which names are similar."""


class ServiceOnLoan(ServiceNotFound):
    """The service exists, but somebody else has borrowed it."""


class ServiceTaken(DiscoveryError):
    """Somebody already offers a service under this app and name."""


class LoanLost(DiscoveryError):
    """The loan ended before its borrower gave it back: it could not be renewed, or its owner ended."""
